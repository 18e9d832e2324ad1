"""One platform to a folder: a file lock that lives as long as the platform or its writer."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dure.core.errors import ConfigError
from dure.core.process import is_alive

ORPHAN_SECONDS = 10.0
"""How long the writer of a platform that died may take for its last batch."""


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[int]:
    """Hold the lock; gives the descriptor to pass on. Raises ConfigError naming the process that holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await _acquire(descriptor, path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


async def _acquire(descriptor: int, path: Path) -> None:
    deadline = asyncio.get_running_loop().time() + ORPHAN_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace")
            if _is_alive(holder) or asyncio.get_running_loop().time() > deadline:
                raise ConfigError(
                    f"{path.parent} is in use by process {holder or 'unknown'}",
                    "end that platform first (`dure down`), or choose another DURE_HOME",
                ) from None
        await asyncio.sleep(0.05)  # only the writer of a dead platform is left: it ends by itself


def _is_alive(pid: str) -> bool:
    return pid.isdigit() and is_alive(int(pid))
