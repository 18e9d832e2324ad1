"""CustomResourceDefinitions: their kinds come, change and go with them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dure.api.kinds import builtin_kinds
from dure.apiserver.server import ApiServer
from dure.client.client import Client
from dure.core.errors import BadRequest, Invalid, NotFound
from dure.core.json import thaw
from dure.store.memory import MemoryStore
from tests.support.cluster import api_server, client_of
from tests.support.wire import Remote

CRDS = "customresourcedefinitions.apiextensions.k8s.io"
WIDGETS = "widgets.example.com"


def definition(*, versions: tuple[str, ...] = ("v1",)) -> dict[str, Any]:
    fields = {
        "size": {"type": "integer", "minimum": 1},
        "replicas": {"type": "integer"},
        "color": {"type": "string", "default": "red"},
    }
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": fields},
            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
        },
    }
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": WIDGETS},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [
                {
                    "name": name,
                    "served": True,
                    "storage": index == 0,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}, "scale": scale},
                }
                for index, name in enumerate(versions)
            ],
        },
    }


def widget(name: str = "w", **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": meta, "spec": spec}


async def define(client: Client, **options: Any) -> None:
    await client.create(definition(**options))
    await asyncio.sleep(0.1)


async def test_a_defined_kind_is_served_and_discovered() -> None:
    async with api_server() as (server, client):
        await define(client)
        status = (await client.get(CRDS, WIDGETS))["status"]
        conditions = {entry["type"]: entry["status"] for entry in status["conditions"]}
        assert conditions == {"NamesAccepted": "True", "Established": "True"}
        assert status["acceptedNames"]["singular"] == "widget"
        made = await client.create(widget(size=2))
        assert made["spec"] == {"size": 2, "color": "red"}
        assert made["metadata"]["generation"] == 1
        remote = Remote(server.handle)
        resources = (await remote.value("GET", "/apis/example.com/v1"))["resources"]
        assert [item["name"] for item in resources] == ["widgets", "widgets/scale", "widgets/status"]
        assert "apis/example.com/v1" in (await remote.value("GET", "/openapi/v3"))["paths"]


async def test_custom_objects_are_validated_pruned_and_scaled() -> None:
    async with api_server() as (_server, client):
        await define(client)
        with pytest.raises(Invalid) as caught:
            await client.create(widget(size=0))
        assert caught.value.message == (
            'Widget.example.com "w" is invalid: spec.size: Invalid value: 0: '
            "spec.size in body should be greater than or equal to 1"
        )
        made = await client.create(widget(size=1, nope=True, replicas=2))
        assert "nope" not in made["spec"]
        await client.patch(WIDGETS, "w", "default", {"spec": {"replicas": 5}}, subresource="scale")
        changed = await client.get(WIDGETS, "w", "default")
        assert (changed["spec"]["replicas"], changed["metadata"]["generation"]) == (5, 2)
        await client.update({**thaw(changed), "status": {"replicas": 5}}, subresource="status")
        assert (await client.get(WIDGETS, "w", "default", subresource="scale"))["status"] == {"replicas": 5}


async def test_who_applies_a_scale_owns_the_count() -> None:
    """Applying to `scale` overwrote another manager's count without a conflict, and left no owner behind."""
    async with api_server() as (server, client):
        await define(client)
        await client.apply({**widget(), "spec": {"size": 1, "replicas": 1}}, manager="one")
        path = "/apis/example.com/v1/namespaces/default/widgets/w/scale?fieldManager=two"
        scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 3}}
        media = "application/apply-patch+yaml"
        refused = await Remote(server.handle).value("PATCH", path, scale, content_type=media)
        assert (refused["code"], refused["details"]["causes"][0]["field"]) == (409, ".spec.replicas")
        taken = await Remote(server.handle).value("PATCH", f"{path}&force=true", scale, content_type=media)
        assert (taken["kind"], taken["spec"]) == ("Scale", {"replicas": 3})
        owners = (await client.get(WIDGETS, "w", "default"))["metadata"]["managedFields"]
        assert [(entry["manager"], entry.get("subresource")) for entry in owners] == [("one", None), ("two", "scale")]
        assert owners[1]["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


async def test_custom_objects_have_no_strategic_merge() -> None:
    async with api_server() as (server, client):
        await define(client)
        await client.create(widget())
        path = "/apis/example.com/v1/namespaces/default/widgets/w"
        answer = await Remote(server.handle).value(
            "PATCH", path, {"spec": {}}, content_type="application/strategic-merge-patch+json"
        )
        assert answer["code"] == 415


async def test_a_strict_unknown_field_of_a_custom_object_is_refused() -> None:
    async with api_server() as (server, client):
        await define(client)
        path = "/apis/example.com/v1/namespaces/default/widgets?fieldValidation=Strict"
        answer = await Remote(server.handle).value("POST", path, widget(nope=1))
        assert (answer["code"], answer["message"]) == (400, 'strict decoding error: unknown field "spec.nope"')


async def test_versions_are_views_of_one_collection() -> None:
    async with api_server() as (server, client):
        await define(client, versions=("v1", "v1beta1"))
        await client.create(widget(size=1))
        remote = Remote(server.handle)
        beta = await remote.value("GET", "/apis/example.com/v1beta1/namespaces/default/widgets/w")
        assert (beta["apiVersion"], beta["spec"]["size"]) == ("example.com/v1beta1", 1)
        beta["spec"]["size"] = 9
        await remote.ask("PUT", "/apis/example.com/v1beta1/namespaces/default/widgets/w", beta)
        assert (await client.get(WIDGETS, "w", "default"))["spec"]["size"] == 9


async def test_a_definition_takes_its_objects_along() -> None:
    async with api_server() as (server, client):
        await define(client)
        held = widget("held")
        held["metadata"]["finalizers"] = ["example.com/held"]
        await client.create(held)
        await client.create(widget("free"))
        await client.delete(CRDS, WIDGETS)
        await asyncio.sleep(0.1)
        assert [item["metadata"]["name"] for item in (await client.list(WIDGETS)).items] == ["held"]
        await client.patch(WIDGETS, "held", "default", {"metadata": {"finalizers": None}})
        await asyncio.sleep(0.1)
        with pytest.raises(NotFound):
            await client.get(CRDS, WIDGETS)
        with pytest.raises(NotFound):
            await client.list(WIDGETS)
        assert (await Remote(server.handle).ask("GET", "/apis/example.com/v1")).status == 404


async def test_definitions_are_served_again_after_a_restart() -> None:
    store = MemoryStore()
    first = ApiServer(store, builtin_kinds())
    async with first.opened():
        await define(client_of(first))
        await client_of(first).create(widget(size=1))
    second = ApiServer(store, builtin_kinds())
    async with second.opened():
        assert (await client_of(second).get(WIDGETS, "w", "default"))["spec"]["size"] == 1


async def test_a_definition_that_is_no_schema_is_refused() -> None:
    async with api_server() as (_, client):
        broken = definition()
        del broken["spec"]["versions"][0]["schema"]
        with pytest.raises((Invalid, BadRequest)):
            await client.create(broken)
