"""The nodes of this machine: each with its own network namespace, pod network, runtime, Services and DNS."""

from __future__ import annotations

from contextlib import AsyncExitStack

from dure.apps.node_images import NodeImages
from dure.apps.simulated_nodes import Clients
from dure.client.client import Client
from dure.control.informer import Informer
from dure.core.aio import running
from dure.core.settings import Settings
from dure.images.service import ImageStore, open_store
from dure.node.access.ports import Rooms
from dure.node.agent import NodeAgent
from dure.node.model import NodeConfig
from dure.node.network.dns.server import DnsServer
from dure.node.network.links import Machine
from dure.node.network.pods import NodeNetwork
from dure.node.network.ports import BY_SERVICE, service_of_slice
from dure.node.network.services.proxy import ServiceProxy
from dure.node.runtimes.oci.runtime import OciRuntime


class LocalNodes:
    """Builds the agents; what it opens lives as long as `stack`."""

    def __init__(
        self, stack: AsyncExitStack, settings: Settings, machine: Machine, client: Client, services: Informer
    ) -> None:
        self._stack = stack
        self._settings = settings
        self._machine = machine
        self._services = services
        self.slices = Informer(client, "endpointslices.discovery.k8s.io", indexes={BY_SERVICE: service_of_slice})

    async def add(self, clients: Clients) -> dict[str, tuple[NodeAgent, Rooms]]:
        """By name; the agents are not running yet. Root file systems of containers that are gone are removed."""
        store = open_store(self._settings.path, stand_ins=self._settings.stand_ins)
        await store.recover()
        made = {name: await self._node(name, clients, store) for name in self._machine.nodes}
        alive = {run.id for _, rooms in made.values() for run in await rooms.runtime.containers()}
        await store.sweep(alive)
        return made

    async def _node(self, name: str, clients: Clients, store: ImageStore) -> tuple[NodeAgent, Rooms]:
        settings, place = self._settings, self._machine.nodes[name]
        network = NodeNetwork(self._machine, name, settings.path / "nodes" / name)
        await network.start()
        self._stack.callback(network.close)
        runtime = await self._stack.enter_async_context(OciRuntime(settings.run_dir / name, settings.instance))
        proxy = ServiceProxy(network, self._services, self.slices)
        dns = DnsServer(network, self._services, self.slices, settings.cluster_domain)
        await self._stack.enter_async_context(running(proxy.run(), dns.run()))
        config = NodeConfig(
            name=name,
            home=settings.path,
            ip=place.address,
            instance=settings.instance,
            pod_cidr=str(place.pods),
            dns_ip=settings.dns_ip,
            cluster_domain=settings.cluster_domain,
        )
        client = await self._stack.enter_async_context(clients(f"node-{name}"))
        agent = NodeAgent(client, config, runtime, network, NodeImages(store), services=self._services)
        return agent, Rooms(agent.lookup, runtime, network)
