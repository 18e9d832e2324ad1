"""Tells users what happened to an object, as Events beside it.

Repeats count up one Event instead of making many, and a source that talks too much about one object is silenced
for a while (25 at once, then one in five minutes), as client-go's recorder does.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from dure.api.meta import name_of, namespace_of, uid_of
from dure.client.client import Client
from dure.core.clock import Clock, SystemClock, rfc3339
from dure.core.errors import ApiError, NotFound, TransportError
from dure.core.json import Obj

log = logging.getLogger(__name__)

EventType = Literal["Normal", "Warning"]

_REMEMBERED = 4096
_BURST = 25.0
_REFILL_SECONDS = 300.0
_MESSAGE_LIMIT = 1024
_NAME_BASE_LIMIT = 253 - len(".") - 16

_Key = tuple[str, ...]


@dataclass(slots=True)
class _Seen:
    name: str
    count: int


class EventRecorder:
    """Events are a courtesy: one that cannot be written is logged and forgotten."""

    def __init__(self, client: Client, component: str, host: str = "", clock: Clock | None = None) -> None:
        self._client = client
        self._component = component
        self._host = host
        self._clock = clock or SystemClock()
        self._last_stamp = 0
        self._seen: OrderedDict[_Key, _Seen] = OrderedDict()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def record(self, obj: Obj, type: EventType, reason: str, message: str, *, field_path: str = "") -> None:
        """`reason` is one UpperCamelCase word, `message` for people; `field_path` names a part of the object."""
        involved = _reference(obj, field_path)
        if not self._may_talk_about(involved["uid"] or f"{involved['namespace']}/{involved['name']}"):
            return
        message = message[:_MESSAGE_LIMIT]
        key = (involved["kind"], involved["namespace"], involved["name"], involved["uid"], field_path, type, reason)
        try:
            await self._write((*key, message), involved, type, reason, message)
        except (ApiError, TransportError) as error:
            log.info("event not recorded", extra={"reason": reason, "object": involved["name"], "error": error})

    async def _write(self, key: _Key, involved: Obj, type: EventType, reason: str, message: str) -> None:
        namespace = involved["namespace"] or "default"
        now = rfc3339(self._clock.time())
        seen = self._seen.get(key)
        if seen is not None:
            seen.count += 1
            self._seen.move_to_end(key)
            try:
                await self._client.patch("events", seen.name, namespace, {"count": seen.count, "lastTimestamp": now})
                return
            except NotFound:
                del self._seen[key]  # it was old enough to be dropped
        name = f"{involved['name'][:_NAME_BASE_LIMIT]}.{self._stamp():016x}"
        await self._client.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": {field: value for field, value in involved.items() if value},
                "reason": reason,
                "message": message,
                "type": type,
                "source": {"component": self._component} | ({"host": self._host} if self._host else {}),
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
                "reportingComponent": self._component,
                "reportingInstance": self._host,
            }
        )
        self._remember(key, name)

    def _stamp(self) -> int:
        """Nanoseconds, each once: by name, events of one second are listed in the order they happened."""
        self._last_stamp = max(self._last_stamp + 1, int(self._clock.time() * 1e9))
        return self._last_stamp

    def _remember(self, key: _Key, name: str) -> None:
        self._seen[key] = _Seen(name, 1)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def _may_talk_about(self, subject: str) -> bool:
        now = self._clock.time()
        tokens, since = self._buckets.pop(subject, (_BURST, now))
        tokens = min(_BURST, tokens + (now - since) / _REFILL_SECONDS)
        allowed = tokens >= 1
        self._buckets[subject] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return allowed


def _reference(obj: Obj, field_path: str) -> Obj:
    return {
        "apiVersion": obj.get("apiVersion", ""),
        "kind": obj.get("kind", ""),
        "namespace": namespace_of(obj),
        "name": name_of(obj),
        "uid": uid_of(obj),
        "resourceVersion": obj["metadata"].get("resourceVersion", ""),
        "fieldPath": field_path,
    }
