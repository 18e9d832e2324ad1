"""What a store promises: durable objects under ordered keys with one global revision.

A key is `<group or core>/<plural>/<namespace>/<name>`, without the namespace part for
cluster-scoped kinds. Revisions grow by one with every write to any key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from dure.core.aio import Scope
from dure.core.errors import DureError

Key = str


class StoreError(DureError):
    """Root of what a store refuses."""


class KeyNotFound(StoreError):
    """No live record under the key."""


class RevisionMismatch(StoreError):
    """`expect` is not the record's revision; `current` is it, 0 when there is none."""

    def __init__(self, key: Key, expect: int, current: int) -> None:
        super().__init__(f"{key}: expected revision {expect}, found {current}")
        self.key, self.expect, self.current = key, expect, current


class Compacted(StoreError):
    """The revision asked for is below the last compaction, or its events were dropped."""


class FutureRevision(StoreError):
    """The revision asked for has not happened yet."""


class StoreFull(StoreError):
    """The disk refused the write; nothing was stored."""


@dataclass(slots=True, eq=False)
class Record:
    """One live value. `memo` is for readers who want to keep a derived form beside it."""

    key: Key
    value: bytes
    revision: int
    """The write that made this value."""
    created: int
    """The write that first made the key."""
    memo: Any = field(default=None, repr=False)


@dataclass(slots=True, eq=False)
class Event:
    """One write as a watcher sees it. For DELETED, `record` holds the last value at the deletion's revision."""

    type: Literal["PUT", "DELETED"]
    record: Record
    previous: Record | None
    """What the key held before this write, None when it was created."""


@dataclass(slots=True)
class Page:
    """Part of a consistent listing at `revision`; `after` continues it, empty at the end."""

    records: list[Record]
    revision: int
    after: Key = ""
    remaining: int = 0
    """How many records follow this page at the same revision."""


class Watch(Protocol):
    """Events one by one, or all that have gathered at once. Raises Compacted once it has fallen too far behind."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def __anext__(self) -> Event: ...

    async def take(self) -> list[Event]:
        """At least one event, and all that are there: one wake-up for many."""
        ...


class Store(Protocol):
    """MemoryStore, SqliteStore, EtcdStore: one contract suite for all.

    Every call that returns has happened durably; reads see all acknowledged writes.
    """

    @property
    def revision(self) -> int:
        """The newest acknowledged revision."""
        ...

    @property
    def compacted(self) -> int:
        """Watches and old pages work only from revisions at or above this."""
        ...

    async def get(self, key: Key) -> Record:
        """Raises KeyNotFound."""
        ...

    async def list(self, prefix: Key, *, limit: int = 0, after: Key = "", revision: int = 0) -> Page:
        """Records under `prefix` in key order; `revision` > 0 reads the past (for later pages).

        Raises Compacted, FutureRevision.
        """
        ...

    async def put(self, key: Key, value: bytes, *, expect: int | None) -> Record:
        """`expect` 0 creates, None overwrites, else the current revision. Raises RevisionMismatch, StoreFull."""
        ...

    async def delete(self, key: Key, *, expect: int | None) -> Record:
        """The last value, its `revision` being the deletion's. Raises KeyNotFound, RevisionMismatch, StoreFull."""
        ...

    def watch(self, prefix: Key, *, since: int) -> Scope[Watch]:
        """Every event after `since`, in order, without gaps.

        Raises Compacted on entering when `since` is too old, and while reading when the reader is too slow.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forget superseded values and events at or below `revision`."""
        ...
