"""Unpacked layers, one folder for each diffID, shared by all images and used as overlay lower folders.

A layer is made beside and renamed into place. Its data is not synced at once (that is what makes unpacking
slow): the record next to it holds the boot it was made in until `settle` has synced it, and a layer of an
earlier boot that was never settled is not trusted but removed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from dure.core.json import JSONDecodeError, dumps_sorted, loads
from dure.images.archive import digest_layer
from dure.images.errors import ArchiveRefused
from dure.images.kernel import sync_file_system, unmount
from dure.images.locks import replace_file
from dure.images.reference import is_digest


@dataclass(frozen=True, slots=True)
class Layer:
    """`size` is the length of its uncompressed tar, whose sha256 is `diff_id`."""

    diff_id: str
    size: int
    boot: str
    """The boot in which it was made, "" once it is surely on the disk."""


class Layers:
    """The layers below `root`. Safe to use from several processes at once."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "layers"
        self._scratch = root / "tmp"
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._scratch.mkdir(parents=True, exist_ok=True)

    def path(self, diff_id: str) -> Path:
        if not is_digest(diff_id):
            raise ArchiveRefused(f"{diff_id!r} is not a sha256 digest")
        return self._folder / diff_id.removeprefix("sha256:")

    def get(self, diff_id: str) -> Layer | None:
        """The layer if it is here and whole."""
        folder = self.path(diff_id)
        if not folder.is_dir():
            return None
        layer = self._record(diff_id)
        if layer is None or layer.boot not in ("", self._boot):
            return None
        return layer

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder to make something in; what is left of it at the end is removed."""
        folder = self._scratch / f"layer-{uuid.uuid4().hex}"
        folder.mkdir(mode=0o755)
        try:
            yield folder
        finally:
            remove_tree(folder)

    def adopt(self, folder: Path, diff_id: str = "", size: int = 0) -> Layer:
        """Make the folder (on the same file system) a layer; without `diff_id` it is computed."""
        if not diff_id:
            diff_id, size = digest_layer(folder)
        layer = Layer(diff_id, size, self._boot)
        target = self.path(diff_id)
        if target.exists() and self.get(diff_id) is None:
            self.delete(diff_id)
        replace_file(self._record_path(diff_id), dumps_sorted(asdict(layer)))
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # somebody else made the same layer meanwhile: equal content, theirs stays
        return layer

    def unpack(self, extract: Callable[[Path], tuple[str, int]], expect: str) -> Layer:
        """Let `extract` fill a folder and tell the diffID and length it read; keep it if that is `expect`."""
        with self.scratch() as folder:
            diff_id, size = extract(folder)
            if diff_id != expect:
                raise ArchiveRefused(f"layer refused: its content has diffID {diff_id}, the image says {expect}")
            return self.adopt(folder, diff_id, size)

    def settle(self) -> None:
        """Sync, and mark every layer made in this boot as surely on the disk."""
        fresh = [layer for diff_id in self.diff_ids() if (layer := self.get(diff_id)) and layer.boot]
        if not fresh:
            return
        sync_file_system(self._folder)
        for layer in fresh:
            if self.path(layer.diff_id).is_dir():
                settled = Layer(layer.diff_id, layer.size, "")
                replace_file(self._record_path(layer.diff_id), dumps_sorted(asdict(settled)))

    def delete(self, diff_id: str) -> None:
        """Out of sight first, then removed."""
        doomed = self._scratch / f"gone-{uuid.uuid4().hex}"
        with suppress(FileNotFoundError):
            self.path(diff_id).rename(doomed)
        self._record_path(diff_id).unlink(missing_ok=True)
        remove_tree(doomed)

    def diff_ids(self) -> list[str]:
        digests = ["sha256:" + entry.name for entry in self._folder.iterdir() if entry.is_dir()]
        return [digest for digest in digests if is_digest(digest)]

    def _record_path(self, diff_id: str) -> Path:
        return self.path(diff_id).with_suffix(".json")

    def _record(self, diff_id: str) -> Layer | None:
        try:
            return Layer(**loads(self._record_path(diff_id).read_bytes()))
        except (FileNotFoundError, JSONDecodeError, TypeError):
            return None


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours with all that is in it; nothing if it is not there."""
    for mounted in mounts_below(folder):  # a tool that was killed may have left some: never delete through them
        unmount(mounted)
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        if folder.exists():
            raise


def mounts_below(folder: Path) -> list[str]:
    """Mount points at or below the folder, the innermost first."""
    text = os.fsencode(folder)
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        point = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
        if point == text or point.startswith(text + b"/"):
            found.append(os.fsdecode(point))
    return found[::-1]
