"""hostPath volumes: the type check, and making what may be made."""

from __future__ import annotations

import stat
from pathlib import Path

from dure.node.pods.ports import VolumeFailure

_CHECKS = {
    "Directory": (stat.S_ISDIR, "is not a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "is not a directory"),
    "File": (stat.S_ISREG, "is not a file"),
    "FileOrCreate": (stat.S_ISREG, "is not a file"),
    "Socket": (stat.S_ISSOCK, "is not a socket"),
    "CharDevice": (stat.S_ISCHR, "is not a character device"),
    "BlockDevice": (stat.S_ISBLK, "is not a block device"),
}


def prepare_host_path(path: str, kind: str, *, mode: int = 0o755) -> str:
    """The path, checked for its type and made, with `mode`, where the type says so. Raises VolumeFailure."""
    target = Path(path)
    if not target.is_absolute() or ".." in target.parts:
        raise VolumeFailure(f"hostPath {path!r} must be absolute and without '..'")
    try:
        if kind == "DirectoryOrCreate" and not target.exists():
            target.mkdir(parents=True)
            target.chmod(mode)
        elif kind == "FileOrCreate" and not target.exists():
            target.touch(mode=0o644)
    except OSError as error:
        raise VolumeFailure(f"hostPath {path!r} cannot be made: {error.strerror}") from error
    if not kind:
        if not target.exists():
            # as with bind mounts made by container runtimes: a missing source becomes a folder
            target.mkdir(mode=0o755, parents=True)
        return path
    check, complaint = _CHECKS[kind]
    try:
        found = target.stat().st_mode
    except OSError as error:
        raise VolumeFailure(f"hostPath type check failed: {path} {complaint}") from error
    if not check(found):
        raise VolumeFailure(f"hostPath type check failed: {path} {complaint}")
    return path
