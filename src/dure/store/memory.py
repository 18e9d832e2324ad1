"""A store that lasts as long as its process: for tests and throw-away platforms."""

from __future__ import annotations

from dure.core.clock import Clock, SystemClock
from dure.store.model import Key, Record
from dure.store.plan import Write
from dure.store.published import Published
from dure.store.state import History, State
from dure.store.watches import BACKLOG_EVENTS


class MemoryStore(Published):
    """Every write is visible when the call returns; nothing survives the process."""

    def __init__(
        self, *, history: History | None = None, clock: Clock | None = None, backlog: int = BACKLOG_EVENTS
    ) -> None:
        super().__init__(State(), history or History(), clock or SystemClock(), backlog)

    async def put(self, key: Key, value: bytes, *, expect: int | None) -> Record:
        return self._write(Write(key, value, expect))

    async def delete(self, key: Key, *, expect: int | None) -> Record:
        return self._write(Write(key, None, expect))

    def _write(self, write: Write) -> Record:
        event = write.plan(self.state.find(write.key), self.state.revision + 1)
        self.publish([event])
        return event.record
