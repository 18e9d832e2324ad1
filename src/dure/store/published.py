"""What readers see of a store: acknowledged writes only, all from memory, and the watches fed by them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from dure.core.aio import Scope
from dure.core.clock import Clock
from dure.store.model import Event, Key, Page, Record, Watch
from dure.store.state import History, State
from dure.store.watches import BACKLOG_EVENTS, Watches


class Published:
    """The reading half of a Store, and the policy of forgetting."""

    def __init__(self, state: State, history: History, clock: Clock, backlog: int = BACKLOG_EVENTS) -> None:
        self.state = state
        self._history = history
        self._clock = clock
        self._watches = Watches(backlog)
        self._written = clock.time()
        self._marks: deque[tuple[float, int]] = deque([(self._written, state.revision)])
        """When the writes up to a revision had happened, a thirtieth of `history.seconds` apart."""

    @property
    def revision(self) -> int:
        return self.state.revision

    @property
    def compacted(self) -> int:
        return self.state.compacted

    async def get(self, key: Key) -> Record:
        return self.state.get(key)

    async def list(self, prefix: Key, *, limit: int = 0, after: Key = "", revision: int = 0) -> Page:
        return self.state.page(prefix, limit=limit, after=after, revision=revision)

    def watch(self, prefix: Key, *, since: int) -> Scope[Watch]:
        return self._watch(prefix, since)

    async def compact(self, revision: int) -> None:
        self.forget(revision)

    def publish(self, events: Sequence[Event]) -> None:
        """Show writes to readers and watchers, then forget what has become too old or too much."""
        outdated = self._outdated()
        for event in events:
            self.state.apply(event)
        self._watches.publish(events)
        self.forget(max(outdated, self.state.excess(self._history)))

    def forget(self, revision: int) -> None:
        """Compact memory; a durable store also drops the rows."""
        self.state.compact(revision)

    @asynccontextmanager
    async def _watch(self, prefix: Key, since: int) -> AsyncIterator[Watch]:
        with self._watches.open(prefix, since, self.state.since(prefix, since)) as watch:
            yield watch

    def _outdated(self) -> int:
        """The newest revision older than the history's seconds; asked before each publication."""
        now, marks, seconds = self._clock.time(), self._marks, self._history.seconds
        if max(now - self._written, self._written - marks[-1][0]) >= seconds / 30:
            marks.append((self._written, self.state.revision))
        self._written = now
        revision = 0
        while len(marks) > 1 and marks[0][0] <= now - seconds:
            revision = marks.popleft()[1]
        return revision
