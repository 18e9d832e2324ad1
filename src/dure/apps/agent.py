"""The agent daemon: all local nodes of this machine in one process, each with its own network and runtime.

Ending it leaves every container, network and mount in place; the next agent takes them over.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop

from dure.api.kind import Kinds
from dure.api.kinds import builtin_kinds
from dure.apps.machine import machine_of
from dure.apps.node_images import NodeImages
from dure.apps.notify import notify
from dure.client.client import Client
from dure.client.events import EventRecorder
from dure.client.credentials import tls_files
from dure.client.http import HttpTransport
from dure.control.informer import Informer
from dure.core.aio import running
from dure.core.errors import ApiError, ConfigError, TransportError
from dure.core.log import set_up_logging
from dure.core.process import die_with_parent, set_process_name
from dure.core.settings import Settings
from dure.images.service import ImageStore, open_store
from dure.node.access.server import AccessServer
from dure.node.agent import NodeAgent
from dure.node.model import NodeConfig
from dure.node.network.dns.server import DnsServer
from dure.node.network.links import Machine
from dure.node.network.pods import NodeNetwork
from dure.node.network.ports import BY_SERVICE, service_of_slice
from dure.node.network.services.proxy import LoadBalancerPublisher, ServiceProxy
from dure.node.runtimes.oci.runtime import OciRuntime
from dure.wire.server import HttpServer, Listen

log = logging.getLogger("dure.apps")

_FIRST_TRY_SECONDS, _LAST_TRY_SECONDS = 0.02, 1.0


class Agent:
    """Everything of this machine that is not the server."""

    def __init__(self, settings: Settings, kinds: Kinds) -> None:
        self._settings = settings
        self._kinds = kinds

    @asynccontextmanager
    async def _client(self, name: str) -> AsyncIterator[Client]:
        """As the certificate `<name>.crt` says."""
        pki = self._settings.pki_dir
        await _wait_for_file(pki / f"{name}.crt")
        tls = tls_files(pki / "ca.crt", pki / f"{name}.crt", pki / f"{name}.key")
        async with HttpTransport(self._settings.api_url, tls=tls) as transport:
            yield Client(transport, self._kinds)

    async def run(self) -> None:
        """Until SIGTERM."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            machine = machine_of(self._settings)
            await machine.setup()
            stack.callback(machine.close)
            notify(f"network of {len(machine.nodes)} nodes")
            client = await stack.enter_async_context(self._client("agent"))
            await _wait_for_server(client)
            services = Informer(client, "services")
            slices = Informer(client, "endpointslices.discovery.k8s.io", indexes={BY_SERVICE: service_of_slice})
            store = open_store(self._settings.path, stand_ins=self._settings.stand_ins)
            agents = {name: await self._node(stack, machine, name, services, slices, store) for name in machine.nodes}
            access = AccessServer({name: agent.lookup for name, agent in agents.items()})
            socket = Listen(path=str(self._settings.agent_socket))
            await stack.enter_async_context(HttpServer(access.handle, [socket]).serving())
            publisher = LoadBalancerPublisher(machine, client, services, EventRecorder(client, "load-balancer"))
            loops = [agent.run() for agent in agents.values()]
            async with running(services.run(), slices.run(), publisher.run(), *loops):
                for agent in agents.values():
                    await agent.wait_registered()
                notify(f"nodes {', '.join(agents)} ready", ready=True)
                await stop.wait()

    async def _node(
        self,
        stack: AsyncExitStack,
        machine: Machine,
        name: str,
        services: Informer,
        slices: Informer,
        store: ImageStore,
    ) -> NodeAgent:
        settings = self._settings
        place = machine.nodes[name]
        network = NodeNetwork(machine, name, settings.path / "nodes" / name)
        await network.start()
        stack.callback(network.close)
        runtime = await stack.enter_async_context(OciRuntime(settings.run_dir / name, settings.instance))
        proxy = ServiceProxy(network, services, slices)
        dns = DnsServer(network, services, slices)
        await stack.enter_async_context(running(proxy.run(), dns.run()))
        client = await stack.enter_async_context(self._client(f"node-{name}"))
        config = NodeConfig(
            name=name,
            home=settings.path,
            ip=place.address,
            instance=settings.instance,
            pod_cidr=str(place.pods),
            dns_ip=settings.dns_ip,
            cluster_domain=settings.cluster_domain,
        )
        return NodeAgent(client, config, runtime, network, NodeImages(store), services=services)


async def _wait_for_file(path: Path) -> None:
    """The server writes it in its first moments."""
    delay = _FIRST_TRY_SECONDS
    while not path.exists():
        await asyncio.sleep(delay)
        delay = min(delay * 1.5, _LAST_TRY_SECONDS)


async def _wait_for_server(client: Client) -> None:
    delay = _FIRST_TRY_SECONDS
    while True:
        try:
            await client.raw("GET", "/readyz")
            return
        except (TransportError, ApiError):
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, _LAST_TRY_SECONDS)


def main() -> None:
    """`python -m dure.apps.agent HOME`."""
    set_process_name("dure-agent")
    die_with_parent()
    set_up_logging()
    settings = Settings.load(Path(sys.argv[1]))
    if settings is None:
        raise SystemExit(f"dure: no settings in {sys.argv[1]}")
    try:
        uvloop.run(Agent(settings, builtin_kinds()).run())
    except ConfigError as error:
        notify("", error=error.message, mend=error.mend)
        log.error("cannot start", extra={"cause": error.message})
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
