"""ReplicaSet: as many pods as asked, no more under a stale cache, the right ones go first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dure.api.meta import controller_of, name_of, owner_reference, uid_of
from dure.controllers.pods import choose_for_deletion
from dure.controllers.replicaset import ReplicaSetReconciler
from dure.core.errors import Forbidden
from dure.core.json import Obj
from tests.unit.controllers.cluster import Cluster, cluster, condition_of, plain_pod, replica_set


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[Cluster]:
    async with cluster(lambda context: ReplicaSetReconciler(context).build(), **options) as there:
        yield there


async def test_pods_are_made_and_counted() -> None:
    async with started() as there:
        await there.client.create(replica_set(replicas=3))
        await there.settle()
        pods = await there.pods()
        found = await there.client.get("replicasets.apps", "web", "default")
    assert len(pods) == 3
    assert all((controller_of(pod) or {}).get("uid") == uid_of(found) for pod in pods)
    assert found["status"] == {
        "replicas": 3,
        "fullyLabeledReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
        "observedGeneration": 1,
    }


async def test_scaling_up_and_down() -> None:
    async with started() as there:
        await there.client.create(replica_set(replicas=2))
        await there.settle()
        for size in (7, 1, 0, 4):
            await there.change("replicasets.apps", "web", lambda obj, size=size: obj["spec"].update(replicas=size))
            await there.settle()
            assert len(await there.pods()) == size


async def test_a_deleted_pod_is_replaced_before_it_has_gone() -> None:
    async with started() as there:
        there.kubelet.stop_seconds = 60
        await there.client.create(replica_set(replicas=2))
        await there.settle()
        victim = (await there.pods())[0]
        await there.client.delete("pods", name_of(victim), "default")
        await there.settle()
        assert len(await there.pods()) == 2
        assert len(await there.all("pods")) == 3


async def test_a_failed_pod_is_replaced() -> None:
    async with started() as there:
        await there.client.create(replica_set(replicas=1))
        await there.settle()
        await there.kubelet.set_status((await there.pods())[0], "failed")
        await there.settle()
        phases = sorted(pod["status"]["phase"] for pod in await there.pods())
    assert phases == ["Failed", "Running"]


async def test_available_only_after_min_ready_seconds() -> None:
    async with started() as there:
        await there.client.create(replica_set(replicas=1, minReadySeconds=30))
        await there.settle(20)
        early = (await there.client.get("replicasets.apps", "web", "default"))["status"]
        await there.settle(15)
        late = (await there.client.get("replicasets.apps", "web", "default"))["status"]
    assert (early["readyReplicas"], early.get("availableReplicas", 0)) == (1, 0)
    assert late["availableReplicas"] == 1


async def test_a_matching_orphan_is_adopted() -> None:
    async with started() as there:
        await there.client.create(plain_pod("alone"))
        await there.client.create(replica_set(replicas=1))
        await there.settle()
        assert await there.names("pods") == ["alone"]
        await there.client.create(plain_pod("later"))
        await there.settle()
        assert len(await there.pods()) == 1


async def test_a_pod_that_no_longer_matches_is_let_go_and_replaced() -> None:
    async with started() as there:
        await there.client.create(replica_set(replicas=1))
        await there.settle()
        name = (await there.names("pods"))[0]
        await there.client.patch("pods", name, "default", {"metadata": {"labels": {"app": "debug"}}})
        await there.settle()
        freed = await there.client.get("pods", name, "default")
        assert controller_of(freed) is None
        assert len(await there.pods()) == 2


async def test_another_controllers_pod_is_left_alone() -> None:
    async with started() as there:
        other = await there.client.create(replica_set("other", replicas=0))
        taken = plain_pod("taken")
        taken["metadata"]["ownerReferences"] = [{**owner_reference(other), "name": "gone", "uid": "gone"}]
        await there.client.create(taken)
        await there.client.create(replica_set(replicas=1))
        await there.settle()
        pods = await there.pods()
    assert sorted((controller_of(pod) or {})["name"] for pod in pods) == ["gone", "web"]


async def test_a_deleting_set_makes_and_adopts_nothing() -> None:
    async with started() as there:
        body = replica_set(replicas=0)
        body["metadata"]["finalizers"] = ["example.com/hold"]
        await there.client.create(body)
        await there.client.delete("replicasets.apps", "web", "default")
        await there.client.create(plain_pod("alone"))
        await there.settle()
        assert controller_of(await there.client.get("pods", "alone", "default")) is None


async def test_no_pod_is_made_twice_while_the_cache_is_behind() -> None:
    async with started(lag={"pods": 20.0}) as there:
        await there.client.create(replica_set(replicas=3))
        for number in range(10):
            await there.settle()
            labels = {"number": str(number)}
            await there.change(
                "replicasets.apps", "web", lambda obj, labels=labels: obj["metadata"].update(labels=labels)
            )
        assert len(await there.all("pods")) == 3
        await there.settle(60)
        assert len(await there.all("pods")) == 3


async def test_no_pod_too_many_is_deleted_while_the_cache_is_behind() -> None:
    async with started(lag={"pods": 20.0}) as there:
        await there.client.create(replica_set(replicas=5))
        await there.settle(60)
        for size in (3, 2, 3):
            await there.change("replicasets.apps", "web", lambda obj, size=size: obj["spec"].update(replicas=size))
            await there.settle()
        assert len(await there.pods()) == 3
        await there.settle(100)
        assert len(await there.pods()) == 3


async def test_a_refusal_is_said_and_tried_again() -> None:
    async with started() as there:
        refusing = Refusing(there)
        async with refusing:
            await there.client.create(replica_set(replicas=50))
            await there.settle(10)
            found = await there.client.get("replicasets.apps", "web", "default")
            assert condition_of(found, "ReplicaFailure") == ("True", "FailedCreate")
            assert refusing.asked < 15  # each refusal named another pod, and woke the reconciler without end
        await there.settle(30)
        found = await there.client.get("replicasets.apps", "web", "default")
        assert condition_of(found, "ReplicaFailure") is None
        assert found["status"]["replicas"] == 50


class Refusing:
    """The server refuses pods, as a quota would."""

    def __init__(self, there: Cluster) -> None:
        self._client = there.context.client
        self.asked = 0

    async def __aenter__(self) -> Refusing:
        self._create = self._client.create
        self._client.create = self._refuse  # type: ignore[method-assign]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.create = self._create  # type: ignore[method-assign]

    async def _refuse(self, obj: Obj, **options: Any) -> Obj:
        if obj["kind"] == "Pod":
            self.asked += 1
            raise Forbidden(f"exceeded quota: pods {self.asked}")
        return await self._create(obj, **options)


def pod(name: str, node: str = "a", phase: str = "Running", ready: str = "2026-01-01T00:00:00Z", **more: Any) -> Obj:
    status: Obj = {"phase": phase, "containerStatuses": [{"restartCount": more.pop("restarts", 0)}]}
    if ready:
        status["conditions"] = [{"type": "Ready", "status": "True", "lastTransitionTime": ready}]
    annotations = {"controller.kubernetes.io/pod-deletion-cost": str(more.pop("cost", 0))}
    created = more.pop("created", "2026-01-01T00:00:00Z")
    meta = {"name": name, "annotations": annotations, "creationTimestamp": created}
    return {"metadata": meta, "spec": {"nodeName": node} if node else {}, "status": status}


def order(*pods: Obj) -> list[str]:
    return [name_of(item) for item in choose_for_deletion(list(reversed(pods)), len(pods))]


def test_order_of_deletion() -> None:
    """Upstream's ActivePodsWithRanks, criterion by criterion."""
    ordered = [
        pod("unassigned", node=""),
        pod("pending", phase="Pending", ready=""),
        pod("unready", ready=""),
        pod("cheap", cost=-5),
        pod("young-ready", ready="2026-01-02T00:00:00Z"),
        pod("restarted", restarts=3),
        pod("young", created="2026-01-03T00:00:00Z"),
        pod("old"),
    ]
    assert order(*ordered) == [name_of(item) for item in ordered]


def test_company_on_a_node_counts() -> None:
    here, there = pod("here", node="a"), pod("there", node="b")
    assert [
        name_of(item) for item in choose_for_deletion([here, there], 1, [here, there, pod("sibling", node="b")])
    ] == ["there"]
