"""Events are written once and counted up after that."""

from __future__ import annotations

import asyncio

from dure.client.events import EventRecorder
from dure.client.faults import Fault, FaultyTransport
from dure.core.clock import LoopClock
from dure.core.errors import Unavailable
from dure.core.json import Obj
from tests.support.api import FakeApi
from tests.support.kinds import pod


def recorder(api: FakeApi) -> EventRecorder:
    return EventRecorder(api.client(), "tests", "host-1", clock=LoopClock())


async def events(api: FakeApi) -> list[Obj]:
    return (await api.client().list("events")).items


async def test_an_event_says_what_happened_to_whom() -> None:
    api = FakeApi()
    web = await api.client().create(pod("web", "shop"))
    await recorder(api).record(web, "Warning", "Failed", "it broke", field_path="spec.containers{web}")
    (event,) = await events(api)
    assert event["metadata"]["namespace"] == "shop"
    assert event["metadata"]["name"].startswith("web.")
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "shop",
        "name": "web",
        "uid": web["metadata"]["uid"],
        "resourceVersion": "1",
        "fieldPath": "spec.containers{web}",
    }
    assert [event[field] for field in ("type", "reason", "message", "count")] == ["Warning", "Failed", "it broke", 1]
    assert event["source"] == {"component": "tests", "host": "host-1"}


async def test_repeats_count_up() -> None:
    api = FakeApi()
    web, record = await api.client().create(pod("web")), recorder(api).record
    for _ in range(3):
        await record(web, "Normal", "Pulled", "image is here")
        await asyncio.sleep(10)
    await record(web, "Normal", "Started", "container started")
    pulled, started = sorted(await events(api), key=lambda event: str(event["reason"]))
    assert (pulled["count"], started["count"]) == (3, 1)
    assert pulled["firstTimestamp"] < pulled["lastTimestamp"]


async def test_an_event_that_was_dropped_is_made_anew() -> None:
    api = FakeApi()
    web, record = await api.client().create(pod("web")), recorder(api).record
    await record(web, "Normal", "Pulled", "image is here")
    await api.client().delete_collection("events", "default")
    await record(web, "Normal", "Pulled", "image is here")
    assert [event["count"] for event in await events(api)] == [1]


async def test_events_of_cluster_scoped_objects_are_in_default() -> None:
    api = FakeApi()
    node = await api.client().create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}})
    await recorder(api).record(node, "Normal", "Ready", "node is ready")
    assert (await events(api))[0]["metadata"]["namespace"] == "default"


async def test_who_talks_too_much_is_silenced_for_a_while() -> None:
    api = FakeApi()
    web, record = await api.client().create(pod("web")), recorder(api).record
    for number in range(40):
        await record(web, "Normal", "Noise", f"number {number}")
    assert len(await events(api)) == 25
    await asyncio.sleep(300)
    await record(web, "Normal", "Noise", "later")
    assert len(await events(api)) == 26


async def test_an_event_that_cannot_be_written_is_forgotten() -> None:
    api = FakeApi()
    client = api.client(lambda inner: FaultyTransport(inner, lambda call: Fault(error=Unavailable("down"))))
    await EventRecorder(client, "tests").record(pod("web"), "Normal", "Pulled", "image is here")


async def test_events_of_one_moment_are_listed_in_order() -> None:
    """`kubectl describe` showed Started before Pulled: of one second, it keeps the order of the names."""
    api = FakeApi()
    web, record = await api.client().create(pod("web")), recorder(api).record
    told = ["Scheduled", "Pulling", "Pulled", "Created", "Started"]
    for reason in told:
        await record(web, "Normal", reason, "")
    assert [event["reason"] for event in await events(api)] == told


async def test_event_about_a_long_name_has_a_name() -> None:
    api = FakeApi()
    await recorder(api).record(await api.client().create(pod("w" * 253)), "Normal", "Pulled", "")
    (event,) = await events(api)
    assert len(event["metadata"]["name"]) == 253
