"""Which keys need work: each at most once in the queue and with at most one worker.

Semantics of client-go's workqueue: a key added while it is being worked on is queued again when that is done;
failures of a key back off exponentially. Time is the loop's timers, nothing polls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Bounded by the number of different keys."""

    def __init__(self, *, first_seconds: float = 0.005, most_seconds: float = 1000.0) -> None:
        self._first = first_seconds
        self._most = most_seconds
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        """Keys that need work: waiting in `_ready`, or in work and to be queued again."""
        self._processing: set[K] = set()
        self._failures: dict[K, int] = {}
        self._delayed: dict[K, tuple[float, asyncio.Handle]] = {}
        """When the key is due, beside its timer: not every loop's handles can tell."""
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def is_idle(self) -> bool:
        """Nothing queued, nothing in work; delayed keys may still come."""
        return not self._dirty and not self._processing

    def add(self, key: K) -> None:
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._put(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Add later; of several delays for a key the one that ends first counts."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        planned = self._delayed.get(key)
        if planned is not None:
            before, handle = planned
            if before <= due:
                return
            handle.cancel()
        self._delayed[key] = (due, loop.call_at(due, self._fire, key))

    def retry(self, key: K) -> float:
        """Add after a delay that doubles with each failure; gives the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._most, self._first * 2.0 ** min(failures, 64))
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key succeeded: its next failure is its first."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """The next key, now in work until `done`."""
        while not self._ready:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                self._abandon(waiter)
                raise
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        self._processing.discard(key)
        if key in self._dirty:
            self._put(key)

    def close(self) -> None:
        """Forget what was planned for later."""
        for _, handle in self._delayed.values():
            handle.cancel()
        self._delayed.clear()

    def _put(self, key: K) -> None:
        self._ready.append(key)
        self._wake_one()

    def _fire(self, key: K) -> None:
        del self._delayed[key]
        self.add(key)

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _abandon(self, waiter: asyncio.Future[None]) -> None:
        """A worker was cancelled while waiting; if it had just been woken, another takes the key."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif self._ready:
            self._wake_one()
