"""Gets a container's image by its pull policy, and says so in events worded as kubelet's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from dure.core.clock import Clock
from dure.core.json import Obj
from dure.node.ports import Image, ImageFailure, ImageService

STAND_IN_NOTE = " (local stand-in built from Debian packages)"


class Announce(Protocol):
    def __call__(self, kind: str, reason: str, message: str) -> None: ...


def pull_policy(container: Obj) -> str:
    """As given, else Always for `:latest` or no tag, IfNotPresent otherwise."""
    if policy := container.get("imagePullPolicy"):
        return str(policy)
    image = str(container.get("image", ""))
    last = image.rsplit("/", 1)[-1]
    if "@" in image or (":" in last and not last.endswith(":latest")):
        return "IfNotPresent"
    return "Always"


async def obtain(
    images: ImageService,
    container: Obj,
    credentials: Sequence[Mapping[str, str]],
    announce: Announce,
    clock: Clock,
) -> Image:
    """The image, present on this machine. Raises ImageFailure, told in events before."""
    reference, policy = str(container.get("image", "")), pull_policy(container)
    if not reference or any(char.isspace() for char in reference):
        raise _invalid(reference, announce)
    if policy != "Always":
        try:
            found = await images.find(reference)
        except ImageFailure as error:
            if error.reason == "InvalidImageName":
                raise _invalid(reference, announce) from error
            raise
        if found is not None:
            announce("Normal", "Pulled", _present(reference, found))
            return found
    if policy == "Never":
        message = f'Container image "{reference}" is not present with pull policy of Never'
        announce("Warning", "ErrImageNeverPull", message)
        raise ImageFailure(message, "ErrImageNeverPull")
    return await _pull(images, reference, credentials, announce, clock)


async def _pull(
    images: ImageService, reference: str, credentials: Sequence[Mapping[str, str]], announce: Announce, clock: Clock
) -> Image:
    announce("Normal", "Pulling", f'Pulling image "{reference}"')
    began = clock.time()
    try:
        image = await images.pull(reference, credentials)
    except ImageFailure as error:
        if error.reason == "InvalidImageName":
            raise _invalid(reference, announce) from error
        announce("Warning", "Failed", f'Failed to pull image "{reference}": {error}')
        announce("Warning", "Failed", f"Error: {error.reason}")
        raise
    took = _duration(clock.time() - began)
    text = f'Successfully pulled image "{reference}" in {took} ({took} including waiting)'
    announce("Normal", "Pulled", f"{text}. Image size: {image.size} bytes.{_origin(image)}")
    return image


def _present(reference: str, image: Image) -> str:
    return f'Container image "{reference}" already present on machine{_origin(image)}'


def _origin(image: Image) -> str:
    return STAND_IN_NOTE if image.stand_in else ""


def _invalid(reference: str, announce: Announce) -> ImageFailure:
    message = (
        f'Failed to apply default image tag "{reference}": couldn\'t parse image name "{reference}": '
        "invalid reference format"
    )
    announce("Warning", "InspectFailed", message)
    announce("Warning", "Failed", "Error: InvalidImageName")
    return ImageFailure(message, "InvalidImageName")


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.3f}s"
