"""Puts a set of files into a volume all at once, so that a reader sees the old set or the new one, never a mixture.

The layout is kubelet's AtomicWriter's: `name -> ..data/name`, `..data -> ..2026_01_31_09_30_00.123456789`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dure.node.volumes.errors import BadPath

DATA = "..data"
SCRATCH = "..data_tmp"


@dataclass(frozen=True, slots=True)
class PayloadFile:
    data: bytes
    mode: int
    uid: int = -1
    gid: int = -1
    """-1 leaves the owner as it is made."""


Payload = Mapping[str, PayloadFile]
"""By relative path."""


def checked_path(path: str) -> str:
    """`path` if it stays inside and does not meddle with the layout. Raises BadPath."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or parts[0].startswith("..") or "" in parts or "\0" in path:
        raise BadPath(f"{path!r} is no path for a file in a volume")
    return path


def write_payload(root: Path, payload: Payload, stamp: str, *, gid: int = -1) -> bool:
    """Make `root` show exactly `payload`; True when something changed. `stamp` names the new set, unique in `root`."""
    for path in payload:
        checked_path(path)
    current = _current(root)
    if current is not None and _is_same(root / current, payload):
        _link_names(root, payload)
        return False
    _write_set(root / stamp, payload, gid)
    scratch = root / SCRATCH
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(stamp)
    scratch.rename(root / DATA)
    _link_names(root, payload)
    _drop_names(root, payload)
    for old in root.iterdir():
        if old.name.startswith("..") and old.name not in (DATA, stamp) and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
    return True


def _current(root: Path) -> str | None:
    try:
        return str((root / DATA).readlink())
    except OSError:
        return None


def _is_same(folder: Path, payload: Payload) -> bool:
    found = {str(Path(base, name).relative_to(folder)) for base, _, names in os.walk(folder) for name in names}
    if found != set(payload):
        return False
    return all(_same_file(folder / path, entry) for path, entry in payload.items())


def _same_file(path: Path, entry: PayloadFile) -> bool:
    return path.stat().st_mode & 0o777 == entry.mode & 0o777 and path.read_bytes() == entry.data


def _write_set(folder: Path, payload: Payload, gid: int) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    for path, entry in payload.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(entry.data)
        if entry.uid >= 0 or entry.gid >= 0 or gid >= 0:
            os.chown(target, entry.uid, entry.gid if entry.gid >= 0 else gid)
        target.chmod(entry.mode)


def _link_names(root: Path, payload: Payload) -> None:
    for name in {path.split("/", 1)[0] for path in payload}:
        link = root / name
        if not link.is_symlink():
            link.symlink_to(f"{DATA}/{name}")


def _drop_names(root: Path, payload: Payload) -> None:
    wanted = {path.split("/", 1)[0] for path in payload}
    for entry in root.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted and entry.is_symlink():
            entry.unlink()
