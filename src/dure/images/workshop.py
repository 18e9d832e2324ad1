"""Where layers are made: a scratch overlay over given layers, whose upper folder becomes the next layer.

The overlay is mounted `volatile` where the kernel can: nothing in it is synced, for it is thrown away on any failure.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dure.core.aio import finish
from dure.images.errors import ImageError
from dure.images.kernel import unmount
from dure.images.layers import Layer, remove_tree
from dure.images.store import ContentStore


@dataclass(frozen=True, slots=True)
class Workspace:
    """A mounted root file system; what is written into `root` appears in `upper`."""

    folder: Path
    content: ContentStore

    @property
    def root(self) -> Path:
        return self.folder / "rootfs"

    @property
    def upper(self) -> Path:
        return self.folder / "upper"

    async def seal(self) -> Layer | None:
        """End the work and keep what was written as a layer; None if nothing was."""
        return await asyncio.to_thread(self._seal)

    def _seal(self) -> Layer | None:
        unmount(str(self.root))
        if not any(self.upper.iterdir()):
            return None
        return self.content.layers.adopt(self.upper)


@asynccontextmanager
async def open_workspace(content: ContentStore, diff_ids: Sequence[str]) -> AsyncIterator[Workspace]:
    """A workspace over the layers, lowest first; gone at the end of the block. Raises ImageError."""
    folder = content.root / "tmp" / f"work-{uuid.uuid4().hex}"
    folder.mkdir()
    workspace = Workspace(folder, content)
    try:
        await asyncio.to_thread(_mount, content, folder, diff_ids)
        yield workspace
    finally:
        await finish(asyncio.to_thread(_clear, folder), within=60)


def _mount(content: ContentStore, folder: Path, diff_ids: Sequence[str]) -> None:
    try:
        content.roots.mount_overlay(folder, diff_ids, options="volatile")
    except PermissionError as error:
        raise ImageError("mounting an image needs root") from error
    except OSError:
        try:
            content.roots.mount_overlay(folder, diff_ids)  # before Linux 5.10
        except OSError as error:
            raise ImageError(
                f"overlay mount in {content.root} failed: {error.strerror}; its file system must carry overlay folders"
            ) from error


def _clear(folder: Path) -> None:
    while unmount(str(folder / "rootfs")):
        pass
    remove_tree(folder)
