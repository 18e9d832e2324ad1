"""An informer shows what the server has, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from dure.api.meta import ObjectKey, labels_of, name_of
from dure.client.client import Client
from dure.client.faults import NO_FAULT, Fault, FaultyTransport, by_chance
from dure.client.transport import Call
from dure.control.informer import Informer
from dure.core.aio import running
from dure.core.errors import AlreadyExists, ApiError, Forbidden, NotFound, TransportError, Unavailable
from dure.core.json import Obj
from tests.support.api import FakeApi
from tests.support.kinds import pod

KEY = ObjectKey("default", "a")


class Journal:
    """What a listener was told, briefly: `+a`, `~a`, `-a`."""

    def __init__(self, informer: Informer) -> None:
        self.lines: list[str] = []
        informer.on_change(self._note)

    def _note(self, old: Obj | None, new: Obj | None) -> None:
        sign = "+" if old is None else "-" if new is None else "~"
        self.lines.append(sign + name_of(new or old or {}))


def names(objects: list[Obj]) -> list[str]:
    return sorted(name_of(obj) for obj in objects)


def faulty(api: FakeApi, faults: Callable[[Call], Fault]) -> Client:
    return api.client(lambda inner: FaultyTransport(inner, faults))


def is_watch(call: Call) -> bool:
    return "watch" in call.query


async def settle() -> None:
    await asyncio.sleep(0.01)


async def test_it_lists_and_then_follows() -> None:
    api = FakeApi()
    client = api.client()
    await client.create(pod("a"))
    informer = Informer(client, "pods")
    journal = Journal(informer)
    async with running(informer.run()):
        await informer.wait_synced()
        assert name_of(informer.get(KEY) or {}) == "a"
        await client.create(pod("b"))
        await client.patch("pods", "a", "default", {"spec": {"nodeName": "one"}})
        await client.delete("pods", "b", "default")
        await settle()
    assert journal.lines == ["+a", "+b", "~a", "-b"]
    assert names(informer.list()) == ["a"]


async def test_a_late_listener_hears_of_what_is_there() -> None:
    api = FakeApi()
    client = api.client()
    await client.create(pod("a"))
    informer = Informer(client, "pods")
    async with running(informer.run()):
        await informer.wait_synced()
        assert Journal(informer).lines == ["+a"]


async def test_namespaces_and_indexes() -> None:
    api = FakeApi()
    client = api.client()
    informer = Informer(client, "pods", indexes={"app": lambda obj: [labels_of(obj).get("app", "")]})
    async with running(informer.run()):
        await informer.wait_synced()
        await client.create(pod("a", labels={"app": "web"}))
        await client.create(pod("b", "other", labels={"app": "web"}))
        await client.create(pod("c", labels={"app": "db"}))
        await settle()
        assert names(informer.list("default")) == ["a", "c"]
        assert names(informer.by_index("app", "web")) == ["a", "b"]
        await client.patch("pods", "a", "default", {"metadata": {"labels": {"app": "db"}}})
        await client.delete("pods", "c", "default")
        await settle()
        assert names(informer.by_index("app", "web")) == ["b"]
        assert names(informer.by_index("app", "db")) == ["a"]
        assert informer.by_index("app", "nothing") == []


async def test_one_namespace_and_a_selection() -> None:
    api = FakeApi()
    client = api.client()
    await client.create(pod("a", "other", node="one"))
    await client.create(pod("b", node="one"))
    await client.create(pod("c"))
    informer = Informer(client, "pods", "default", fields="spec.nodeName=one")
    async with running(informer.run()):
        await informer.wait_synced()
        assert names(informer.list()) == ["b"]
        await client.patch("pods", "c", "default", {"spec": {"nodeName": "one"}})
        await client.patch("pods", "b", "default", {"spec": {"nodeName": "two"}})
        await settle()
        assert names(informer.list()) == ["c"]


async def test_an_expired_watch_lists_anew_and_tells_the_difference() -> None:
    api = FakeApi()
    client = api.client()
    for name in "abc":
        await client.create(pod(name))
    down = [False]
    informer = Informer(
        faulty(api, lambda call: Fault(cut_after=0) if is_watch(call) and down[0] else NO_FAULT), "pods"
    )
    journal = Journal(informer)
    async with running(informer.run()):
        await informer.wait_synced()
        await settle()
        journal.lines.clear()
        down[0] = True
        await client.create(pod("d"))  # after this event the watch breaks
        await client.delete("pods", "b", "default")
        await client.patch("pods", "c", "default", {"spec": {"nodeName": "one"}})
        await settle()
        await api.store.compact(api.store.revision)
        down[0] = False
        await asyncio.sleep(60)
    assert names(informer.list()) == ["a", "c", "d"]
    assert sorted(journal.lines) == ["+d", "-b", "~c"]


async def test_a_broken_watch_goes_on_where_it_was() -> None:
    api = FakeApi()
    client = api.client()
    watches = [Fault(cut_after=1)]
    informer = Informer(faulty(api, lambda call: watches.pop() if is_watch(call) and watches else NO_FAULT), "pods")
    async with running(informer.run()):
        await informer.wait_synced()
        await client.create(pod("a"))
        await client.create(pod("b"))
        await asyncio.sleep(10)
        assert names(informer.list()) == ["a", "b"]
    assert [call for call in api.calls if call == "GET /api/v1/pods"] == [
        "GET /api/v1/pods"
    ] * 3  # one list, two watches


@pytest.mark.parametrize("error", [Unavailable("starting"), Forbidden("not yet"), TransportError("refused")])
async def test_a_server_that_is_not_ready_is_waited_for(error: ApiError | TransportError) -> None:
    api = FakeApi()
    await api.client().create(pod("a"))
    left = [Fault(error=error)] * 5
    informer = Informer(faulty(api, lambda call: left.pop() if left else NO_FAULT), "pods")
    async with running(informer.run()), asyncio.timeout(60):
        await informer.wait_synced()
        assert names(informer.list()) == ["a"]
        assert asyncio.get_running_loop().time() > 2  # it did not hammer


async def test_a_name_used_again_is_a_deletion_and_a_creation() -> None:
    api = FakeApi()
    client = api.client()
    await client.create(pod("a"))
    down = [False]
    informer = Informer(faulty(api, lambda call: Fault(error=TransportError("down")) if down[0] else NO_FAULT), "pods")
    journal = Journal(informer)
    for _ in range(2):
        async with running(informer.run()):
            await informer.wait_synced()
            await settle()
        informer._revision = ""  # as after an expiry
        await client.delete("pods", "a", "default")
        await client.create(pod("a"))
    assert journal.lines == ["+a", "-a", "+a"]


async def test_a_listener_that_breaks_does_not_silence_the_others() -> None:
    api = FakeApi()
    client = api.client()
    informer = Informer(client, "pods")
    informer.on_change(lambda old, new: 1 / 0)
    journal = Journal(informer)
    async with running(informer.run()):
        await informer.wait_synced()
        await client.create(pod("a"))
        await settle()
    assert journal.lines == ["+a"]


async def test_idle_informers_ask_for_nothing() -> None:
    api = FakeApi()
    informer = Informer(api.client(), "pods")
    async with running(informer.run()):
        await asyncio.sleep(3600)
    assert len(api.calls) == 2


@pytest.mark.parametrize("seed", range(5))
async def test_through_any_weather_it_ends_up_true(seed: int) -> None:
    """Lists and watches fail at random, history is compacted away; in the end cache, listeners and store agree."""
    chance = random.Random(seed)
    api = FakeApi()
    weather = by_chance(chance, refuse=0.2, lose=0.1, cut=0.4)
    calm = [False]
    informer = Informer(faulty(api, lambda call: NO_FAULT if calm[0] else weather(call)), "pods")
    seen: dict[ObjectKey, Obj] = {}

    def follow(old: Obj | None, new: Obj | None) -> None:
        obj = new or old or {}
        key = ObjectKey(obj["metadata"]["namespace"], name_of(obj))
        assert seen.get(key) == old
        if new is None:
            del seen[key]
        else:
            seen[key] = new

    informer.on_change(follow)
    client = api.client()
    async with running(informer.run()):
        for _ in range(300):
            name = f"p{chance.randrange(20)}"
            with suppress(NotFound, AlreadyExists):
                match chance.randrange(4):
                    case 0:
                        await client.delete("pods", name, "default")
                    case 1:
                        await client.patch("pods", name, "default", {"spec": {"nodeName": str(chance.random())}})
                    case _:
                        await client.create(pod(name))
            if chance.random() < 0.05:
                await api.store.compact(api.store.revision)
            await asyncio.sleep(chance.random())
        calm[0] = True
        await asyncio.sleep(120)
        stored = {ObjectKey("default", name_of(obj)): obj for obj in (await client.list("pods")).items}
    assert {key: informer.get(key) for key in stored} == stored == seen
    assert len(informer.list()) == len(stored)
