"""The content store in the shape a node wants: its own Image, its own failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from dure.images import model
from dure.images.errors import ImageError
from dure.images.service import ImageStore
from dure.node.ports import Image, ImageFailure


class NodeImages:
    """`ImageService` of the node's ports over an `ImageStore`."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._seen: dict[str, model.Image] = {}
        """By id; bounded by the images of this machine."""

    async def find(self, reference: str) -> Image | None:
        try:
            found = await self._store.find(reference)
        except ImageError as error:
            raise ImageFailure(str(error), error.reason) from error
        return self._taken(found) if found else None

    async def pull(self, reference: str, credentials: Sequence[Mapping[str, str]] = ()) -> Image:
        try:
            return self._taken(await self._store.pull(reference, credentials))
        except ImageError as error:
            raise ImageFailure(str(error), error.reason) from error

    async def mount(self, image: Image, container_id: str) -> str:
        try:
            return await self._store.mount(self._seen[image.id], container_id)
        except ImageError as error:
            raise ImageFailure(str(error), error.reason) from error

    async def unmount(self, container_id: str) -> None:
        await self._store.unmount(container_id)

    def _taken(self, image: model.Image) -> Image:
        self._seen[image.id] = image
        return Image(**asdict(image))
