"""What a daemon does to its own process: a name, ties to its parent, locks, and reading others from /proc."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dure.core.errors import ConfigError

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_LOCK_TRIES, _LOCK_PAUSE_SECONDS = 10, 0.02


def _prctl(option: int, argument: int | bytes) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


def set_process_name(name: str) -> None:
    """As `ps` shows it; at most 15 bytes."""
    _prctl(_PR_SET_NAME, name.encode()[:15])


def die_with_parent(parent: int = 0, number: int = signal.SIGTERM) -> None:
    """Get a signal when the process that started this one ends; at once if `parent` has ended already."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if parent and os.getppid() != parent:
        os.kill(os.getpid(), number)


def collect_rarely() -> None:
    """Once a daemon is ready: what is there now stays, and API objects are trees, so that looking for cycles is waste.

    With the interpreter's own thresholds a seventh of a busy server's time goes there.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@dataclass(frozen=True, slots=True)
class Usage:
    """Memory as the process's fair share (PSS) in bytes; CPU in seconds since its start."""

    memory_bytes: int
    cpu_seconds: float


def usage_of(pid: int) -> Usage | None:
    """None when the process has gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    pss = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    ticks = int(stat[11]) + int(stat[12])
    return Usage(pss * 1024, ticks / os.sysconf("SC_CLK_TCK"))


def children_of(pid: int) -> list[int]:
    """Direct children, of all threads."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(text) for text in path.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@contextmanager
def exclusive(path: Path, message: str, mend: str) -> Iterator[int]:
    """Hold a lock file for the block; raises ConfigError when another process holds it.

    Gives the descriptor: a child that inherits it goes on holding the lock after the block.
    """
    with _opened(path) as file:
        if not _lock(file.fileno()):
            raise ConfigError(message, mend)
        yield file.fileno()


def _opened(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", "choose a data folder: --home") from error


def _lock(descriptor: int) -> bool:
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_SECONDS)  # perhaps `is_locked` is only looking
    return False


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock file."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not see each other
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
