"""The acknowledged objects in memory: current records in key order, and the recent past.

Invariant: for every revision at or above `compacted`, the state at that revision can be told exactly,
because each event carries what it replaced.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter

from dure.store.model import Compacted, Event, FutureRevision, Key, KeyNotFound, Page, Record

Row = tuple[int, Key, int, int, bytes]
"""revision, key, created, deleted, value: one write as a log keeps it."""

_LAST = "\U0010ffff"
"""Sorts after every character of a key."""

_revision = attrgetter("record.revision")


@dataclass(frozen=True, slots=True)
class History:
    """How much of the past is kept: all of the last `seconds`, as long as it fits the two other bounds."""

    seconds: float = 300
    events: int = 20_000
    superseded_bytes: int = 64 << 20


@dataclass(slots=True)
class _Collection:
    """One resource's keys in order, and its events above the last compaction."""

    keys: list[Key] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def collection_of(key: Key) -> str:
    """The first two segments: `core/pods/`."""
    second = key.find("/", key.find("/") + 1)
    return key if second < 0 else key[: second + 1]


class State:
    """Records, order and history; single-threaded, never waits."""

    def __init__(self, revision: int = 0, compacted: int = 0) -> None:
        self.revision = revision
        self.compacted = compacted
        self.superseded_bytes = 0
        self._records: dict[Key, Record] = {}
        self._collections: dict[str, _Collection] = {}
        self._events: deque[Event] = deque()

    def __len__(self) -> int:
        return len(self._records)

    @property
    def events(self) -> int:
        """How many events are kept."""
        return len(self._events)

    def find(self, key: Key) -> Record | None:
        return self._records.get(key)

    def get(self, key: Key) -> Record:
        """Raises KeyNotFound."""
        try:
            return self._records[key]
        except KeyError:
            raise KeyNotFound(key) from None

    def restore(self, rows: Iterable[Row]) -> list[int]:
        """Rebuild from a log's rows, in order of revision; the revisions of rows that no longer mean anything.

        Rows above `compacted` become history again. Keys are in order only after the last row: see `sort`.
        """
        doomed: list[int] = []
        for revision, key, created, deleted, value in rows:
            previous = self._records.get(key)
            if deleted:
                record = Record(key, previous.value if previous is not None else b"", revision, created)
                self._records.pop(key, None)
            else:
                record = self._records[key] = Record(key, value, revision, created)
            if revision > self.compacted:
                self._remember(Event("DELETED" if deleted else "PUT", record, previous))
            elif deleted or previous is not None:
                doomed.extend(superseded_by(Event("DELETED" if deleted else "PUT", record, previous)))
        return doomed

    def sort(self) -> None:
        """Put restored keys in order."""
        for collection in self._collections.values():
            collection.keys.clear()
        for key in sorted(self._records):
            self._collection(key).keys.append(key)

    def apply(self, event: Event) -> None:
        """Make one write visible; events come in the order of their revisions."""
        record = event.record
        collection = self._collection(record.key)
        if event.type == "DELETED":
            del self._records[record.key]
            del collection.keys[bisect_left(collection.keys, record.key)]
        else:
            if event.previous is None:
                insort(collection.keys, record.key)
            self._records[record.key] = record
        self._remember(event)

    def page(self, prefix: Key, *, limit: int, after: Key, revision: int) -> Page:
        """Records under `prefix` as they were at `revision` (0: now). Raises Compacted, FutureRevision."""
        if revision == 0 or revision == self.revision:
            return self._current(prefix, limit, after)
        changed = self._undo(prefix, revision)
        if not changed:
            page = self._current(prefix, limit, after)
            page.revision = revision
            return page
        return self._past(prefix, limit, after, revision, changed)

    def since(self, prefix: Key, revision: int) -> list[Event]:
        """Every event under `prefix` after `revision`, in order. Raises Compacted."""
        if revision < self.compacted:
            raise Compacted(f"revision {revision} is below {self.compacted}, the last compaction")
        runs = [self._run(collection, prefix, revision) for collection in self._matching(prefix)]
        runs = [run for run in runs if run]
        return runs[0] if len(runs) == 1 else list(heapq.merge(*runs, key=_revision))

    def compact(self, revision: int) -> list[int]:
        """Forget the past at or below `revision`; the revisions that no longer mean anything."""
        revision = min(revision, self.revision)
        if revision <= self.compacted:
            return []
        self.compacted = revision
        doomed: list[int] = []
        touched: dict[str, int] = {}
        while self._events and self._events[0].record.revision <= revision:
            event = self._events.popleft()
            doomed.extend(superseded_by(event))
            if event.previous is not None:
                self.superseded_bytes -= len(event.previous.value)
            name = collection_of(event.record.key)
            touched[name] = touched.get(name, 0) + 1
        for name, count in touched.items():
            self._forget(name, count)
        return doomed

    def excess(self, history: History) -> int:
        """The revision to compact to so that `history`'s bounds hold with a quarter to spare; 0 when they hold."""
        if len(self._events) <= history.events and self.superseded_bytes <= history.superseded_bytes:
            return 0
        events, size, revision = len(self._events), self.superseded_bytes, 0
        for event in self._events:
            if events <= history.events * 3 // 4 and size <= history.superseded_bytes * 3 // 4:
                break
            events -= 1
            size -= len(event.previous.value) if event.previous else 0
            revision = event.record.revision
        return revision

    def _remember(self, event: Event) -> None:
        if event.previous is not None:
            self.superseded_bytes += len(event.previous.value)
        self._collection(event.record.key).events.append(event)
        self._events.append(event)
        self.revision = event.record.revision

    def _collection(self, key: Key) -> _Collection:
        name = collection_of(key)
        found = self._collections.get(name)
        if found is None:
            found = self._collections[name] = _Collection()
        return found

    def _matching(self, prefix: Key) -> list[_Collection]:
        """Collections that may hold keys under `prefix`, in key order."""
        exact = self._collections.get(collection_of(prefix))
        if exact is not None and prefix.count("/") >= 2:
            return [exact]
        names = sorted(name for name in self._collections if name.startswith(prefix) or prefix.startswith(name))
        return [self._collections[name] for name in names]

    def _forget(self, name: str, count: int) -> None:
        collection = self._collections[name]
        del collection.events[:count]
        if not collection.keys and not collection.events:
            del self._collections[name]

    @staticmethod
    def _run(collection: _Collection, prefix: Key, revision: int) -> list[Event]:
        start = bisect_right(collection.events, revision, key=_revision)
        return [event for event in collection.events[start:] if event.record.key.startswith(prefix)]

    @staticmethod
    def _range(collection: _Collection, prefix: Key, after: Key) -> tuple[int, int]:
        """Where the keys under `prefix` and behind `after` begin and end."""
        start = bisect_left(collection.keys, prefix)
        if after:
            start = max(start, bisect_right(collection.keys, after))
        return start, max(start, bisect_right(collection.keys, prefix + _LAST))

    def _current(self, prefix: Key, limit: int, after: Key) -> Page:
        records = self._records
        found: list[Record] = []
        remaining = 0
        for collection in self._matching(prefix):
            start, end = self._range(collection, prefix, after)
            stop = min(end, start + limit - len(found)) if limit else end
            found.extend([records[key] for key in collection.keys[start:stop]])
            remaining += end - stop
        return Page(found, self.revision, found[-1].key if remaining and found else "", remaining)

    def _undo(self, prefix: Key, revision: int) -> dict[Key, Record | None]:
        """What was different under `prefix` at `revision`: each changed key's record then."""
        if revision > self.revision:
            raise FutureRevision(f"revision {revision} is above {self.revision}, the newest")
        return {event.record.key: event.previous for event in reversed(self.since(prefix, revision))}

    def _past(self, prefix: Key, limit: int, after: Key, revision: int, changed: dict[Key, Record | None]) -> Page:
        keys = heapq.merge(self._keys(prefix, after), self._revived(after, changed))
        then = (changed[key] if key in changed else self._records[key] for key in keys)
        records = (record for record in then if record is not None)
        found = list(islice(records, limit or None))
        remaining = sum(1 for _ in records)
        return Page(found, revision, found[-1].key if remaining else "", remaining)

    def _keys(self, prefix: Key, after: Key) -> Iterator[Key]:
        for collection in self._matching(prefix):
            yield from collection.keys[slice(*self._range(collection, prefix, after))]

    def _revived(self, after: Key, changed: dict[Key, Record | None]) -> Iterable[Key]:
        """Keys that were there then and are not now."""
        return sorted(
            key for key, record in changed.items() if record is not None and key > after and key not in self._records
        )


def superseded_by(event: Event) -> list[int]:
    """The revisions whose rows nobody needs once the past up to this event is forgotten."""
    doomed = [event.previous.revision] if event.previous is not None else []
    if event.type == "DELETED":
        doomed.append(event.record.revision)
    return doomed
