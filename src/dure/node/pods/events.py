"""Events of a node, written in the background so that no pod waits for them."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal, Protocol

from dure.core.errors import DureError
from dure.core.json import Obj

log = logging.getLogger(__name__)

QUEUE_LIMIT = 1000
"""Events are a courtesy: past this many waiting, new ones are dropped."""


class Recorder(Protocol):
    async def record(
        self, obj: Obj, type: Literal["Normal", "Warning"], reason: str, message: str, *, field_path: str = ""
    ) -> None: ...


class EventSink:
    """Queues events for `run()`, which records them one after another."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._queue: asyncio.Queue[tuple[Obj, Literal["Normal", "Warning"], str, str, str]] = asyncio.Queue(QUEUE_LIMIT)

    def emit(
        self, obj: Obj, kind: Literal["Normal", "Warning"], reason: str, message: str, field_path: str = ""
    ) -> None:
        try:
            self._queue.put_nowait((obj, kind, reason, message, field_path))
        except asyncio.QueueFull:
            log.warning("event dropped", extra={"reason": reason, "object": obj["metadata"].get("name")})

    async def run(self) -> None:
        while True:
            obj, kind, reason, message, field_path = await self._queue.get()
            try:
                await self._recorder.record(obj, kind, reason, message, field_path=field_path)
            except DureError as error:
                log.info("event not recorded", extra={"reason": reason, "error": error})
