"""The images of a machine as its nodes and its command line use them: find, pull, mount, list, remove.

`ImageStore` has the shape of the node's ImageService port. Names made on this machine (builds, imports, bases)
need no registry; everything else is pulled. Stand-ins answer to public names only where that was allowed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dure.images.bases import BaseMaker
from dure.images.builder.build import Builder, BuildRequest
from dure.images.errors import BuildFailed, ImageNotFound, PullFailed
from dure.images.model import Image, Progress, StoredImage, silent
from dure.images.reference import Reference, parse_reference
from dure.images.stand_ins import base_of, base_reference, release_codename, stand_in_for
from dure.images.store import ContentStore


class ImageStore:
    """Images below `<home>/images`. Open with `open_store`; safe to share between tasks and processes."""

    def __init__(self, content: ContentStore, *, stand_ins: bool = False) -> None:
        self.content = content
        self.stand_ins = stand_ins
        self._bases = BaseMaker(content)

    async def find(self, reference: str) -> Image | None:
        """The image if it is present, by its own name or as an allowed stand-in. Raises InvalidImageName."""
        wanted = parse_reference(reference)
        stored = self.content.find(wanted)
        if stored is not None:
            return self._image(stored, wanted)
        if self.stand_ins and (base := stand_in_for(wanted)):
            stored = self.content.find(base_reference(base))
            if stored is not None:
                return self._image(stored, wanted, stand_in=True)
        return None

    def _image(self, stored: StoredImage, reference: Reference, *, stand_in: bool = False) -> Image:
        return stored.as_image(str(reference), size=self.content.size(stored), stand_in=stand_in)

    async def pull(
        self, reference: str, credentials: Sequence[Mapping[str, str]] = (), *, progress: Progress = silent
    ) -> Image:
        """Fetch it; a name made on this machine and an allowed stand-in need no registry. Raises ImageError."""
        wanted = parse_reference(reference)
        name = self.content.names.get(str(wanted))
        if name is not None and name.origin != "pull" and (stored := self.content.find(wanted)) is not None:
            return self._image(stored, wanted)
        if base := base_of(wanted):
            return self._image(await self._bases.make(base, progress), wanted)
        if self.stand_ins and (base := stand_in_for(wanted)):
            return self._image(await self._bases.make(base, progress), wanted, stand_in=True)
        raise PullFailed(f'failed to pull and unpack image "{wanted}": no registry client yet')

    async def mount(self, image: Image, container_id: str) -> str:
        """The path of a writable root file system for the container. Safe to repeat."""
        stored = self.content.load(image.digest)
        async with self.content.in_use():
            if not self.content.is_complete(stored):
                raise ImageNotFound(f'image "{image.reference}" is no longer present')
            path = await asyncio.to_thread(self.content.roots.mount, container_id, stored.id, stored.diff_ids)
        return str(path)

    async def unmount(self, container_id: str) -> None:
        """Unmount and forget what the container wrote. Safe to repeat."""
        await asyncio.to_thread(self.content.roots.unmount, container_id)

    async def make_base(self, name: str, progress: Progress = silent) -> Image:
        """A base image made from packages, if it is not here yet. Raises BaseFailed."""
        stored = await self._bases.make(name, progress)
        return self._image(stored, base_reference(name))

    async def build(
        self,
        context: Path | str,
        *,
        tag: str = "",
        dockerfile: Path | str = "",
        target: str = "",
        arguments: Mapping[str, str] | None = None,
        use_cache: bool = True,
        progress: Progress = silent,
    ) -> Image:
        """Build a folder's Dockerfile and name the result `tag`. Raises DockerfileError, BuildFailed, ImageError."""
        if os.geteuid() != 0:
            raise BuildFailed("building an image needs root: it mounts overlays and runs containers")
        reference = parse_reference(tag) if tag else None
        folder = Path(context).absolute()
        file = folder / (dockerfile or "Dockerfile")
        request = BuildRequest(folder, file, target, arguments or {}, use_cache)

        async def resolve(name: str) -> StoredImage:
            image = await self.find(name) or await self.pull(name, progress=progress)
            if image.stand_in:
                progress(f"  {name}: the local stand-in made from {release_codename()} packages")
            return self.content.load(image.digest)

        async with self.content.in_use():
            state = await Builder(self.content, self._bases.packages, request, resolve, progress).build()
            stored = self.content.commit(
                reference, state.run_config(), state.layers, origin="build", history=state.history
            )
        return stored.as_image(str(reference or stored.id), size=self.content.size(stored), stand_in=False)


def open_store(home: Path | str, *, stand_ins: bool = False) -> ImageStore:
    """The image store of a data folder. Raises ImageError if the folder cannot be used."""
    content = ContentStore(Path(home) / "images")
    content.prepare()
    return ImageStore(content, stand_ins=stand_ins)
