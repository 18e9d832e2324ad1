"""Hands each event to the watchers of its prefixes, at a cost that does not grow with all the others.

A watch on `core/pods/default/` is found under that folder; an event looks only into the folders its key lies in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from dure.store.model import Compacted, Event, Key

BACKLOG_EVENTS = 10_000
"""How far a reader may fall behind before it is dropped."""


class EventWatch:
    """One reader's place in the stream. Only one task may read it."""

    def __init__(self, since: int, backlog: list[Event], limit: int) -> None:
        self._since = since
        self._backlog = backlog
        self._taken = 0
        self._limit = limit
        self._dropped = False
        self._waiter: asyncio.Future[None] | None = None

    def push(self, event: Event) -> None:
        if self._dropped or event.record.revision <= self._since:
            return
        if len(self._backlog) - self._taken >= self._limit:
            self._dropped = True
            self._backlog = []
            self._taken = 0
        else:
            self._backlog.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> EventWatch:
        return self

    async def __anext__(self) -> Event:
        while self._taken >= len(self._backlog):
            await self._wait_event()
        event = self._backlog[self._taken]
        self._taken += 1
        if self._taken == len(self._backlog):
            self._backlog = []
            self._taken = 0
        return event

    async def take(self) -> list[Event]:
        while self._taken >= len(self._backlog):
            await self._wait_event()
        events = self._backlog[self._taken :] if self._taken else self._backlog
        self._backlog = []
        self._taken = 0
        return events

    async def _wait_event(self) -> None:
        if self._dropped:
            raise Compacted(f"the watch fell more than {self._limit} events behind")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Watches:
    """Every open watch, indexed by the folder of its prefix."""

    def __init__(self, limit: int = BACKLOG_EVENTS) -> None:
        self._limit = limit
        self._folders: dict[str, dict[Key, set[EventWatch]]] = {}

    def __len__(self) -> int:
        return sum(len(watches) for prefixes in self._folders.values() for watches in prefixes.values())

    @contextmanager
    def open(self, prefix: Key, since: int, backlog: list[Event]) -> Iterator[EventWatch]:
        """A watch that begins with `backlog` and gets every event published from now on."""
        watch = EventWatch(since, backlog, max(self._limit, len(backlog) + self._limit // 2))
        folder = prefix[: prefix.rfind("/") + 1]
        watches = self._folders.setdefault(folder, {}).setdefault(prefix, set())
        watches.add(watch)
        try:
            yield watch
        finally:
            watches.discard(watch)
            self._tidy(folder, prefix)

    def publish(self, events: Iterable[Event]) -> None:
        if not self._folders:
            return
        for event in events:
            key = event.record.key
            for folder in _folders(key):
                for prefix, watches in self._folders.get(folder, {}).items():
                    if prefix == folder or key.startswith(prefix):
                        for watch in watches:
                            watch.push(event)

    def _tidy(self, folder: str, prefix: Key) -> None:
        prefixes = self._folders.get(folder, {})
        if not prefixes.get(prefix, True):
            del prefixes[prefix]
        if not prefixes:
            self._folders.pop(folder, None)


def _folders(key: Key) -> Iterator[str]:
    """`a/b/c` → "", `a/`, `a/b/`."""
    yield ""
    end = key.find("/")
    while end >= 0:
        yield key[: end + 1]
        end = key.find("/", end + 1)
