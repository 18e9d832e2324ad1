"""Runs a reconciler: changes become keys, keys are worked on by a few workers, failures come again.

Level-triggered: a reconciler is told which object to look at, never what happened to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from dure.api.meta import ObjectKey
from dure.control.informer import Informer
from dure.control.work_queue import WorkQueue
from dure.core.errors import ApiError, Conflict, TerminalError, TransportError
from dure.core.json import Obj

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """Done; look again after so many seconds, if given."""

    requeue_after: float | None = None


class Reconciler(Protocol):
    async def reconcile(self, key: ObjectKey) -> Result:
        """Bring the world to what the object wants. May be called at any time, any number of times.

        Conflict: again at once. TerminalError: not before the object changes. Anything else: again, backing off.
        """
        ...


class Controller:
    """`watches(...)` while building, then `run()`."""

    def __init__(
        self, name: str, reconciler: Reconciler, queue: WorkQueue[ObjectKey] | None = None, *, workers: int = 1
    ) -> None:
        self.name = name
        self.queue: WorkQueue[ObjectKey] = queue if queue is not None else WorkQueue()
        self._reconciler = reconciler
        self._workers = workers
        self._informers: list[Informer] = []

    def watches(self, informer: Informer, map: Callable[[Obj], Iterable[ObjectKey]]) -> Controller:
        """A change queues the keys `map` gives for the object as it was and as it is."""

        def changed(old: Obj | None, new: Obj | None) -> None:
            for obj in (old, new):
                if obj is not None:
                    for key in map(obj):
                        self.queue.add(key)

        self._informers.append(informer)
        informer.on_change(changed)
        return self

    async def run(self) -> None:
        """Work until cancelled; begins when everything watched is known. The informers are run by others."""
        for informer in self._informers:
            await informer.wait_synced()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self.name} {number}")
        finally:
            self.queue.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._reconcile(key)
            finally:
                self.queue.done(key)

    async def _reconcile(self, key: ObjectKey) -> None:
        facts = {"controller": self.name, "key": str(key)}
        try:
            result = await self._reconciler.reconcile(key)
        except Conflict:
            self._again(key)
        except TerminalError as error:
            log.warning("reconciler gave up", extra={**facts, "error": error})
            self.queue.forget(key)
        except (ApiError, TransportError) as error:
            delay = self.queue.retry(key)
            log.warning("reconcile failed", extra={**facts, "error": error, "retry_seconds": delay})
        except Exception:
            delay = self.queue.retry(key)
            log.exception("reconciler broke", extra={**facts, "retry_seconds": delay})
        else:
            self.queue.forget(key)
            if result.requeue_after is not None:
                self.queue.add_after(key, result.requeue_after)

    def _again(self, key: ObjectKey) -> None:
        """The cache was behind; it may still be, so only the first retry is immediate."""
        if self.queue.failures(key) == 0:
            self.queue.add(key)
        self.queue.retry(key)
