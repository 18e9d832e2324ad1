"""Locks on files, between the processes that share a store, and files replaced in one step."""

from __future__ import annotations

import asyncio
import fcntl
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from dure.images.errors import StoreBusy

_FIRST_WAIT = 0.02
_LONGEST_WAIT = 0.5


def _try_lock(path: Path, shared: bool) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


@asynccontextmanager
async def locked(path: Path, *, shared: bool = False) -> AsyncIterator[None]:
    """Hold the lock for the block, waiting as long as it takes; cancellation ends the wait."""
    pause = _FIRST_WAIT
    while (fd := _try_lock(path, shared)) is None:
        # flock cannot be awaited, and a thread blocked in it could not be cancelled
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_WAIT)
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def locked_at_once(path: Path, what: str) -> Iterator[None]:
    """Hold the lock alone for the block. Raises StoreBusy if somebody has it."""
    fd = _try_lock(path, shared=False)
    if fd is None:
        raise StoreBusy(f"{what}: the image store is in use by a build or a pull, try again when it has ended")
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def locked_briefly(path: Path) -> Iterator[None]:
    """Hold the lock for a few file operations; whoever has it gives it back in no time."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes) -> None:
    """All of the new content or all of the old, also after a crash."""
    scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with scratch.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    finally:
        scratch.unlink(missing_ok=True)
