"""list and watch: pages, selectors, resuming, bookmarks, watch-list."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dure.apiserver.watch_hub import WatchHub
from dure.client.client import Client
from dure.core.errors import ApiError, BadRequest, Expired
from tests.support.cluster import api_server
from tests.support.wire import Remote, decoded, frames

PODS = "/api/v1/namespaces/default/configmaps"


async def fill(client: Client, count: int, namespace: str = "default") -> None:
    for index in range(count):
        meta = {"name": f"c{index:02}", "namespace": namespace, "labels": {"odd": str(index % 2)}}
        await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"n": str(index)}})


def names(items: list[Any]) -> list[str]:
    return [item["metadata"]["name"] for item in items]


async def test_pages_are_of_one_revision_and_tell_what_remains() -> None:
    async with api_server() as (_, client):
        await fill(client, 5)
        remote = Remote(_.handle)
        first = await remote.value("GET", f"{PODS}?limit=2")
        assert names(first["items"]) == ["c00", "c01"]
        assert first["metadata"]["remainingItemCount"] == 3
        await client.delete("configmaps", "c02", "default")
        token = first["metadata"]["continue"]
        second = await remote.value("GET", f"{PODS}?limit=2&continue={token}")
        assert names(second["items"]) == ["c02", "c03"]
        assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        third = await remote.value("GET", f"{PODS}?limit=2&continue={second['metadata']['continue']}")
        assert names(third["items"]) == ["c04"]
        assert "continue" not in third["metadata"]


async def test_a_page_with_a_selector_is_filled_from_what_matches() -> None:
    async with api_server() as (_server, client):
        await fill(client, 6)
        page = await client.list("configmaps", "default", labels="odd=1", limit=2)
        assert names(page.items) == ["c01", "c03"]
        rest = await client.list("configmaps", "default", labels="odd=1", limit=2, continue_=page.continue_)
        assert names(rest.items) == ["c05"]
        assert rest.continue_ == ""


async def test_a_page_that_is_too_old_offers_a_fresh_start() -> None:
    async with api_server() as (server, client):
        await fill(client, 3)
        remote = Remote(server.handle)
        first = await remote.value("GET", f"{PODS}?limit=1")
        await client.delete("configmaps", "c02", "default")
        await server.store.compact(server.store.revision)
        late = await remote.value("GET", f"{PODS}?limit=1&continue={first['metadata']['continue']}")
        assert (late["code"], late["reason"]) == (410, "Expired")
        again = await remote.value("GET", f"{PODS}?limit=5&continue={late['metadata']['continue']}")
        assert names(again["items"]) == ["c01"]


async def test_a_broken_token_is_a_bad_request() -> None:
    async with api_server() as (server, _):
        answer = await Remote(server.handle).value("GET", f"{PODS}?continue=nonsense")
        assert (answer["code"], answer["message"][:25]) == (400, "continue key is not valid")


async def test_a_token_of_another_collection_is_refused() -> None:
    async with api_server() as (server, client):
        await fill(client, 2)
        remote = Remote(server.handle)
        first = await remote.value("GET", f"{PODS}?limit=1")
        path = "/api/v1/namespaces/kube-system/configmaps"
        answer = await remote.value("GET", f"{path}?continue={first['metadata']['continue']}")
        assert answer["code"] == 400


async def test_an_exact_revision_reads_the_past() -> None:
    async with api_server() as (server, client):
        await fill(client, 2)
        then = (await client.list("configmaps")).revision
        await client.delete("configmaps", "c00", "default")
        remote = Remote(server.handle)
        past = await remote.value("GET", f"{PODS}?resourceVersion={then}&resourceVersionMatch=Exact")
        assert names(past["items"]) == ["c00", "c01"]
        now = await remote.value("GET", f"{PODS}?resourceVersion={then}")
        assert names(now["items"]) == ["c01"]


async def test_a_revision_of_the_future_is_answered_with_a_time_out() -> None:
    async with api_server() as (server, _):
        answer = await Remote(server.handle).value("GET", f"{PODS}?resourceVersion=99999")
        assert (answer["code"], answer["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")


async def test_field_selectors_name_known_fields_only() -> None:
    async with api_server() as (_, client):
        await fill(client, 3)
        assert names((await client.list("configmaps", fields="metadata.name=c01")).items) == ["c01"]
        assert names((await client.list("configmaps", "default", fields="metadata.name!=c01")).items) == ["c00", "c02"]
        with pytest.raises(BadRequest) as caught:
            await client.list("configmaps", fields="spec.color=red")
        assert "field label not supported: spec.color" in caught.value.message


async def test_a_watch_goes_on_from_where_the_list_was() -> None:
    async with api_server() as (_, client):
        await fill(client, 1)
        listed = await client.list("configmaps")
        await client.patch("configmaps", "c00", "default", {"data": {"n": "x"}})
        await client.delete("configmaps", "c00", "default")
        async with client.watch("configmaps", since=listed.revision) as events:
            seen = [(event.type, event.object["data"]["n"]) for event in [await anext(events), await anext(events)]]
        assert seen == [("MODIFIED", "x"), ("DELETED", "x")]


async def test_watchers_of_one_collection_see_the_same_frames() -> None:
    async with api_server() as (server, client):
        remote = Remote(server.handle)
        revision = server.store.revision
        path = f"/api/v1/configmaps?watch=true&resourceVersion={revision}"
        watchers = [asyncio.create_task(frames(await remote.ask("GET", path), 3)) for _ in range(5)]
        await asyncio.sleep(0.1)
        await fill(client, 3)
        seen = [await watcher for watcher in watchers]
        assert [event["type"] for event in seen[0]] == ["ADDED"] * 3
        assert all(other == seen[0] for other in seen)


async def test_an_object_enters_and_leaves_a_selection_as_added_and_deleted() -> None:
    async with api_server() as (_, client):
        await fill(client, 1)
        revision = (await client.list("configmaps")).revision
        async with client.watch("configmaps", "default", since=revision, labels="odd=1") as events:
            await client.patch("configmaps", "c00", "default", {"metadata": {"labels": {"odd": "1"}}})
            await client.patch("configmaps", "c00", "default", {"data": {"n": "x"}})
            gone = await client.patch("configmaps", "c00", "default", {"metadata": {"labels": {"odd": "0"}}})
            seen = [await anext(events) for _ in range(3)]
        assert [event.type for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
        assert seen[2].object["metadata"]["labels"] == {"odd": "1"}
        assert seen[2].object["metadata"]["resourceVersion"] == gone["metadata"]["resourceVersion"]


async def test_a_namespace_watch_is_not_woken_by_others() -> None:
    async with api_server() as (_, client):
        revision = (await client.list("configmaps")).revision
        async with client.watch("configmaps", "kube-system", since=revision) as events:
            await fill(client, 2, "default")
            await fill(client, 1, "kube-system")
            event = await anext(events)
        assert event.object["metadata"]["namespace"] == "kube-system"


async def test_a_watch_by_node_sees_a_pod_come_when_it_is_bound() -> None:
    async with api_server() as (_, client):
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "default"},
        }
        await client.create(account)
        revision = (await client.list("pods")).revision
        spec = {"containers": [{"name": "c", "image": "i"}]}
        meta = {"name": "web", "namespace": "default"}
        async with client.watch("pods", since=revision, fields="spec.nodeName=n1") as events:
            await client.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"}, "target": {"name": "n1"}}
            await client.create_at("pods", "web", "default", "binding", binding)
            event = await anext(events)
        assert (event.type, event.object["spec"]["nodeName"]) == ("ADDED", "n1")


async def test_a_watch_from_before_the_compaction_expires() -> None:
    async with api_server() as (server, client):
        old = (await client.list("configmaps")).revision
        await fill(client, 2)
        await server.store.compact(server.store.revision)
        with pytest.raises(Expired):
            async with client.watch("configmaps", since=old) as events:
                await anext(events)


async def test_a_watch_from_the_past_beside_a_running_one_misses_nothing() -> None:
    async with api_server() as (_server, client):
        old = (await client.list("configmaps")).revision
        await fill(client, 3)
        now = (await client.list("configmaps")).revision
        async with client.watch("configmaps", since=now) as newer:
            waiting = asyncio.create_task(anext(newer))  # type: ignore[arg-type]
            await asyncio.sleep(0.1)
            async with client.watch("configmaps", since=old) as older:
                seen = [(await anext(older)).object["metadata"]["name"] for _ in range(3)]
            await client.delete("configmaps", "c00", "default")
            assert (await waiting).type == "DELETED"
        assert seen == ["c00", "c01", "c02"]


async def test_a_watch_without_a_revision_begins_with_what_is_there() -> None:
    async with api_server() as (server, client):
        await fill(client, 2)
        seen = await frames(await Remote(server.handle).ask("GET", f"{PODS}?watch=true"), 2)
        assert [(event["type"], event["object"]["metadata"]["name"]) for event in seen] == [
            ("ADDED", "c00"),
            ("ADDED", "c01"),
        ]


async def test_watch_list_ends_the_beginning_with_a_bookmark() -> None:
    async with api_server() as (server, client):
        await fill(client, 2)
        query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        seen = await frames(await Remote(server.handle).ask("GET", f"{PODS}?{query}"), 3)
        assert [event["type"] for event in seen] == ["ADDED", "ADDED", "BOOKMARK"]
        mark = seen[2]["object"]
        assert mark["kind"] == "ConfigMap"
        assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert mark["metadata"]["resourceVersion"] == str(server.store.revision)


async def test_watch_list_without_its_match_is_invalid() -> None:
    async with api_server() as (server, _):
        answer = await Remote(server.handle).value("GET", f"{PODS}?watch=1&sendInitialEvents=true")
        assert answer["code"] == 422
        assert "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan" in answer["message"]


async def test_a_quiet_watch_gets_bookmarks_that_move() -> None:
    async with api_server() as (server, client):
        revision = server.store.revision
        path = f"/api/v1/secrets?watch=1&allowWatchBookmarks=true&resourceVersion={revision}"
        watching = asyncio.create_task(frames(await Remote(server.handle).ask("GET", path), 4))
        await fill(client, 3)
        marks = [int(event["object"]["metadata"]["resourceVersion"]) for event in await watching]
        assert marks == sorted(marks)
        assert marks[-1] == server.store.revision


async def test_a_watch_ends_at_its_time_out() -> None:
    async with api_server() as (server, _client):
        answer = await Remote(server.handle).ask("GET", f"{PODS}?watch=1&timeoutSeconds=3&resourceVersion=1")
        started = asyncio.get_running_loop().time()
        assert answer.stream is not None
        assert [chunk async for chunk in answer.stream.chunks()] == []
        assert asyncio.get_running_loop().time() - started == pytest.approx(3, abs=0.1)


async def test_a_watcher_that_stops_reading_is_told_to_start_again() -> None:
    async with api_server() as (server, client):
        await fill(client, 1)
        revision = server.store.revision
        async with client.watch("configmaps", since=str(revision)) as events:
            await client.patch("configmaps", "c00", "default", {"data": {"n": "first"}})
            await anext(events)
            record = await server.store.get("core/configmaps/default/c00")
            for _ in range(5000):
                await server.store.put(record.key, record.value, expect=None)
            with pytest.raises(ApiError) as caught:
                while True:
                    await anext(events)
            assert caught.value.code == 410


async def test_a_table_watch_sends_its_columns_once() -> None:
    async with api_server() as (server, client):
        await fill(client, 2)
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        seen = await frames(await Remote(server.handle).ask("GET", f"{PODS}?watch=true", accept=accept), 2)
        assert [event["object"]["kind"] for event in seen] == ["Table", "Table"]
        assert seen[0]["object"]["columnDefinitions"][0]["name"] == "Name"
        assert seen[1]["object"]["columnDefinitions"] is None


async def test_a_table_shows_rows_with_metadata() -> None:
    async with api_server() as (server, client):
        await fill(client, 1)
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io"
        table = await Remote(server.handle).value("GET", PODS, accept=accept)
        assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
        assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
        assert table["metadata"]["resourceVersion"] == str(server.store.revision)


async def test_metadata_alone_can_be_asked_for() -> None:
    async with api_server() as (server, client):
        await fill(client, 1)
        accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        listed = await Remote(server.handle).value("GET", PODS, accept=accept)
        assert (listed["kind"], list(listed["items"][0])) == (
            "PartialObjectMetadataList",
            ["kind", "apiVersion", "metadata"],
        )


async def test_a_list_is_the_same_for_both_kinds_of_client() -> None:
    async with api_server() as (server, client):
        await fill(client, 3)
        remote = decoded(await Remote(server.handle).ask("GET", PODS))
        local = await client.list("configmaps", "default")
        assert [{"apiVersion": "v1", "kind": "ConfigMap"} | item for item in remote["items"]] == local.items
        assert (remote["kind"], remote["apiVersion"]) == ("ConfigMapList", "v1")


async def test_items_of_a_list_do_not_repeat_its_type() -> None:
    """The Go client kept a type on each item that came by JSON and none on those that came by protobuf."""
    async with api_server() as (server, client):
        await fill(client, 2)
        listed = decoded(await Remote(server.handle).ask("GET", PODS))
        assert [next(iter(item)) for item in listed["items"]] == ["metadata", "metadata"]


async def test_channels_close_with_their_last_watcher() -> None:
    async with api_server() as (server, client):
        hub = WatchHub(server.store)
        async with hub.opened():
            async with hub.subscribe("core/configmaps/", server.store.revision, lambda event: ()) as subscription:
                await fill(client, 1)
                assert await subscription.wait_events(1)
                assert len(subscription.take()) == 1
                assert len(list(hub.channels())) == 1
            assert not list(hub.channels())
