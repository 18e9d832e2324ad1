"""The durable store: everything is read from memory; a child process commits each batch before it is acknowledged.

Invariant: memory never shows a write that is not on disk, and no write that was acknowledged is missing there.
The writer may be killed at any moment: the next one says which revisions are durable, the rest is written again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dure.core.aio import finish, running
from dure.core.clock import Clock, SystemClock
from dure.core.errors import ConfigError
from dure.store.batches import Batches
from dure.store.lock import locked
from dure.store.model import Key, Record, StoreError, StoreFull
from dure.store.plan import Write
from dure.store.published import Published
from dure.store.state import History, State
from dure.store.watches import BACKLOG_EVENTS
from dure.store.writer_process import WriterProcess

log = logging.getLogger(__name__)

CLOSE_SECONDS = 30.0


class SqliteStore(Published):
    """Made by `SqliteStore.open(folder)`; writes from many tasks share transactions."""

    def __init__(self, writer: WriterProcess, state: State, history: History, clock: Clock, backlog: int) -> None:
        super().__init__(state, history, clock, backlog)
        self._writer = writer
        self._writer.answered = self._answered
        self._batches = Batches(state, state.revision + 1, state.compacted)
        self._wakeup: asyncio.Handle | None = None
        self._idle = asyncio.Event()
        self._is_open = True
        self._is_refusing = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path,
        *,
        history: History | None = None,
        max_bytes: int = 0,
        clock: Clock | None = None,
        backlog: int = BACKLOG_EVENTS,
    ) -> AsyncIterator[SqliteStore]:
        """The store in `folder`, made if missing; `max_bytes` > 0 bounds the file.

        Raises ConfigError when another process has it, when it is of a newer version, or cannot be read.
        """
        _make_folder(folder)
        async with locked(folder / "lock") as lock:
            writer = WriterProcess(folder / "store.db", lock, max_bytes)
            try:
                state, doomed = await writer.load()
                store = cls(writer, state, history or History(), clock or SystemClock(), backlog)
                store._batches.doom(doomed)
                store.forget(state.excess(store._history))
                async with running(store._keep_writer()):
                    try:
                        yield store
                    finally:
                        await finish(store._drain(), within=CLOSE_SECONDS)
            finally:
                await finish(writer.close(), within=CLOSE_SECONDS)

    @property
    def writer_pid(self) -> int | None:
        """None for the moment in which there is none."""
        return self._writer.pid

    async def put(self, key: Key, value: bytes, *, expect: int | None) -> Record:
        return await self._write(Write(key, value, expect))

    async def delete(self, key: Key, *, expect: int | None) -> Record:
        return await self._write(Write(key, None, expect))

    def forget(self, revision: int) -> None:
        doomed = self.state.compact(revision)
        if doomed:
            self._batches.doom(doomed)
            self._wake()

    async def _write(self, write: Write) -> Record:
        if not self._is_open:
            raise StoreError("the store is closed")
        planned = await self._batches.plan(write)
        self._wake()
        return await planned.future

    def _wake(self) -> None:
        """Send the next batch once every task that can write now has done so."""
        if self._wakeup is None and self._batches.in_flight is None:
            self._wakeup = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._wakeup = None
        if self._writer.is_ready and (batch := self._batches.take()):
            self._writer.send("commit", batch.rows(), batch.compacted, batch.doomed)

    def _answered(self, message: tuple[Any, ...]) -> None:
        if message[0] == "done":
            self._landed()
            self._wake()
        else:
            self._refused(message[1])

    def _landed(self) -> None:
        landed = self._batches.landed()
        if landed and self._is_refusing:
            log.info("store takes writes again")
            self._is_refusing = False
        self.publish([planned.event for planned in landed])
        for planned in landed:
            planned.settle()
        self._note_idle()

    def _refused(self, text: str) -> None:
        if not self._is_refusing:
            log.error("store takes no writes", extra={"error": text})
            self._is_refusing = True
        had_writes = self._batches.refused(StoreFull(f"the store refused the write, nothing of it was kept: {text}"))
        self._note_idle()
        if had_writes:
            self.forget(self.state.revision)  # the past is the only thing we may give up for room
            self._wake()
        # dead rows alone wait for the next write: now they would only be refused again

    def _note_idle(self) -> None:
        if self._batches.is_idle:
            self._idle.set()

    async def _keep_writer(self) -> None:
        """Start another writer whenever one dies, and settle what it may have left half-done."""
        self._wake()
        while True:
            await self._writer.wait_lost()
            log.warning("store writer has gone, starting another", extra={"pid": self._writer.pid})
            try:
                self._resume(await self._writer.restart())
            except StoreError as error:
                self._is_open = False
                self._batches.fail_all(error)
                raise

    def _resume(self, last: int) -> None:
        if last < self.state.revision:
            raise StoreError(f"the store lost revisions {last + 1} to {self.state.revision}")
        batch = self._batches.in_flight
        if batch is not None and batch.writes and batch.last <= last:
            self._landed()
        elif batch is not None:
            self._writer.send("commit", batch.rows(), batch.compacted, batch.doomed)
        self._wake()

    async def _drain(self) -> None:
        """Refuse new writes, wait for those that were taken."""
        self._is_open = False
        try:
            while not self._batches.is_idle:
                self._idle.clear()
                await self._idle.wait()
        finally:
            self._batches.fail_all(StoreError("the store was closed before the write was certain"))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}", "choose another DURE_HOME") from error
