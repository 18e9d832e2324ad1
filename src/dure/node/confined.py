"""Opens paths inside a tree that somebody else controls: never outside it, whatever links it holds (`openat2`)."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
_OPENAT2 = 437
"""One number on every architecture that Linux added since 2020's unified table (x86-64, arm64, riscv64, ...)."""

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(directory: int, path: str, flags: int, mode: int, resolve: int) -> int:
    how = _How(flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, resolve | RESOLVE_NO_MAGICLINKS)
    result = int(_libc.syscall(_OPENAT2, directory, path.encode(), ctypes.byref(how), ctypes.sizeof(how)))
    if result < 0:
        code = ctypes.get_errno()
        if code == errno.ENOSYS:
            raise OSError(code, f"Linux 5.6 or newer is needed, this is {platform.release()}")
        raise OSError(code, os.strerror(code), path)
    return result


@contextmanager
def opened(root: Path | str, path: str, flags: int = os.O_RDONLY, *, as_root: bool = False) -> Iterator[int]:
    """A descriptor of `path` below `root`.

    With `as_root` absolute links mean the tree's own root, as a process inside it would see them; without, any way
    out of the tree is refused. Raises OSError (EXDEV when it leads out).
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        inside = path.lstrip("/") or "."
        descriptor = _openat2(directory, inside, flags, 0, RESOLVE_IN_ROOT if as_root else RESOLVE_BENEATH)
    finally:
        os.close(directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_inside(root: Path | str, path: str, limit: int) -> bytes | None:
    """At most `limit` bytes of a regular file as a process rooted in `root` would read it; None when there is none."""
    try:
        with opened(root, path, os.O_RDONLY | os.O_NONBLOCK, as_root=True) as descriptor:
            if not os.path.isfile(f"/proc/self/fd/{descriptor}"):  # noqa: PTH113 - a descriptor, not a path
                return None
            return os.read(descriptor, limit)
    except OSError:
        return None


def make_directories(root: Path | str, path: str, mode: int) -> None:
    """Every missing directory of `path` below `root`, without following a link out of it. Raises OSError."""
    done = ""
    for segment in [part for part in path.split("/") if part not in ("", ".")]:
        parent, done = done or ".", f"{done}/{segment}".lstrip("/")
        with opened(root, parent, os.O_PATH | os.O_DIRECTORY) as directory:
            try:
                os.mkdir(segment, mode, dir_fd=directory)
            except FileExistsError:
                continue
            os.chmod(segment, mode, dir_fd=directory)
