"""One store watch a collection, fanned out to any number of watchers that share every encoding.

A watcher reads a feed: the whole collection, one namespace of it, or the pods of one node, so that an event
wakes only those it may concern. Feeds are bounded rings; a watcher that falls out of one gets `Expired`.
Watchers are woken at once while watchers x events is low, otherwise together a few milliseconds later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from dure.core.errors import Expired
from dure.store.model import Compacted, Event, FutureRevision, Store, Watch

log = logging.getLogger(__name__)

_RING = 4096
_TICK_SECONDS = 0.015
_CALM_DELIVERIES = 10_000
"""Deliveries a second up to which every event is handed over at once."""

_QUIET_SECONDS = 50.0

_TOO_OLD = "The resourceVersion for the provided watch is too old."

Route = Callable[[Event], tuple[str, ...]]
"""The names of the narrower feeds an event concerns, beside the whole collection's."""


def too_old() -> Expired:
    return Expired(_TOO_OLD)


class Feed:
    """A ring of events with the watchers that wait at its end. `base` is the index of its first event."""

    __slots__ = ("base", "events", "listeners", "readers", "shared", "waiters")

    def __init__(self) -> None:
        self.base = 0
        self.readers = 0
        self.events: deque[Event] = deque(maxlen=_RING)
        self.waiters: set[asyncio.Future[None]] = set()
        self.listeners: set[Callable[[], None]] = set()
        self.shared: dict[tuple[object, int, int], bytes] = {}
        """Joined frames of unfiltered watchers, by form and range; emptied at each event."""

    @property
    def end(self) -> int:
        return self.base + len(self.events)

    def append(self, event: Event) -> None:
        if len(self.events) == _RING:
            self.base += 1
        self.events.append(event)
        self.shared.clear()

    def since(self, index: int) -> list[Event]:
        """Events from `index` on. Raises Expired when the ring has moved past it."""
        if index < self.base:
            raise too_old()
        skip = index - self.base
        if skip == 0:
            return list(self.events)
        fresh = self.end - index
        if fresh <= 0:
            return []
        return [self.events[position] for position in range(-fresh, 0)]

    @property
    def waiting(self) -> int:
        return len(self.waiters) + len(self.listeners)

    def wake(self) -> None:
        for listener in tuple(self.listeners):
            listener()
        waiters, self.waiters = self.waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Subscription:
    """A watcher's place in a feed; or, for a far past, a store watch of its own."""

    __slots__ = ("_after", "_channel", "_feed", "index")

    def __init__(self, channel: Channel, feed: Feed, index: int, after: int) -> None:
        self._channel = channel
        self._feed = feed
        self.index = index
        self._after = after

    @property
    def feed(self) -> Feed:
        return self._feed

    @property
    def position(self) -> int:
        """The revision up to which everything has been seen once `take` gave nothing more."""
        return max(self._channel.position, self._after)

    def take(self) -> list[Event]:
        """What has come since the last call. Raises Expired."""
        self._channel.raise_failure()
        start, self.index = self.index, self._feed.end
        events = self._feed.since(start)
        if events and events[0].record.revision <= self._after:
            return [event for event in events if event.record.revision > self._after]
        return events

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """`listener` is called, and must not raise, when there is something to take, for as long as the block lasts."""
        self._feed.listeners.add(listener)
        try:
            if self.index < self._feed.end or self._channel.failure is not None:
                listener()
            yield
        finally:
            self._feed.listeners.discard(listener)

    async def wait_events(self, within: float) -> bool:
        """Until there is something to take; False when the time is over."""
        if self.index < self._feed.end or self._channel.failure is not None:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._feed.waiters.add(waiter)
        try:
            async with asyncio.timeout(within):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._feed.waiters.discard(waiter)
        return True


