"""A node that only pretends: pods become ready and go, and it may do no more than a node may."""

from __future__ import annotations

from pathlib import Path

from dure.apiserver.ports import VerifiedUser
from dure.core.aio import running
from dure.core.clock import LoopClock
from dure.node.agent import NodeAgent
from dure.node.model import NodeConfig
from dure.node.pretend import PretendImages, PretendNetwork
from dure.node.runtimes.simulated import SimulatedRuntime
from dure.node.volumes.pretend import PretendVolumes
from tests.support.cluster import api_server, client_of
from tests.support.node import is_ready, pod_of, wait_for_pod

NODE_USER = VerifiedUser("system:node:sim-1", ("system:nodes", "system:authenticated"))


async def test_a_pretending_node_runs_pods_with_a_nodes_rights(tmp_path: Path) -> None:
    clock = LoopClock()
    async with api_server() as (server, admin):
        account = {"name": "default", "namespace": "default"}
        await admin.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        agent = NodeAgent(
            client_of(server, NODE_USER),
            NodeConfig("sim-1", tmp_path, "10.243.0.99"),
            SimulatedRuntime(clock),
            PretendNetwork("10.244.9.0/24"),
            PretendImages(),
            volumes=PretendVolumes(),
            clock=clock,
        )
        async with running(agent.run()):
            await admin.create(pod_of(nodeName="sim-1"))
            pod = await wait_for_pod(admin, is_ready, "web")
            assert pod["status"]["podIP"] == "10.244.9.1"
            await admin.delete("pods", "web", "default", grace_seconds=1)
            await wait_for_pod(admin, lambda pod: not pod, "web")


async def test_addresses_come_back_late() -> None:
    network = PretendNetwork("10.244.9.0/30")
    assert (await network.attach("a")).ip == "10.244.9.1"
    await network.detach("a")
    assert (await network.attach("b")).ip == "10.244.9.2"
    assert (await network.attach("c")).ip == "10.244.9.1"
