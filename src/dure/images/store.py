"""The content store of one data folder: blobs, names and layers joined into images.

An image counts as present when its manifest, its config and every unpacked layer are here. A layer made on this
machine has no blob: its descriptor names the uncompressed tar, which `archive` can make again at any time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dure.core.json import Obj
from dure.images.content import BlobStore
from dure.images.errors import ArchiveRefused, ImageError, ImageNotFound
from dure.images.layers import Layers
from dure.images.locks import locked
from dure.images.model import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    StoredImage,
    choose_platform,
    host_architecture,
)
from dure.images.names import NameIndex, Origin
from dure.images.reference import Reference
from dure.images.rootfs import RootFileSystems


class ContentStore:
    """What is kept below `root`; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = BlobStore(root)
        self.layers = Layers(root)
        self.names = NameIndex(root)
        self.roots = RootFileSystems(root)
        self.use_lock = root / "use.lock"
        self._decoded: dict[str, StoredImage] = {}  # bounded by the manifests in the store

    def prepare(self) -> None:
        """Make the folders. Raises ImageError."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)  # layers hold set-id programs: no other user may reach them
            self.blobs.prepare()
            self.layers.prepare()
            self.roots.prepare()
            (self.root / "cache").mkdir(exist_ok=True)
        except OSError as error:
            raise ImageError(f"the image store {self.root} cannot be used: {error.strerror}") from error

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        """Nothing unreferenced is removed by anyone during the block."""
        async with locked(self.use_lock, shared=True):
            yield

    def load(self, digest: str) -> StoredImage:
        """The image a manifest or index digest means on this machine. Raises ImageNotFound, ArchiveRefused."""
        if (known := self._decoded.get(digest)) is not None and self.blobs.has(known.digest):
            return known
        manifest = self.blobs.read_json(digest)
        if "manifests" in manifest:
            chosen = choose_platform(manifest)
            if chosen is None:
                raise ImageNotFound(f"no match for platform linux/{host_architecture()} in {digest}")
            image = self.load(chosen.digest)
        else:
            image = self._decode(digest, manifest)
        self._decoded[digest] = image
        return image

    def _decode(self, digest: str, manifest: Obj) -> StoredImage:
        try:
            config = self.blobs.read_json(str(manifest["config"]["digest"]))
            descriptor = Descriptor(str(manifest.get("mediaType") or OCI_MANIFEST), digest, self.blobs.size(digest))
            image = StoredImage(digest, manifest, config, descriptor)
            if len(image.layers) != len(image.diff_ids):
                raise ArchiveRefused(f"{digest}: {len(image.layers)} layers but {len(image.diff_ids)} diff ids")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArchiveRefused(f"{digest} is not an image manifest: {error!r}") from error
        return image

    def find(self, reference: Reference) -> StoredImage | None:
        """The image of that very name, if all of it is here."""
        name = self.names.get(str(reference))
        if name is None:
            return None
        try:
            image = self.load(name.digest)
        except (ImageNotFound, ArchiveRefused):
            return None
        return image if self.is_complete(image) else None

    def is_complete(self, image: StoredImage) -> bool:
        return all(self.layers.get(diff_id) is not None for diff_id in image.diff_ids)

    def size(self, image: StoredImage) -> int:
        """Of its uncompressed layers and its config, in bytes."""
        layers = [self.layers.get(diff_id) for diff_id in image.diff_ids]
        return self.blobs.size(image.id) + sum(layer.size for layer in layers if layer is not None)

    def commit(
        self,
        reference: Reference | None,
        run_config: Mapping[str, Any],
        diff_ids: Sequence[str],
        *,
        origin: Origin,
        history: Sequence[Obj] = (),
    ) -> StoredImage:
        """Make an image of layers that are here; equal input gives an equal image. Named if a reference is given."""
        config = {
            "architecture": host_architecture(),
            "os": "linux",
            "config": dict(run_config),
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            "history": list(history),
        }
        layers = []
        for diff_id in diff_ids:
            layer = self.layers.get(diff_id)
            if layer is None:
                raise ImageNotFound(f"layer {diff_id} is not in the store")
            layers.append(Descriptor(OCI_LAYER, diff_id, layer.size).to_json())
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blobs.put_json(config, OCI_CONFIG).to_json(),
            "layers": layers,
        }
        digest = self.blobs.put_json(manifest, OCI_MANIFEST).digest
        if reference is not None:
            self.names.set(str(reference), digest, origin)
        return self.load(digest)
