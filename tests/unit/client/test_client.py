"""The calls of a Client, against a small working API in the same process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dure.client.client import WatchEvent
from dure.core.errors import AlreadyExists, Conflict, Expired, NotFound
from dure.core.json import thaw
from tests.support.api import FakeApi
from tests.support.kinds import pod


def brief(event: WatchEvent) -> tuple[str, str]:
    return event.type, event.object["metadata"]["name"]


async def read(events: AsyncIterator[WatchEvent], count: int) -> list[tuple[str, str]]:
    return [brief(await anext(events)) for _ in range(count)]


async def test_create_and_get() -> None:
    client = FakeApi().client()
    made = await client.create(pod("web"))
    assert made["metadata"]["uid"]
    assert await client.get("pods", "web", "default") == made


async def test_paths_of_grouped_and_cluster_scoped_kinds() -> None:
    api = FakeApi()
    client = api.client()
    await client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}})
    await client.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "x"}})
    await client.get("deployments.apps", "d", "x")
    assert api.calls == [
        "POST /api/v1/nodes",
        "POST /apis/apps/v1/namespaces/x/deployments",
        "GET /apis/apps/v1/namespaces/x/deployments/d",
    ]


async def test_errors_are_typed() -> None:
    client = FakeApi().client()
    with pytest.raises(NotFound):
        await client.get("pods", "web", "default")
    await client.create(pod("web"))
    with pytest.raises(AlreadyExists):
        await client.create(pod("web"))


async def test_a_resource_nobody_serves_is_not_found() -> None:
    client = FakeApi().client()
    with pytest.raises(NotFound, match=r"widgets\.example\.com"):
        await client.list("widgets.example.com")
    with pytest.raises(NotFound, match="Widget"):
        await client.create({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}})


async def test_a_stale_update_conflicts() -> None:
    client = FakeApi().client()
    made = await client.create(pod("web"))
    changed = thaw(made)
    changed["spec"]["nodeName"] = "one"
    await client.update(changed)
    with pytest.raises(Conflict):
        await client.update(changed)


async def test_patch_says_its_type() -> None:
    api = FakeApi()
    client = api.client()
    await client.create(pod("web"))
    patched = await client.patch("pods", "web", "default", {"metadata": {"labels": {"a": "b"}}})
    assert patched["metadata"]["labels"] == {"a": "b"}
    await client.patch("pods", "web", "default", {}, type="strategic", subresource="status")
    assert [request.headers.get("content-type") for request in api.requests[1:]] == [
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ]
    assert api.calls[-1] == "PATCH /api/v1/namespaces/default/pods/web/status"


async def test_apply_names_its_manager() -> None:
    api = FakeApi()
    client = api.client()
    await client.create(pod("web"))
    await client.apply(pod("web"), manager="tests", force=True)
    request = api.requests[-1]
    assert request.query == {"fieldManager": ["tests"], "force": ["true"]}
    assert request.headers["content-type"] == "application/apply-patch+yaml"


async def test_list_by_labels_in_all_namespaces() -> None:
    client = FakeApi().client()
    await client.create(pod("a", labels={"app": "web"}))
    await client.create(pod("b", "other", labels={"app": "web"}))
    await client.create(pod("c"))
    found = await client.list("pods", labels="app=web")
    assert [obj["metadata"]["name"] for obj in found.items] == ["a", "b"]
    assert (found.revision, found.continue_) == ("3", "")


async def test_items_know_their_kind() -> None:
    """Servers leave kind and apiVersion out of the items of a list."""
    api = FakeApi()
    await api.store.put("core/pods/default/web", b'{"metadata":{"name":"web"}}', expect=0)
    (item,) = (await api.client().list("pods")).items
    assert (item["apiVersion"], item["kind"]) == ("v1", "Pod")


async def test_list_in_pages() -> None:
    client = FakeApi().client()
    for name in "abc":
        await client.create(pod(name))
    first = await client.list("pods", limit=2)
    rest = await client.list("pods", limit=2, continue_=first.continue_)
    assert [len(first.items), len(rest.items), rest.continue_] == [2, 1, ""]


async def test_revision_zero_is_passed_on() -> None:
    api = FakeApi()
    await api.client().list("pods", revision="0")
    assert api.requests[-1].query == {"resourceVersion": ["0"]}


async def test_delete_with_preconditions() -> None:
    api = FakeApi()
    client = api.client()
    made = await client.create(pod("web"))
    with pytest.raises(Conflict):
        await client.delete("pods", "web", "default", uid="another")
    await client.delete("pods", "web", "default", uid=made["metadata"]["uid"], propagation="Orphan", grace_seconds=0)
    assert api.bodies[-1] == {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "propagationPolicy": "Orphan",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": made["metadata"]["uid"]},
    }
    with pytest.raises(NotFound):
        await client.get("pods", "web", "default")


async def test_delete_collection() -> None:
    client = FakeApi().client()
    await client.create(pod("a"))
    await client.create(pod("b", "other"))
    await client.delete_collection("pods", "default")
    assert [obj["metadata"]["name"] for obj in (await client.list("pods")).items] == ["b"]


async def test_dry_run_changes_nothing() -> None:
    client = FakeApi().client()
    await client.create(pod("web"), dry_run=True)
    assert (await client.list("pods")).items == []


async def test_a_subresource_that_speaks_its_own_kind() -> None:
    api = FakeApi()
    client = api.client()
    await client.create(pod("web"))
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"}, "target": {"name": "one"}}
    await client.create_at("pods", "web", "default", "binding", binding)
    assert api.calls[-1] == "POST /api/v1/namespaces/default/pods/web/binding"


async def test_watch_follows_a_selection() -> None:
    client = FakeApi().client()
    async with client.watch("pods", since="0", fields="spec.nodeName=one") as events:
        await client.create(pod("a", node="one"))
        await client.create(pod("b"))
        await client.patch("pods", "b", "default", {"spec": {"nodeName": "one"}})
        await client.delete("pods", "a", "default")
        assert await read(events, 3) == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


async def test_a_watch_that_is_too_old_is_expired() -> None:
    api = FakeApi()
    client = api.client()
    await client.create(pod("a"))
    await api.store.compact(1)
    with pytest.raises(Expired):
        async with client.watch("pods", since="0") as events:
            await anext(events)
