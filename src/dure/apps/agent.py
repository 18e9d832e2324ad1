"""The agent daemon: all local nodes of this machine in one process, each with its own network and runtime.

Ending it leaves every container, network and mount in place; the next agent takes them over.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from dure.api.kind import Kinds
from dure.api.kinds import builtin_kinds
from dure.apps.local_nodes import LocalNodes
from dure.apps.machine import machine_of
from dure.apps.notify import notify, supervisor_pid
from dure.apps.simulated_nodes import add_simulated_nodes
from dure.client.client import Client
from dure.client.credentials import tls_files
from dure.client.events import EventRecorder
from dure.client.http import HttpTransport
from dure.client.retry import RetryingTransport
from dure.control.informer import Informer
from dure.core.aio import running
from dure.core.errors import ApiError, ConfigError, TransportError
from dure.core.log import set_up_logging
from dure.core.process import collect_rarely, die_with_parent, set_process_name
from dure.core.settings import Settings
from dure.node.access.server import AccessServer
from dure.node.network.links import Machine
from dure.node.network.services.publisher import LoadBalancerPublisher
from dure.wire.server import HttpServer, Listen

log = logging.getLogger("dure.apps")

_FIRST_TRY_SECONDS, _LAST_TRY_SECONDS = 0.01, 0.05


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
            yield Client(RetryingTransport(transport), self._kinds)

    async def run(self) -> None:
        """Until SIGTERM."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            machine = await self._machine(stack)
            client = await stack.enter_async_context(self._client("agent"))
            await _wait_for_server(client)
            services = Informer(client, "services")
            nodes = await add_simulated_nodes(stack, self._settings, self._client, services)
            loops: list[Coroutine[Any, Any, None]] = [services.run()]
            if machine is not None:
                local = LocalNodes(stack, self._settings, machine, client, services)
                nodes.update(await local.add(self._client))
                publisher = LoadBalancerPublisher(machine, client, services, EventRecorder(client, "load-balancer"))
                loops += [local.slices.run(), publisher.run()]
            access = AccessServer({name: rooms for name, (_, rooms) in nodes.items()})
            socket = Listen(path=str(self._settings.agent_socket))
            await stack.enter_async_context(HttpServer(access.handle, [socket]).serving())
            async with running(*loops, *(agent.run() for agent, _ in nodes.values())):
                for agent, _ in nodes.values():
                    await agent.wait_registered()
                shown = ", ".join(nodes) if len(nodes) < 6 else f"{len(nodes)} nodes"
                collect_rarely()
                notify(f"{shown} ready", ready=True)
                await stop.wait()

    async def _machine(self, stack: AsyncExitStack) -> Machine | None:
        """The network of the local nodes, None when there are none."""
        machine = machine_of(self._settings)
        if not machine.nodes:
            return None
        await machine.setup()
        stack.callback(machine.close)
        notify(f"network of {len(machine.nodes)} nodes")
        return machine


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
    die_with_parent(supervisor_pid())
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
