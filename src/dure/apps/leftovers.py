"""Daemons whose supervisor was killed: they end by themselves, and this waits until they have."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from dure.core.process import is_alive
from dure.core.settings import Settings

_DAEMONS = ("dure.apps.server", "dure.apps.agent", "dure.apps.supervisor")
_PATIENCE_SECONDS = 10.0


def end_leftovers(settings: Settings) -> int:
    """End every daemon of this data folder, gently first; how many there were.

    Only for who holds the platform's lock, else they are not left over.
    """
    pids = list(_leftovers(settings))
    for pid in pids:
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            for pid in pids:
                _signal(pid, signal.SIGKILL)
        time.sleep(0.02)
    return len(pids)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has ended by itself


def _leftovers(settings: Settings) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if settings.home in words and any(module in words for module in _DAEMONS):
            pid = int(path.parent.name)
            if pid != os.getpid():
                yield pid
