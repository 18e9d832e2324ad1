"""Pods without a node: to be tried now, most important first; waiting for room; or for their time after an error."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from dure.api.meta import key_of, labels_of
from dure.core.json import Obj
from dure.scheduler.needs import Needs

_FIRST_SECONDS, _MOST_SECONDS = 1.0, 10.0

Rank = tuple[int, str, str]


class PendingPods:
    """Bounded by the pods that exist. A pod is in at most one of the three states."""

    def __init__(self) -> None:
        self._ready: dict[str, Obj] = {}
        self._order: list[Rank] = []
        """A heap; what is no longer ready is skipped when its turn comes."""
        self._parked: dict[str, tuple[Obj, Needs]] = {}
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        self._has_ready = asyncio.Event()

    def put(self, pod: Obj) -> None:
        """A new pod, or one that changed: one that waits goes on waiting unless what it asks for is different."""
        key = "/".join(key_of(pod))
        if key in self._later:
            return  # it is read anew when its time comes
        parked = self._parked.get(key)
        if parked is not None and _asks_the_same(parked[0], pod):
            self._parked[key] = (pod, parked[1])
            return
        self._parked.pop(key, None)
        self._make_ready(key, pod)

    def drop(self, key: str) -> None:
        """It has a node, has finished or is gone."""
        self._ready.pop(key, None)
        self._parked.pop(key, None)
        self._failures.pop(key, None)
        if (timer := self._later.pop(key, None)) is not None:
            timer.cancel()

    def park(self, key: str, pod: Obj, needs: Needs) -> None:
        """It fits nowhere, until `wake`."""
        self._parked[key] = (pod, needs)

    def wake(self, concerns: Callable[[Needs], bool] = lambda needs: True) -> None:
        """Something changed that may let parked pods in."""
        for key in [key for key, (_, needs) in self._parked.items() if concerns(needs)]:
            pod, _ = self._parked.pop(key)
            self._make_ready(key, pod)

    def retry(self, key: str, read: Callable[[], Obj | None]) -> None:
        """Try again after a while that grows; `read` gives the pod as it is then, or None."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(_MOST_SECONDS, _FIRST_SECONDS * 2.0 ** min(failures, 10))

        def fire() -> None:
            del self._later[key]
            pod = read()
            if pod is not None:
                self.put(pod)

        self._ready.pop(key, None)
        self._parked.pop(key, None)
        self._later[key] = asyncio.get_running_loop().call_later(delay, fire)

    async def wait_ready(self) -> None:
        """Until there may be a pod to try."""
        await self._has_ready.wait()

    def pop(self) -> tuple[str, Obj] | None:
        """The most important pod to try now: by priority, then age."""
        while self._order:
            *_, key = heapq.heappop(self._order)
            pod = self._ready.pop(key, None)
            if pod is not None:
                return key, pod
        self._has_ready.clear()
        return None

    def close(self) -> None:
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()

    def _make_ready(self, key: str, pod: Obj) -> None:
        self._ready[key] = pod
        rank = (-int(pod["spec"].get("priority") or 0), pod["metadata"].get("creationTimestamp") or "", key)
        heapq.heappush(self._order, rank)
        self._has_ready.set()


def _asks_the_same(old: Obj, new: Obj) -> bool:
    same_pod = old["metadata"].get("uid") == new["metadata"].get("uid")
    return same_pod and old["spec"] == new["spec"] and labels_of(old) == labels_of(new)
