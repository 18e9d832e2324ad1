"""Group commit: writes gather while one batch is on its way to the disk. No I/O here.

Invariants: a write is planned against the newest planned write of its key, acknowledged or not; a caller learns of a
mismatch only once the write it clashed with has been decided; batches are decided in the order they were planned.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from dure.store.model import Event, Key, KeyNotFound, Record, RevisionMismatch, StoreError
from dure.store.plan import Write
from dure.store.state import Row, State

BATCH_WRITES = 2000
BATCH_BYTES = 8 << 20
SLICE_ROWS = 1000
"""How many dead rows one transaction may delete."""


@dataclass(slots=True, eq=False)
class Planned:
    """A write on its way. `decided` wakes those who clashed with it."""

    write: Write
    event: Event
    future: asyncio.Future[Record]
    decided: asyncio.Event | None = None

    def settle(self, error: StoreError | None = None) -> None:
        if not self.future.done():  # its caller may have been cancelled; the write happens all the same
            if error is None:
                self.future.set_result(self.event.record)
            else:
                self.future.set_exception(error)
        if self.decided is not None:
            self.decided.set()


@dataclass(slots=True, eq=False)
class Batch:
    """One transaction: writes, and dead rows to delete."""

    writes: list[Planned]
    compacted: int
    """The compaction to write down, 0 when it is there already."""
    doomed: list[int]

    @property
    def last(self) -> int:
        return self.writes[-1].event.record.revision if self.writes else 0

    def rows(self) -> list[Row]:
        return [_row(planned.event) for planned in self.writes]


@dataclass(slots=True)
class Batches:
    """What has been asked and is not yet on disk."""

    state: State
    next_revision: int
    durable_compacted: int
    """The compaction that is on disk; no row needed above it has been deleted there."""
    doomed: deque[int] = field(default_factory=deque)
    gathering: deque[Planned] = field(default_factory=deque)
    in_flight: Batch | None = None
    _newest: dict[Key, Planned] = field(default_factory=dict)

    @property
    def is_idle(self) -> bool:
        return self.in_flight is None and not self.gathering

    async def plan(self, write: Write) -> Planned:
        """Queue a write. Raises RevisionMismatch, KeyNotFound."""
        while True:
            ahead = self._newest.get(write.key)
            try:
                event = write.plan(self._current(write.key), self.next_revision)
            except (RevisionMismatch, KeyNotFound):
                if ahead is None:
                    raise
                await _wait_decided(ahead)
                continue
            planned = Planned(write, event, asyncio.get_running_loop().create_future())
            self._queue(planned)
            return planned

    def take(self) -> Batch | None:
        """The next batch, now in flight; None when there is nothing to do."""
        if self.in_flight is not None or not (self.gathering or self.doomed):
            return None
        writes: list[Planned] = []
        size = 0
        while self.gathering and len(writes) < BATCH_WRITES and size < BATCH_BYTES:
            writes.append(self.gathering.popleft())
            size += len(writes[-1].event.record.value)
        doomed = list(islice(self.doomed, SLICE_ROWS))
        compacted = self.state.compacted if self.state.compacted > self.durable_compacted else 0
        self.in_flight = Batch(writes, compacted, doomed)
        return self.in_flight

    def landed(self) -> list[Planned]:
        """The batch in flight is on disk: its writes, to be published and then settled."""
        batch = self._land()
        self.durable_compacted = max(self.durable_compacted, batch.compacted)
        for _ in batch.doomed:
            self.doomed.popleft()
        for planned in batch.writes:
            if self._newest.get(planned.write.key) is planned:
                del self._newest[planned.write.key]
        return batch.writes

    def refused(self, error: StoreError) -> bool:
        """Nothing of the batch in flight was stored: fail it, and plan anew what was planned on top of it.

        False if it held dead rows only.
        """
        batch, waiting = self._land(), list(self.gathering)
        self.gathering.clear()
        self._newest.clear()
        for planned in waiting:
            self._plan_again(planned)
        for planned in batch.writes:
            planned.settle(error)
        return bool(batch.writes)

    def fail_all(self, error: StoreError) -> None:
        """The store ends: nobody may go on waiting."""
        for planned in [*(self.in_flight.writes if self.in_flight else ()), *self.gathering]:
            planned.settle(error)
        self.gathering.clear()
        self._newest.clear()
        self.in_flight = None

    def doom(self, revisions: Iterable[int]) -> None:
        self.doomed.extend(revisions)

    def _current(self, key: Key) -> Record | None:
        ahead = self._newest.get(key)
        if ahead is None:
            return self.state.find(key)
        return ahead.event.record if ahead.event.type == "PUT" else None

    def _queue(self, planned: Planned) -> None:
        self.next_revision = planned.event.record.revision + 1
        self._newest[planned.write.key] = planned
        self.gathering.append(planned)

    def _plan_again(self, planned: Planned) -> None:
        try:
            planned.event = planned.write.plan(self._current(planned.write.key), self.next_revision)
        except (RevisionMismatch, KeyNotFound) as error:
            planned.settle(error)
        else:
            self._queue(planned)

    def _land(self) -> Batch:
        batch, self.in_flight = self.in_flight, None
        assert batch is not None, "an answer without a batch in flight"
        return batch


def _row(event: Event) -> Row:
    record = event.record
    deleted = event.type == "DELETED"
    return record.revision, record.key, record.created, int(deleted), b"" if deleted else record.value


async def _wait_decided(planned: Planned) -> None:
    if planned.decided is None:
        planned.decided = asyncio.Event()
    await planned.decided.wait()
