"""fsGroup: hand a volume's content to the pod's group, without following links."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def give_to_group(root: Path, gid: int, *, only_if_root_differs: bool = False) -> None:
    """Group `gid` may read and write, folders pass it on (set-group-id): as kubelet's SetVolumeOwnership."""
    if only_if_root_differs and _is_given(root, gid):
        return
    for base, _, files, descriptor in os.fwalk(root, topdown=False, follow_symlinks=False):
        for name in files:
            _give(name, gid, descriptor)
        _give(base, gid, None)


def give_folders_to_group(root: Path, gid: int) -> None:
    """Only `root` and the folders below it."""
    for base, _, _ in os.walk(root, followlinks=False):
        _give(base, gid, None)


def _is_given(root: Path, gid: int) -> bool:
    status = root.stat()
    return status.st_gid == gid and bool(status.st_mode & stat.S_ISGID)


def _give(name: str, gid: int, directory: int | None) -> None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    os.chown(name, -1, gid, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return
    extra = 0o660
    if stat.S_ISDIR(status.st_mode):
        extra |= stat.S_ISGID | 0o110
    os.chmod(name, stat.S_IMODE(status.st_mode) | extra, dir_fd=directory)
