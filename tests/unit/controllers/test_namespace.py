"""Deleting a namespace empties it, says what holds it up, and ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dure.api.meta import condition, is_deleting
from dure.controllers.namespace import NamespaceReconciler
from dure.controllers.serviceaccount import NamespaceFurnisher
from dure.core.json import Obj
from tests.unit.controllers.cluster import Cluster, cluster, condition_of, config_map, plain_pod
from tests.unit.controllers.test_garbage import CRD


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[Cluster]:
    async with cluster(
        lambda context: NamespaceReconciler(context, context.client.kinds).build(),
        lambda context: NamespaceFurnisher(context, "PEM").build(),
        **options,
    ) as there:
        await there.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        await there.settle()
        yield there


async def get(there: Cluster) -> Obj:
    return await there.client.get("namespaces", "shop")


async def test_everything_inside_goes_and_then_the_namespace() -> None:
    async with started() as there:
        await there.client.create(CRD)
        await there.settle(2)
        await there.client.create(
            {"apiVersion": "example.com/v1", "kind": "Team", "metadata": {"name": "red", "namespace": "shop"}}
        )
        await there.client.create(config_map("settings", namespace="shop"))
        await there.client.create(plain_pod("one", namespace="shop"))
        await there.client.create(config_map("elsewhere"))
        await there.settle()
        await there.client.delete("namespaces", "shop")
        assert (await get(there))["status"]["phase"] == "Terminating"
        await there.settle(20)
        assert not await there.exists("namespaces", "shop")
        for resource in ("pods", "configmaps", "serviceaccounts", "events", "teams.example.com"):
            assert await there.names(resource, "shop") == []
        assert await there.exists("configmaps", "elsewhere")


async def test_pods_go_first() -> None:
    async with started() as there:
        there.kubelet.stop_seconds = 20
        await there.client.create(config_map("settings", namespace="shop"))
        await there.client.create(plain_pod("one", namespace="shop"))
        await there.settle()
        await there.client.delete("namespaces", "shop")
        await there.settle(10)
        assert await there.exists("configmaps", "settings", "shop")
        message = (condition(await get(there), "NamespaceContentRemaining") or {})["message"]
        assert message == "Some resources are remaining: pods. has 1 resource instances"
        await there.settle(30)
        assert not await there.exists("namespaces", "shop")


async def test_what_is_held_by_a_finalizer_is_named() -> None:
    async with started() as there:
        await there.client.create(config_map("held", namespace="shop", finalizers=["example.com/hold"]))
        await there.client.delete("namespaces", "shop")
        await there.settle(5)
        found = await get(there)
        assert condition_of(found, "NamespaceContentRemaining") == ("True", "SomeResourcesRemain")
        assert condition_of(found, "NamespaceDeletionContentFailure") == ("False", "ContentDeleted")
        assert (condition(found, "NamespaceFinalizersRemaining") or {})["message"] == (
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        )
        assert is_deleting(await there.client.get("configmaps", "held", "shop"))
        await there.client.patch("configmaps", "held", "shop", {"metadata": {"finalizers": None}})
        await there.settle(20)
        assert not await there.exists("namespaces", "shop")


async def test_a_namespace_is_furnished_and_stays_so() -> None:
    async with started() as there:
        account = await there.client.get("serviceaccounts", "default", "shop")
        assert account["metadata"]["namespace"] == "shop"
        assert (await there.client.get("configmaps", "kube-root-ca.crt", "shop"))["data"] == {"ca.crt": "PEM"}
        await there.client.delete("serviceaccounts", "default", "shop")
        await there.client.delete("configmaps", "kube-root-ca.crt", "shop")
        await there.settle()
        assert await there.exists("serviceaccounts", "default", "shop")
        patch = {"data": {"ca.crt": "forged"}}
        await there.client.patch("configmaps", "kube-root-ca.crt", "shop", patch)
        await there.settle()
        assert (await there.client.get("configmaps", "kube-root-ca.crt", "shop"))["data"] == {"ca.crt": "PEM"}


async def test_the_first_namespaces_are_furnished_too() -> None:
    async with started() as there:
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            assert await there.exists("serviceaccounts", "default", name)
