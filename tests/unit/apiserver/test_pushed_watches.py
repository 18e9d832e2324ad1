"""Watches pushed into sinks: what thousands of remote watchers get, without a task woken for each event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dure.apiserver.rest.selection import Selection
from dure.apiserver.server import ApiServer
from dure.core.aio import running
from dure.core.json import loads
from dure.wire.http import PushedStream
from tests.support.cluster import api_server
from tests.support.wire import Remote

PATH = "/api/v1/namespaces/default/configmaps"


class Reader:
    """A sink that keeps what it gets; `full` makes it refuse until it is drained."""

    def __init__(self) -> None:
        self.data = b""
        self.writes = 0
        self.full = False
        self.waiting = False
        self.room = asyncio.Event()

    def write(self, data: bytes) -> bool:
        self.data += data
        self.writes += 1
        return not self.full

    async def drained(self) -> None:
        self.waiting = True
        await self.room.wait()
        self.room.clear()
        self.waiting = False

    @property
    def events(self) -> list[Any]:
        return [loads(line) for line in self.data.splitlines()]

    @property
    def names(self) -> list[str]:
        return [event["object"]["metadata"]["name"] for event in self.events]


@asynccontextmanager
async def pushing(server: ApiServer, query: str) -> AsyncIterator[Reader]:
    """A watch pushed into a reader while the block lasts."""
    response = await Remote(server.handle).ask("GET", f"{PATH}?watch=true&{query}")
    assert isinstance(response.stream, PushedStream)
    reader = Reader()
    async with running(response.stream.push(reader)):
        await asyncio.sleep(0.01)
        yield reader


async def make(server: ApiServer, *names: str) -> None:
    remote = Remote(server.handle)
    for name in names:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        assert (await remote.ask("POST", PATH, body)).status == 201


async def test_a_reader_gets_the_present_and_then_each_event() -> None:
    async with api_server() as (server, _):
        await make(server, "a")
        async with pushing(server, "resourceVersion=0") as reader:
            await make(server, "b", "c")
            await asyncio.sleep(0.1)
            assert reader.names == ["a", "b", "c"]


async def test_many_readers_of_a_busy_collection_all_get_everything_in_order() -> None:
    async with api_server() as (server, _):
        start = server.store.revision
        readers = [await _started(server, start) for _ in range(50)]
        for number in range(200):
            await make(server, f"c{number:03}")
            await asyncio.sleep(0)
        await asyncio.sleep(1)
        wanted = [f"c{number:03}" for number in range(200)]
        assert all(reader.names == wanted for reader, _ in readers)
        for _, task in readers:
            task.cancel()
        await asyncio.gather(*(task for _, task in readers), return_exceptions=True)


async def _started(server: ApiServer, revision: int) -> tuple[Reader, asyncio.Task[None]]:
    response = await Remote(server.handle).ask("GET", f"{PATH}?watch=true&resourceVersion={revision}")
    assert isinstance(response.stream, PushedStream)
    reader = Reader()
    return reader, asyncio.create_task(response.stream.push(reader))


async def test_a_reader_that_is_behind_is_waited_for_and_then_catches_up() -> None:
    async with api_server() as (server, _), pushing(server, f"resourceVersion={server.store.revision}") as reader:
        reader.full = True
        await make(server, "a")
        await asyncio.sleep(0.1)
        assert reader.waiting
        await make(server, "b", "c")
        await asyncio.sleep(0.1)
        assert reader.names == ["a"]
        reader.full = False
        reader.room.set()
        await asyncio.sleep(0.1)
        assert reader.names == ["a", "b", "c"]


async def test_a_reader_behind_for_too_long_expires() -> None:
    async with api_server() as (server, _):
        await make(server, "a")
        async with pushing(server, f"resourceVersion={server.store.revision}") as reader:
            reader.full = True
            await make(server, "b")
            await asyncio.sleep(0.1)
            record = await server.store.get("core/configmaps/default/a")
            for _number in range(5000):
                await server.store.put(record.key, record.value, expect=None)
            await asyncio.sleep(0.1)
            reader.full = False
            reader.room.set()
            await asyncio.sleep(0.1)
            last = reader.events[-1]
            assert (last["type"], last["object"]["code"]) == ("ERROR", 410)


async def test_a_pushed_watch_has_bookmarks_and_an_end() -> None:
    async with api_server() as (server, _):
        start = server.store.revision
        query = f"resourceVersion={start}&allowWatchBookmarks=true&timeoutSeconds=100"
        response = await Remote(server.handle).ask("GET", f"{PATH}?watch=true&{query}")
        assert isinstance(response.stream, PushedStream)
        reader = Reader()
        await asyncio.gather(response.stream.push(reader), make(server, "a"))
        assert [event["type"] for event in reader.events] == ["ADDED", "BOOKMARK", "BOOKMARK"]
        assert asyncio.get_running_loop().time() == pytest.approx(100, abs=1)


async def test_an_event_that_cannot_be_written_ends_its_own_watch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with api_server() as (server, _):
        start = f"resourceVersion={server.store.revision}"
        async with pushing(server, start) as good, pushing(server, f"{start}&labelSelector=!x") as broken:

            def fail(self: Selection, obj: Any) -> bool:
                raise RuntimeError("bug")

            monkeypatch.setattr(Selection, "matches", fail)
            await make(server, "a")
            await asyncio.sleep(0.1)
            assert good.names == ["a"]
            assert [event["object"]["code"] for event in broken.events] == [500]