class Channel:
    """The feeds of one collection and the task that fills them."""

    def __init__(self, store: Store, prefix: str, since: int, route: Route) -> None:
        self._store = store
        self.prefix = prefix
        self._route = route
        self.floor = since
        """Watches from this revision on can be served out of the feeds."""
        self.position = since
        self.failure: Exception | None = None
        self.watchers = 0
        self._feeds: dict[str, Feed] = {"": Feed()}
        self._dirty: set[Feed] = set()
        self._rate = 0.0
        self._rate_at = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._took = 0.0
        """Seconds that waking everybody last took."""

    def raise_failure(self) -> None:
        if self.failure is not None:
            raise too_old() from self.failure

    def feed(self, name: str) -> Feed:
        """The feed of that name, filled with what the whole collection's ring still has for it."""
        found = self._feeds.get(name)
        if found is None:
            found = self._feeds[name] = Feed()
            for event in self._feeds[""].events:
                if name in self._route(event):
                    found.append(event)
        return found

    def trim(self, name: str) -> None:
        """Forget a narrower feed nobody waits on."""
        feed = self._feeds.get(name)
        if name and feed is not None and not feed.readers:
            del self._feeds[name]

    async def run(self) -> None:
        """Read the store until cancelled; a failure reaches the watchers as Expired."""
        try:
            async with self._store.watch(self.prefix, since=self.floor) as watch:
                await self._read(watch)
        except (Compacted, FutureRevision) as error:
            self.failure = error
        finally:
            self.failure = self.failure or Compacted("the watch has ended")
            self._dirty.update(self._feeds.values())
            self._flush()

    async def _read(self, watch: Watch) -> None:
        quiet = 0
        while True:
            try:
                async with asyncio.timeout(_QUIET_SECONDS):
                    events = await watch.take()
            except TimeoutError:
                # nothing came since the last time-out, so nothing at or below what was newest then is still to come
                self.position = max(self.position, quiet)
                quiet = self._store.revision
                continue
            quiet = 0
            for event in events:
                self._publish(event)
            self._wake_soon()

    def _publish(self, event: Event) -> None:
        whole = self._feeds[""]
        if len(whole.events) == _RING:
            self.floor = whole.events[0].record.revision
        whole.append(event)
        self._dirty.add(whole)
        if len(self._feeds) > 1:
            for name in self._route(event):
                if (feed := self._feeds.get(name)) is not None:
                    feed.append(event)
                    self._dirty.add(feed)
        self.position = event.record.revision

    def _wake_soon(self) -> None:
        if self._tick is not None:
            return
        loop = asyncio.get_running_loop()
        waiting = sum(feed.waiting for feed in self._dirty)
        if self._measure(loop.time()) * waiting < _CALM_DELIVERIES:
            self._flush()
        else:
            # never more than half of the loop's time goes to watchers: writes must get through
            self._tick = loop.call_later(max(_TICK_SECONDS, self._took), self._flush)

    def _measure(self, now: float) -> float:
        """Events a second, decaying over a second."""
        passed = now - self._rate_at
        self._rate_at = now
        self._rate = self._rate * max(0.0, 1.0 - passed) + 1.0
        return self._rate

    def _flush(self) -> None:
        self._tick = None
        began = time.perf_counter()
        dirty, self._dirty = self._dirty, set()
        for feed in dirty:
            feed.wake()
        self._took = time.perf_counter() - began


class WatchHub:
    """Opens channels as they are first watched and closes them with their last watcher."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._channels: dict[str, Channel] = {}
        self._tasks: dict[Channel, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Channels live inside this block."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                try:
                    yield
                finally:
                    self._group = None
                    for task in self._tasks.values():
                        task.cancel()
        except BaseExceptionGroup as errors:
            if len(errors.exceptions) == 1:
                raise errors.exceptions[0] from None
            raise

    @asynccontextmanager
    async def subscribe(
        self, prefix: str, since: int, route: Route, feed_name: str = ""
    ) -> AsyncIterator[Subscription]:
        """Events under `prefix` after `since`. Raises Expired when they are no longer known."""
        if since < self._store.compacted:
            raise too_old()
        channel, shared = self._channel(prefix, since, route)
        channel.watchers += 1
        try:
            feed = channel.feed(feed_name)
            feed.readers += 1
            try:
                yield Subscription(channel, feed, self._index(feed, since), since)
            finally:
                feed.readers -= 1
        finally:
            channel.watchers -= 1
            self._leave(channel, feed_name, shared)

    def _channel(self, prefix: str, since: int, route: Route) -> tuple[Channel, bool]:
        current = self._channels.get(prefix)
        if current is not None and current.failure is None and since >= current.floor:
            return current, True
        channel = Channel(self._store, prefix, since, route)
        if self._group is None:
            raise too_old()
        task = self._group.create_task(channel.run(), name=f"watch {prefix}")
        self._tasks[channel] = task
        task.add_done_callback(lambda _: self._tasks.pop(channel, None))
        if current is None or current.failure is not None:
            self._channels[prefix] = channel
            return channel, True
        return channel, False

    @staticmethod
    def _index(feed: Feed, since: int) -> int:
        """Where the first event after `since` is, or will be."""
        index = feed.end
        for event in reversed(feed.events):
            if event.record.revision <= since:
                break
            index -= 1
        return index

    def _leave(self, channel: Channel, feed_name: str, shared: bool) -> None:
        channel.trim(feed_name)
        if channel.watchers:
            return
        if shared and self._channels.get(channel.prefix) is channel:
            del self._channels[channel.prefix]
        if (task := self._tasks.get(channel)) is not None:
            task.cancel()

    def channels(self) -> Iterator[Channel]:
        yield from self._channels.values()
