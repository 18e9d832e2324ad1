"""Mounts by system call: tmpfs and bind mounts for volumes, and taking them away again."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Protocol

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC = 1, 2, 4, 8, 4096, 16384
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

_libc = ctypes.CDLL(None, use_errno=True)


class Mounter(Protocol):
    """What volumes need of the kernel. `real` says whether mounts happen at all."""

    real: bool

    def tmpfs(self, target: Path, *, mode: int, size_bytes: int = 0) -> None:
        """Safe to repeat."""
        ...

    def bind(self, source: str, target: Path) -> None: ...

    def unmount_below(self, root: Path) -> None:
        """Everything mounted at or below `root`, the innermost first. Safe to repeat."""
        ...


class KernelMounter:
    """Real mounts; needs CAP_SYS_ADMIN."""

    real = True

    def tmpfs(self, target: Path, *, mode: int, size_bytes: int = 0) -> None:
        target.mkdir(parents=True, exist_ok=True)
        if os.path.ismount(target):
            return
        options = f"mode={mode:o}" + (f",size={size_bytes}" if size_bytes else "")
        _mount("tmpfs", str(target), "tmpfs", MS_NOSUID | MS_NODEV, options)

    def bind(self, source: str, target: Path) -> None:
        _mount(source, str(target), "", MS_BIND | MS_REC, "")

    def unmount_below(self, root: Path) -> None:
        for target in sorted(mounts_below(root), key=len, reverse=True):
            if _libc.umount2(os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW) < 0:
                code = ctypes.get_errno()
                if code not in (errno.EINVAL, errno.ENOENT):
                    raise OSError(code, os.strerror(code), target)


class PlainMounter:
    """For platforms without containers: folders instead of mounts."""

    real = False

    def tmpfs(self, target: Path, *, mode: int, size_bytes: int = 0) -> None:
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(mode)

    def bind(self, source: str, target: Path) -> None:
        raise OSError(errno.EPERM, "bind mounts need root", str(target))

    def unmount_below(self, root: Path) -> None:
        return


def mounts_below(root: Path, table: str | None = None) -> list[str]:
    """Mount points at or below `root`, from /proc/self/mountinfo."""
    text = table if table is not None else Path("/proc/self/mountinfo").read_text()
    prefix = str(root)
    points = [_unescaped(line.split(" ", 5)[4]) for line in text.splitlines()]
    return [point for point in points if point == prefix or point.startswith(prefix + "/")]


def _unescaped(text: str) -> str:
    """Octal escapes for blank, tab, line break and backslash."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode() or None, flags, options.encode() or None)
    if _libc.mount(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)
