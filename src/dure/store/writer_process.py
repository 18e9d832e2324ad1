"""The writer of one file, across the deaths of its processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dure.core.errors import ConfigError
from dure.store.link import Link
from dure.store.model import StoreError
from dure.store.state import State

log = logging.getLogger(__name__)

SCHEMA = 1
RESTARTS = 5
"""How often in a row a writer may fail to start before the store gives up."""


class WriterProcess:
    """The writer process of one file, across its deaths."""

    def __init__(self, path: Path, lock: int, max_bytes: int) -> None:
        self._path = path
        self._lock = lock
        self._max_bytes = max_bytes
        self._link: Link | None = None
        self._inbox: asyncio.Queue[tuple[Any, ...] | None] = asyncio.Queue()  # bounded by one load
        self._lost = asyncio.Event()
        self.is_ready = False
        """It is open, and what it says from now on are answers to batches."""
        self.answered: Callable[[tuple[Any, ...]], None] = self._inbox.put_nowait

    @property
    def pid(self) -> int | None:
        return self._link.pid if self._link else None

    async def load(self) -> tuple[State, list[int]]:
        """Start the first writer; everything in the file, and the revisions of rows that may go. Raises ConfigError."""
        try:
            return await self._load()
        except StoreError as error:
            raise ConfigError(f"{self._path} cannot be used: {error}", "restore it, or move it away") from error

    async def restart(self) -> int:
        """Another writer after one was lost; the newest durable revision. Raises StoreError when none will start."""
        for attempt in range(RESTARTS):
            await asyncio.sleep(0.05 * (2**attempt - 1))
            try:
                last, _ = await self._start(load=False)
            except StoreError as error:
                log.warning("store writer did not start", extra={"error": str(error), "attempt": attempt})
            else:
                self.is_ready = True
                return last
        raise StoreError(f"no writer of {self._path} would start, {RESTARTS} times in a row")

    async def wait_lost(self) -> None:
        await self._lost.wait()

    def send(self, *message: Any) -> None:
        assert self._link is not None
        self._link.send(*message)

    async def close(self) -> None:
        """Let it finish, and wait until it has exited."""
        self.is_ready = False
        if self._link is not None:
            await self._link.close()

    async def _load(self) -> tuple[State, list[int]]:
        last, compacted = await self._start(load=True)
        state = State(compacted=compacted)
        doomed: list[int] = []
        while (message := await self._next())[0] == "rows":
            doomed.extend(state.restore(message[1]))
        state.sort()
        state.revision = last
        self.is_ready = True
        return state, doomed

    async def _start(self, *, load: bool) -> tuple[int, int]:
        """Newest durable and newest compacted revision. Raises ConfigError, StoreError."""
        if self._link is not None:
            await self._link.close()
        self._lost.clear()
        self._inbox = asyncio.Queue()
        self._link = None
        try:
            self._link = await Link.start(self._path, self._lock, self._receive, self._note_lost)
        except OSError as error:
            raise StoreError(f"its writer cannot be started: {error}") from error
        self._link.send("open", SCHEMA, self._max_bytes, load)
        match await self._next():
            case ("opened", last, compacted):
                return last, compacted
            case ("schema", found):
                raise ConfigError(
                    f"{self._path} is of version {found}; this release reads versions up to {SCHEMA}",
                    "use the newer release that made it, or another DURE_HOME",
                )
            case (_, text):
                raise StoreError(text)
            case message:
                raise StoreError(f"the writer said {message!r}")

    async def _next(self) -> tuple[Any, ...]:
        message = await self._inbox.get()
        if message is None:
            raise StoreError("its writer ended unasked")
        return message

    def _receive(self, message: tuple[Any, ...]) -> None:
        if self.is_ready:
            self.answered(message)
        else:
            self._inbox.put_nowait(message)

    def _note_lost(self) -> None:
        self.is_ready = False
        self._lost.set()
        self._inbox.put_nowait(None)
