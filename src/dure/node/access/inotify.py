"""Word of changes in a folder, from the kernel: no polling."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_MODIFY, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _ONLYDIR = 0x400, 0x0100_0000
_INTERESTING = _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _ONLYDIR


class FolderWatch:
    """`changed` is set whenever a file in the folder was written, made, renamed or removed; the waiter clears it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self.changed = asyncio.Event()

    def __enter__(self) -> FolderWatch:
        """Raises OSError."""
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            _checked(_libc.inotify_add_watch(self._fd, os.fsencode(self._folder), _INTERESTING))
            asyncio.get_running_loop().add_reader(self._fd, self._take)
        except OSError:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 65536)
        self.changed.set()


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
