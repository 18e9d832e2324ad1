"""subPath: the part of a volume a container sees, fixed by descriptor so that no link can lead it out of the volume."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from dure.node.confined import make_directories, opened
from dure.node.pods.ports import VolumeFailure
from dure.node.volumes.kernel import Mounter

MISSING_MODE = 0o750


def checked_subpath(path: str) -> str:
    """Relative and without `..`. Raises VolumeFailure."""
    if path.startswith("/"):
        raise VolumeFailure(f'error SubPath "{path}" must not be an absolute path')
    if ".." in path.split("/"):
        raise VolumeFailure(f'error SubPath "{path}" must not contain ".."')
    return path


def fix_subpath(root: str, path: str, anchor: Path, mounter: Mounter, *, read_only: bool) -> str:
    """The path to bind into the container: `anchor`, itself bound to what `path` was when it was opened.

    A missing folder is made unless the volume is read-only. Raises VolumeFailure.
    """
    try:
        if not read_only:
            _make_missing(root, path)
        with opened(root, path, os.O_PATH) as descriptor:
            source = f"/proc/self/fd/{descriptor}"
            if not mounter.real:
                return str(Path(source).readlink())
            _make_anchor(anchor, is_folder=Path(source).is_dir())
            if not os.path.ismount(anchor):
                mounter.bind(source, anchor)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise VolumeFailure(f'subPath "{path}" leads out of its volume') from error
        raise VolumeFailure(f'failed to prepare subPath "{path}": {error.strerror}') from error
    return str(anchor)


def _make_missing(root: str, path: str) -> None:
    try:
        with opened(root, path, os.O_PATH):
            return
    except FileNotFoundError:
        make_directories(root, path, MISSING_MODE)


def _make_anchor(anchor: Path, *, is_folder: bool) -> None:
    if is_folder:
        anchor.mkdir(parents=True, exist_ok=True)
    else:
        anchor.parent.mkdir(parents=True, exist_ok=True)
        anchor.touch()
