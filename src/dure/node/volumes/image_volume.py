"""image volumes: the files of an OCI image, mounted for a pod to read."""

from __future__ import annotations

import hashlib

from dure.core.clock import Clock
from dure.core.json import Obj
from dure.node.pods.credentials import pull_credentials
from dure.node.pods.ports import VolumeFailure
from dure.node.pods.pulling import obtain
from dure.node.ports import ImageFailure, ImageService
from dure.node.references import References


async def mount_image(images: ImageService, pod: Obj, volume: Obj, references: References, clock: Clock) -> str:
    """The path of the image's tree. Raises VolumeFailure."""
    source = volume["image"]
    wanted = {"image": source.get("reference", ""), "imagePullPolicy": source.get("pullPolicy")}
    try:
        image = await obtain(images, wanted, await pull_credentials(pod, references), _silent, clock)
        return await images.mount(image, image_mount_id(pod, volume))
    except ImageFailure as error:
        raise VolumeFailure(f"{error.reason}: {error}") from error


def image_mount_id(pod: Obj, volume: Obj) -> str:
    """In the form of a container id, the same each time."""
    return hashlib.sha256(f"{pod['metadata']['uid']}/{volume['name']}".encode()).hexdigest()


def _silent(kind: str, reason: str, message: str) -> None:
    """What goes wrong is told by the FailedMount event."""
