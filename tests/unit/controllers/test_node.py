"""A silent node is marked, its pods leave after their patience, and all is well when it is back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dure.api.meta import condition, name_of
from dure.controllers.events import EventReconciler
from dure.controllers.node import NodeReconciler
from dure.controllers.pod_gc import FinishedPodReconciler, LostPodReconciler
from dure.core.clock import rfc3339, rfc3339_micro
from dure.core.json import Obj
from tests.unit.controllers.cluster import NODE, Cluster, cluster, condition_of, plain_pod

LEASES = "leases.coordination.k8s.io"
HEALTHY = (("Ready", "True"), ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False"))


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[Cluster]:
    async with cluster(
        lambda context: NodeReconciler(context).build(),
        lambda context: LostPodReconciler(context).build(),
        **options,
    ) as there:
        await there.client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        await beat(there)
        await there.settle()
        yield there


async def beat(there: Cluster) -> None:
    """What an agent does every ten seconds, and the status it writes when it comes back."""
    now = there.clock.time()
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": NODE, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": NODE, "renewTime": rfc3339_micro(now), "leaseDurationSeconds": 40},
    }
    if await there.exists(LEASES, NODE, "kube-node-lease"):
        await there.client.patch(LEASES, NODE, "kube-node-lease", {"spec": body["spec"]})
    else:
        await there.client.create(body)
    conditions = [{"type": type_, "status": status, "lastHeartbeatTime": rfc3339(now)} for type_, status in HEALTHY]
    await there.set_status("nodes", NODE, {"conditions": conditions}, "")


async def node(there: Cluster) -> Obj:
    return await there.client.get("nodes", NODE)


async def taints(there: Cluster) -> list[tuple[str, str]]:
    found = (await node(there))["spec"].get("taints") or []
    return [(taint["key"].removeprefix("node.kubernetes.io/"), taint["effect"]) for taint in found]


def tolerating(name: str, seconds: int | None) -> Obj:
    toleration: Obj = {"operator": "Exists", "effect": "NoExecute"}
    return plain_pod(name, tolerations=[toleration | ({} if seconds is None else {"tolerationSeconds": seconds})])


async def test_a_node_that_beats_is_left_in_peace() -> None:
    async with started() as there:
        for _ in range(30):
            await beat(there)
            await there.settle(10)
        assert await taints(there) == []
        assert condition_of(await node(there), "Ready") == ("True", "")


async def test_a_silent_node_is_unknown_after_forty_seconds() -> None:
    async with started() as there:
        await there.client.create(plain_pod("one"))
        await there.settle(30)
        assert condition_of(await node(there), "Ready") == ("True", "")
        there.kubelet.fate = lambda pod: "pending"  # it says nothing of its pods either
        await there.settle(15)
        found = await node(there)
        assert [condition_of(found, type_) for type_, _ in HEALTHY] == [("Unknown", "NodeStatusUnknown")] * 4
        assert await taints(there) == [("unreachable", "NoSchedule"), ("unreachable", "NoExecute")]
        pod = await there.client.get("pods", "one", "default")
        assert (condition(pod, "Ready") or {})["status"] == "False"
        assert len(await there.events("NodeNotReady")) == 1


async def test_a_node_that_says_it_is_not_ready_is_tainted_too() -> None:
    async with started() as there:
        await there.set_status("nodes", NODE, {"conditions": [{"type": "Ready", "status": "False"}]}, "")
        await there.settle()
        assert await taints(there) == [("not-ready", "NoSchedule"), ("not-ready", "NoExecute")]


async def test_pods_leave_when_their_patience_ends() -> None:
    async with started() as there:
        for name, seconds in (("minute", 60), ("ten", 600), ("ever", None)):
            await there.client.create(tolerating(name, seconds))
        await there.settle(50)
        assert await there.names("pods") == ["ever", "minute", "ten"]
        await there.settle(60)
        assert await there.names("pods") == ["ever", "ten"]
        await there.settle(600)
        assert await there.names("pods") == ["ever"]
        assert await there.events("TaintManagerEviction") == [
            "Marking for deletion Pod default/minute",
            "Marking for deletion Pod default/ten",
        ]


async def test_a_node_that_is_back_in_time_keeps_its_pods() -> None:
    async with started() as there:
        await there.client.create(tolerating("minute", 60))
        await there.settle(50)
        assert await taints(there) != []
        await beat(there)
        await there.settle()
        assert await taints(there) == []
        for _ in range(20):
            await beat(there)
            await there.settle(10)
        assert await there.names("pods") == ["minute"]


async def taint(there: Cluster, **more: str) -> None:
    value = [{"key": "dedicated", "value": "x", "effect": "NoExecute", **more}]
    await there.change("nodes", NODE, lambda obj: obj["spec"].update(taints=value), "")


async def alive(there: Cluster, seconds: int) -> None:
    for _ in range(seconds // 10):
        await beat(there)
        await there.settle(10)


async def test_a_taint_by_hand_drives_away_at_once_or_later() -> None:
    """Without `timeAdded` the patience of a pod began anew with every look and never ended."""
    async with started() as there:
        await there.client.create(plain_pod("now"))
        await there.client.create(tolerating("later", 30))
        await there.client.create(tolerating("never", None))
        await there.settle()
        await taint(there)
        await alive(there, 20)
        assert await there.names("pods") == ["later", "never"]
        await alive(there, 30)
        assert await there.names("pods") == ["never"]


async def test_a_taint_taken_away_in_time_spares_the_pod() -> None:
    async with started() as there:
        await there.client.create(tolerating("later", 60))
        await there.settle()
        await taint(there)
        await alive(there, 30)
        await there.change("nodes", NODE, lambda obj: obj["spec"].update(taints=[]), "")
        await alive(there, 100)
        assert await there.names("pods") == ["later"]


async def test_a_pod_that_comes_to_a_tainted_node_must_leave_too() -> None:
    async with started() as there:
        await taint(there)
        await there.settle()
        await there.client.create(plain_pod("late"))
        await there.settle()
        assert await there.names("pods") == []


async def test_cordon_and_pressure_are_shown_as_taints() -> None:
    async with started() as there:
        await there.client.patch("nodes", NODE, "", {"spec": {"unschedulable": True}})
        await there.settle()
        assert await taints(there) == [("unschedulable", "NoSchedule")]
        await there.client.patch("nodes", NODE, "", {"spec": {"unschedulable": None}})
        conditions = [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]
        await there.set_status("nodes", NODE, {"conditions": conditions}, "")
        await there.settle()
        assert await taints(there) == [("disk-pressure", "NoSchedule")]


async def test_silence_while_nobody_listened_is_no_silence() -> None:
    """After a restart of the platform every node was unknown until its first beat, and its pods out of service."""
    async with started() as there:
        await there.settle(35)
        fresh = NodeReconciler(there.context)
        await there.settle(20)
        await beat(there)
        await there.settle(39)
        stale = await node(there)
        assert fresh._silent_for(stale) == 0
        assert condition_of(stale, "Ready") == ("True", "")


async def test_the_pods_of_a_deleted_node_go_after_a_while() -> None:
    async with started() as there:
        there.kubelet.stop_seconds = 1e6  # nobody is there to stop them
        await there.client.create(plain_pod("one"))
        await there.client.create(plain_pod("held"))
        await there.client.patch("pods", "held", "default", {"metadata": {"finalizers": ["example.com/hold"]}})
        await there.settle()
        await there.client.delete("nodes", NODE)
        await there.settle(30)
        assert await there.names("pods") == ["held", "one"]
        await there.settle(20)
        (held,) = await there.all("pods")
        assert held["status"]["phase"] == "Failed"
        assert (condition(held, "DisruptionTarget") or {})["reason"] == "DeletionByPodGC"


async def test_a_node_that_is_made_again_keeps_its_pods() -> None:
    async with started() as there:
        await there.client.create(plain_pod("one"))
        await there.settle()
        await there.client.delete("nodes", NODE)
        await there.settle(20)
        await there.client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        await alive(there, 100)
        assert await there.names("pods") == ["one"]


async def test_the_oldest_finished_pods_go() -> None:
    async with cluster(lambda context: FinishedPodReconciler(context, most=3).build()) as there:
        there.kubelet.fate = lambda pod: "succeeded" if name_of(pod) != "runs" else "ready"
        await there.client.create(plain_pod("runs"))
        for number in range(6):
            await there.client.create(plain_pod(f"p{number}"))
            await there.settle(2)
        assert await there.names("pods") == ["p3", "p4", "p5", "runs"]


async def test_events_are_forgotten_after_an_hour() -> None:
    async with cluster(lambda context: EventReconciler(context).build(), kubelet=False) as there:
        pod = await there.client.create(plain_pod("one"))
        await there.context.recorder.record(pod, "Normal", "Once", "x")
        await there.context.recorder.record(pod, "Normal", "Again", "x")
        await there.settle(3000)
        await there.context.recorder.record(pod, "Normal", "Again", "x")
        await there.settle(1000)
        assert (await there.events("Once"), await there.events("Again")) == ([], ["x"])
        await there.settle(3000)
        assert await there.events("Again") == []
