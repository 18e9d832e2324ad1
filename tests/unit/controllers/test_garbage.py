"""Garbage collection: who goes with whom, and who must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from dure.api.meta import is_deleting, owner_reference, owners_of
from dure.controllers.deployment import DeploymentReconciler
from dure.controllers.garbage import GarbageCollector
from dure.controllers.replicaset import ReplicaSetReconciler
from dure.core.aio import running
from dure.core.json import Obj
from tests.unit.controllers.cluster import Cluster, cluster, config_map, deployment

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "teams.example.com"},
    "spec": {
        "group": "example.com",
        "names": {"plural": "teams", "singular": "team", "kind": "Team", "listKind": "TeamList"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[Cluster]:
    async with cluster(
        lambda context: DeploymentReconciler(context).build(),
        lambda context: ReplicaSetReconciler(context).build(),
        **options,
    ) as there:
        garbage = GarbageCollector(there.client, there.client.kinds)

        async def follow_kinds() -> None:
            seen = await there.client.list("customresourcedefinitions.apiextensions.k8s.io")
            async with there.client.watch(
                "customresourcedefinitions.apiextensions.k8s.io", since=seen.revision
            ) as events:
                async for _ in events:
                    await asyncio.sleep(0.1)
                    garbage.kinds_changed()

        async with running(garbage.watch_everything(), garbage.build().run(), follow_kinds()):
            await there.settle()
            yield there


async def make(there: Cluster, name: str, *owners: Obj, blocks: bool = True, **meta: Any) -> Obj:
    references = [{**owner_reference(owner, controller=False), "blockOwnerDeletion": blocks} for owner in owners]
    return await there.client.create(config_map(name, references, **meta))


async def left(there: Cluster, names: Sequence[str]) -> list[str]:
    return [name for name in names if await there.exists("configmaps", name)]


async def test_dependents_follow_in_the_background() -> None:
    async with started() as there:
        top = await make(there, "top")
        middle = await make(there, "middle", top)
        await make(there, "leaf", middle)
        await make(there, "other")
        await there.settle()
        await there.client.delete("configmaps", "top", "default")
        await there.settle()
        assert await left(there, ["top", "middle", "leaf", "other"]) == ["other"]


async def test_a_deployment_takes_its_sets_and_pods_along() -> None:
    for propagation in ("Background", "Foreground"):
        async with started() as there:
            await there.client.create(deployment(replicas=3))
            await there.settle(5)
            await there.client.delete("deployments.apps", "web", "default", propagation=propagation)
            await there.settle(5)
            assert await there.names("deployments.apps") == []
            assert await there.names("replicasets.apps") == []
            assert await there.names("pods") == []


async def test_orphaning_a_deployment_leaves_its_sets_and_pods() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=3))
        await there.settle(5)
        pods = await there.names("pods")
        await there.client.delete("deployments.apps", "web", "default", propagation="Orphan")
        await there.settle(5)
        assert await there.names("deployments.apps") == []
        (item,) = await there.all("replicasets.apps")
        assert owners_of(item) == []
        assert await there.names("pods") == pods


async def test_in_the_foreground_the_owner_goes_last() -> None:
    async with started() as there:
        top = await make(there, "top")
        await make(there, "held", top, finalizers=["example.com/hold"])
        await there.settle()
        await there.client.delete("configmaps", "top", "default", propagation="Foreground")
        await there.settle()
        found = await there.client.get("configmaps", "top", "default")
        assert is_deleting(found)
        assert found["metadata"]["finalizers"] == ["foregroundDeletion"]
        assert is_deleting(await there.client.get("configmaps", "held", "default"))
        await there.client.patch("configmaps", "held", "default", {"metadata": {"finalizers": None}})
        await there.settle()
        assert await left(there, ["top", "held"]) == []


async def test_only_blocking_dependents_are_waited_for() -> None:
    async with started() as there:
        top = await make(there, "top")
        await make(there, "held", top, blocks=False, finalizers=["example.com/hold"])
        await there.settle()
        await there.client.delete("configmaps", "top", "default", propagation="Foreground")
        await there.settle()
        assert await left(there, ["top", "held"]) == ["held"]


async def test_a_dependent_that_changes_its_mind_is_waited_for_no_more() -> None:
    async with started() as there:
        top = await make(there, "top")
        await make(there, "held", top, finalizers=["example.com/hold"])
        await there.settle()
        await there.client.delete("configmaps", "top", "default", propagation="Foreground")
        await there.settle()
        await there.client.patch("configmaps", "held", "default", {"metadata": {"ownerReferences": None}})
        await there.settle()
        assert await left(there, ["top", "held"]) == ["held"]


async def ring(there: Cluster, names: Sequence[str]) -> None:
    made = {name: await make(there, name) for name in names}
    for name, owner in zip(names, [*names[1:], names[0]], strict=True):
        patch = {"metadata": {"ownerReferences": [owner_reference(made[owner], controller=False)]}}
        await there.client.patch("configmaps", name, "default", patch)
    await there.settle()


async def test_a_ring_of_owners_can_be_collected() -> None:
    for propagation in ("Background", "Foreground"):
        for names in (["a", "b"], ["a", "b", "c"]):
            async with started() as there:
                await ring(there, names)
                assert await left(there, names) == names
                await there.client.delete("configmaps", "a", "default", propagation=propagation)
                await there.settle(30)
                assert await left(there, names) == [], (propagation, names)


async def test_one_owner_left_is_enough() -> None:
    async with started() as there:
        first, second = await make(there, "first"), await make(there, "second")
        await make(there, "leaf", first, second)
        await there.settle()
        await there.client.delete("configmaps", "first", "default")
        await there.settle()
        found = await there.client.get("configmaps", "leaf", "default")
        assert [ref["name"] for ref in owners_of(found)] == ["second"]


async def test_one_owner_left_survives_a_foreground_deletion_of_the_other() -> None:
    async with started() as there:
        first, second = await make(there, "first"), await make(there, "second")
        await make(there, "leaf", first, second)
        await there.settle()
        await there.client.delete("configmaps", "first", "default", propagation="Foreground")
        await there.settle()
        assert await left(there, ["first", "second", "leaf"]) == ["second", "leaf"]


async def test_an_owner_that_never_was_is_no_owner() -> None:
    async with started() as there:
        real = await make(there, "real")
        for name, change in (("absent", {"name": "nobody"}), ("other-uid", {"uid": "not-this-one"})):
            await there.client.create(config_map(name, [{**owner_reference(real, controller=False), **change}]))
        await there.settle()
        assert await left(there, ["real", "absent", "other-uid"]) == ["real"]


async def test_an_owner_in_another_namespace_is_no_owner() -> None:
    async with started() as there:
        await there.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "far"}})
        far = await there.client.create(config_map("far", namespace="far"))
        await make(there, "leaf", far)
        await there.settle()
        assert await left(there, ["leaf"]) == []


async def test_a_cluster_wide_owner_may_own_in_any_namespace() -> None:
    async with started() as there:
        node = await there.client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
        await make(there, "leaf", node)
        await there.settle()
        assert await left(there, ["leaf"]) == ["leaf"]
        await there.client.delete("nodes", "n")
        await there.settle()
        assert await left(there, ["leaf"]) == []


async def test_an_owner_of_an_unknown_kind_deletes_nothing() -> None:
    async with started() as there:
        owner = {"apiVersion": "unknown.example.com/v1", "kind": "Thing", "name": "x", "uid": "y"}
        await there.client.create(config_map("leaf", [owner]))
        await there.settle()
        assert await left(there, ["leaf"]) == ["leaf"]


async def test_custom_resources_own_and_are_owned() -> None:
    async with started() as there:
        await there.client.create(CRD)
        await there.settle(2)
        team = {"apiVersion": "example.com/v1", "kind": "Team", "metadata": {"name": "red", "namespace": "default"}}
        red = await there.client.create(team)
        await make(there, "leaf", red)
        sub = {**team, "metadata": {"name": "sub", "namespace": "default"}}
        sub["metadata"]["ownerReferences"] = [owner_reference(red, controller=False)]
        await there.client.create(sub)
        await there.settle(2)
        await there.client.delete("teams.example.com", "red", "default")
        await there.settle(2)
        assert await there.names("teams.example.com") == []
        assert await left(there, ["leaf"]) == []


async def test_deleting_a_definition_takes_along_what_its_objects_owned() -> None:
    async with started() as there:
        await there.client.create(CRD)
        await there.settle(2)
        team = {"apiVersion": "example.com/v1", "kind": "Team", "metadata": {"name": "red", "namespace": "default"}}
        red = await there.client.create(team)
        await make(there, "leaf", red)
        await there.settle(2)
        await there.client.delete("customresourcedefinitions.apiextensions.k8s.io", "teams.example.com")
        await there.settle(5)
        assert await left(there, ["leaf"]) == []


async def test_nothing_is_decided_before_everything_is_known() -> None:
    """A restart in the middle of a foreground deletion forgot the dependents it had not yet listed."""
    async with started(kubelet=False) as there:
        top = await make(there, "top", finalizers=["foregroundDeletion"])
        await make(there, "held", top, finalizers=["example.com/hold"])
        fresh = GarbageCollector(there.client, there.client.kinds)
        fresh._seen("configmaps", None, await there.client.get("configmaps", "top", "default"))
        result = await fresh.reconcile(next(iter(fresh._controller.queue._ready)))
        assert result.requeue_after is None  # it is not being deleted yet
        await there.client.delete("configmaps", "top", "default")
        fresh._seen("configmaps", None, await there.client.get("configmaps", "top", "default"))
        result = await fresh.reconcile(next(iter(fresh._controller.queue._ready)))
        assert result.requeue_after is not None
        assert await left(there, ["top", "held"]) == ["top", "held"]
