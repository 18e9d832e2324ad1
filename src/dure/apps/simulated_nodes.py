"""Nodes that only pretend to run pods: for trying schedulers and controllers at size, without root.

Their addresses are from the ranges kept for benchmarks (RFC 2544), so they can never be somebody's.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

from dure.client.client import Client
from dure.control.informer import Informer
from dure.core.settings import Settings
from dure.node.access.ports import Rooms
from dure.node.agent import NodeAgent
from dure.node.model import NodeConfig
from dure.node.pretend import PretendImages, PretendNetwork
from dure.node.runtimes.simulated import SimulatedRuntime
from dure.node.volumes.pretend import PretendVolumes


class Clients(Protocol):
    def __call__(self, name: str) -> AbstractAsyncContextManager[Client]:
        """A client with the certificate of that name."""
        ...


async def add_simulated_nodes(
    stack: AsyncExitStack, settings: Settings, clients: Clients, services: Informer
) -> dict[str, tuple[NodeAgent, Rooms]]:
    """By name; the agents are not running yet."""
    made = {}
    names = [name for name in settings.node_names() if name.startswith("sim-")]
    for index, name in enumerate(names, 1):
        high, low = divmod(index, 256)
        pods = f"198.19.{index % 256}.0/24"
        config = NodeConfig(
            name=name,
            home=settings.path,
            ip=f"198.18.{high}.{low}",
            instance=settings.instance,
            pod_cidr=pods,
            dns_ip=settings.dns_ip,
            cluster_domain=settings.cluster_domain,
            labels={"type": "simulated"},
        )
        client = await stack.enter_async_context(clients(f"node-{name}"))
        runtime, network = SimulatedRuntime(), PretendNetwork(pods)
        agent = NodeAgent(
            client, config, runtime, network, PretendImages(), volumes=PretendVolumes(), services=services
        )
        made[name] = (agent, Rooms(agent.lookup, runtime, network))
    return made
