"""The images of a machine as its nodes and its command line use them: find, pull, mount, list, remove.

`ImageStore` has the shape of the node's ImageService port. Names made on this machine (builds, imports, bases)
need no registry; everything else is pulled. Stand-ins answer to public names only where that was allowed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

from dure.core.json import Obj
from dure.images.bases import BaseMaker
from dure.images.builder.build import Builder, BuildRequest
from dure.images.errors import BuildFailed, ImageNotFound, PullFailed
from dure.images.inventory import (
    ListedImage,
    collect,
    find_name,
    forget_old_builds,
    inspect_image,
    list_images,
    recover,
    remove_image,
    sweep_containers,
)
from dure.images.layout import export_image, import_images
from dure.images.model import Image, Progress, StoredImage, silent
from dure.images.reference import Reference, parse_reference
from dure.images.registry.endpoints import NO_SETTINGS, Registries
from dure.images.registry.puller import Puller
from dure.images.stand_ins import LOCAL_DOMAIN, base_of, base_reference, release_codename, stand_in_for
from dure.images.store import ContentStore


class ImageStore:
    """Images below `<home>/images`. Open with `open_store`; safe to share between tasks and processes."""

    def __init__(self, content: ContentStore, *, stand_ins: bool = False, registries: Registries = NO_SETTINGS) -> None:
        self.content = content
        self.stand_ins = stand_ins
        self._bases = BaseMaker(content)
        self._puller = Puller(content, registries)
        self._pulling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

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
        image = stored.as_image(str(reference), size=self.content.size(stored), stand_in=stand_in)
        name = self.content.names.get(str(reference))
        # of an image for several platforms, people know the digest of the index
        return replace(image, digest=name.digest) if name is not None and not stand_in else image

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
        if wanted.domain == LOCAL_DOMAIN:
            raise PullFailed(
                f'failed to pull image "{wanted}": {LOCAL_DOMAIN} is this machine, and it is not here: build it'
            )
        async with self._pulling.setdefault(str(wanted), asyncio.Lock()), self.content.in_use():
            # whoever waited asks the registry again, with its own credentials, but finds the layers here
            return self._image(await self._puller.pull(wanted, credentials, progress), wanted)

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

    async def tag(self, source: str, target: str) -> Image:
        """Give an image that is here another name. Raises ImageNotFound, InvalidImageName."""
        found = await self.find(source)
        if found is None:
            raise ImageNotFound(f"no image {source} is here")
        wanted = parse_reference(target)
        self.content.names.set(str(wanted), found.digest, "build")
        return replace(found, reference=str(wanted), stand_in=False)

    async def make_stand_ins(self, references: Iterable[str], progress: Progress = silent) -> None:
        """Make all bases at once that stand in for any of these names; nothing where they may not. Raises BaseFailed.

        Making them together takes half the time of making each when it is first wanted.
        """
        parsed = [parse_reference(text) for text in references]
        wanted = {stand_in_for(reference) for reference in parsed if self.content.find(reference) is None} - {""}
        if self.stand_ins:
            await self._bases.make_all(sorted(wanted), progress)

    def list(self) -> list[ListedImage]:
        """All named images."""
        return list_images(self.content)

    def inspect(self, reference: str) -> Obj:
        """Everything known of an image, by reference or id. Raises ImageNotFound."""
        return inspect_image(self.content, reference)

    async def remove(self, reference: str) -> tuple[str, int]:
        """Forget a name and what only it needed: the reference and the bytes freed. Raises ImageNotFound."""
        return await asyncio.to_thread(remove_image, self.content, reference)

    async def prune(self, *, drop_build_cache: bool = False, drop_old_builds: bool = False) -> int:
        """Remove what nothing refers to; the bytes freed. Raises StoreBusy during a build or a pull.

        `drop_old_builds` also forgets what `dure deploy` built before and no container uses: no way back to it then.
        """
        if drop_old_builds:
            forget_old_builds(self.content)
        return await asyncio.to_thread(collect, self.content, drop_build_cache=drop_build_cache)

    async def export(self, reference: str, target: Path | str) -> int:
        """Save as an OCI image layout in a tar; its size. Raises ImageNotFound."""
        async with self.content.in_use():
            name = find_name(self.content, reference)
            return await asyncio.to_thread(export_image, self.content, name, Path(target))

    async def import_archive(self, source: Path | str, name: str = "") -> Sequence[Image]:
        """Read an OCI layout or `docker save` tar. Raises ArchiveRefused."""
        async with self.content.in_use():
            references = await asyncio.to_thread(import_images, self.content, Path(source), name)
        images = [await self.find(str(reference)) for reference in references]
        return [image for image in images if image is not None]

    async def recover(self) -> None:
        """At the start of the agent: clear what a crash left half-made, settle what was made in this boot."""
        await asyncio.to_thread(recover, self.content)
        await self.settle()

    async def settle(self) -> None:
        """Make sure that new layers survive a power cut; without it they are made or pulled again."""
        await asyncio.to_thread(self.content.layers.settle)

    async def sweep(self, alive: Collection[str]) -> Sequence[str]:
        """Forget the root file systems of containers other than these; their ids."""
        return await asyncio.to_thread(sweep_containers, self.content, alive)

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


def open_store(home: Path | str, *, stand_ins: bool = False, registries: Registries = NO_SETTINGS) -> ImageStore:
    """The image store of a data folder. Raises ImageError if the folder cannot be used."""
    content = ContentStore(Path(home) / "images")
    content.prepare()
    return ImageStore(content, stand_ins=stand_ins, registries=registries)
