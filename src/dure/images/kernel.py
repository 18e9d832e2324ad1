"""System calls of Linux that Python does not offer: openat2, mount, umount2, syncfs.

`open_in_root` is the one door to a path inside an untrusted tree: openat2 with RESOLVE_IN_ROOT, so that
neither `..` nor a symbolic link leads out. Without openat2 (before Linux 5.6) it refuses.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_CLONE_FS = 0x200
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _raise(path: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), path)


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """A descriptor for `path` as a process chrooted to `root_fd` would see it. Raises OSError."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    while True:
        fd = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(root_fd),
            ctypes.c_char_p(os.fsencode(path or ".")),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):  # EAGAIN: a rename raced with `..`
            raise OSError(code, os.strerror(code), path)


def names_in(fd: int) -> list[str]:
    """What an open folder holds, sorted."""
    return sorted(os.listdir(fd))


def path_of(fd: int) -> str:
    """Where an open descriptor is now."""
    return str(Path(f"/proc/self/fd/{fd}").readlink())


def mount(source: str, target: str, kind: str, options: str = "", flags: int = 0) -> None:
    if _libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()) != 0:
        _raise(target)


def unmount(target: str) -> bool:
    """Detach whatever is mounted there; false if nothing was. Raises OSError otherwise."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        return True
    if ctypes.get_errno() in (errno.EINVAL, errno.ENOENT):
        return False
    _raise(target)
    return False


def sync_file_system(path: Path) -> None:
    """Return once everything written to the file system of `path` is on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            _raise(str(path))
    finally:
        os.close(fd)


def call_in_folder(folder: Path, action: Callable[[], None]) -> None:
    """Run `action` with `folder` as its current folder, without moving any other thread.

    A throw-away thread leaves the shared file system context first. `action` must not start threads.
    """
    failure: list[BaseException] = []

    def moved() -> None:
        try:
            if _libc.unshare(_CLONE_FS) != 0:
                _raise(str(folder))
            os.chdir(folder)
            action()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=moved, name="images-mount")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
