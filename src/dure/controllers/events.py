"""Events are forgotten an hour after they last happened, so that endless churn fills no disk."""

from __future__ import annotations

from dure.api.meta import ObjectKey, uid_of
from dure.control.controller import Controller, Result
from dure.controllers.shared import Context, itself
from dure.core.clock import parse_rfc3339
from dure.core.errors import Conflict, NotFound
from dure.core.json import Obj

_KEEP_SECONDS = 3600.0


def last_happened(event: Obj) -> float:
    """Of an Event in its core form, whoever wrote it in whichever of its times."""
    series = event.get("series") or {}
    stamps = (
        event.get("lastTimestamp"),
        event.get("eventTime"),
        series.get("lastObservedTime"),
        event["metadata"].get("creationTimestamp"),
    )
    return max((parse_rfc3339(stamp) for stamp in stamps if stamp), default=0.0)


class EventReconciler:
    """Keyed by Event; each has its own timer, nothing looks through all of them."""

    def __init__(self, context: Context, keep_seconds: float = _KEEP_SECONDS) -> None:
        self._clock = context.clock
        self._client = context.client
        self._events = context.informers.of("events")
        self._keep_seconds = keep_seconds

    def build(self) -> Controller:
        return Controller("events", self).watches(self._events, itself)

    async def reconcile(self, key: ObjectKey) -> Result:
        event = self._events.get(key)
        if event is None:
            return Result()
        left = last_happened(event) + self._keep_seconds - self._clock.time()
        if left > 0:
            return Result(requeue_after=left)
        revision = event["metadata"]["resourceVersion"]
        try:
            await self._client.delete("events", key.name, key.namespace, uid=uid_of(event), revision=revision)
        except (NotFound, Conflict):
            return Result()  # gone, or it has just happened again
        return Result()
