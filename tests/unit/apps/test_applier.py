"""An application's objects reach the API together or not at all, custom kinds and new namespaces among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dure.apps.application import Application
from dure.apps.applier import Applier, ObjectsRefused
from dure.client.client import Client
from dure.core.aio import running
from dure.core.errors import ConfigError
from dure.core.json import Obj
from tests.support.cluster import api_server

CRD: Obj = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.acme.io"},
    "spec": {
        "group": "acme.io",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}},
        ],
    },
}
WIDGET: Obj = {"apiVersion": "acme.io/v1", "kind": "Widget", "metadata": {"name": "one"}}


def config(name: str, **more: object) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more}


def applier(client: Client, *objects: Obj, namespace: str = "default") -> Applier:
    return Applier(client, Application("app", Path(), namespace, (), objects), {})


async def names(client: Client, resource: str) -> list[str]:
    return [item["metadata"]["name"] for item in (await client.list(resource)).items]


async def test_custom_kinds_come_with_their_instances() -> None:
    """The instances of a definition in the same folder were refused as not served."""
    async with api_server() as (_, client):
        said: list[str] = []
        await applier(client, CRD, WIDGET).apply(said.append)
        assert said == ["customresourcedefinition widgets.acme.io", "widget default/one"]
        assert await names(client, "widgets.acme.io") == ["one"]


async def test_custom_kinds_that_are_served_already() -> None:
    async with api_server() as (server, client):
        await applier(client, CRD).apply(lambda _: None)
        fresh = Client(client._transport, type(server.kinds)())
        for kind in server.kinds:
            if kind.group != "acme.io":
                fresh.kinds.add(kind)
        await applier(fresh, WIDGET).apply(lambda _: None)
        assert await names(client, "widgets.acme.io") == ["one"]


async def test_nothing_is_applied_when_an_object_is_invalid() -> None:
    """What came before the faulty object stayed."""
    async with api_server() as (_, client):
        with pytest.raises(ObjectsRefused, match=r"(?s)nothing was applied:.*B_. is invalid.*ConfigMap c: .*dota"):
            await applier(client, config("a"), config("B_"), config("c", dota={})).apply(lambda _: None)
        assert "a" not in await names(client, "configmaps")


async def test_nothing_is_applied_when_a_kind_is_not_served() -> None:
    async with api_server() as (_, client):
        with pytest.raises(ConfigError, match=r"Widget acme.io/v1 is not served here \(object one\)"):
            await applier(client, config("a"), WIDGET).apply(lambda _: None)
        assert "a" not in await names(client, "configmaps")


async def test_new_namespace_has_its_service_account_first() -> None:
    """The first pod of a new namespace was refused: its service account was not there yet."""
    order: list[str] = []

    async def account_controller(client: Client) -> None:
        async with client.watch("namespaces", since="1") as events:
            async for event in events:
                if event.object["metadata"].get("name") == "fresh":
                    meta = {"name": "default", "namespace": "fresh"}
                    await client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
                    order.append("account")

    async with api_server() as (_, client), running(account_controller(client)):
        await applier(client, config("a"), namespace="fresh").apply(order.append)
        assert order == ["account", "configmap fresh/a"]
