"""Images as OCI describes them: descriptors, manifests, configs; and the form a node reads.

Follows the OCI image specification 1.1 and Docker's image manifest v2 schema 2.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dure.core.json import Obj

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)

Progress = Callable[[str], None]
"""Told one line for each thing that begins or ends."""


def silent(message: str) -> None:
    """The Progress of whoever does not listen."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image on this machine. `id` is the digest of its config, `digest` that of its manifest."""

    id: str
    reference: str
    digest: str = ""
    size: int = 0
    stand_in: bool = False
    """A local image that answers to a public name because the user allowed it."""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""
    stop_signal: str = "SIGTERM"
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a blob is, how it is called and how long it is."""

    media_type: str
    digest: str
    size: int

    def to_json(self) -> Obj:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Descriptor:
        return Descriptor(str(data.get("mediaType", "")), str(data["digest"]), int(data.get("size", 0)))


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A manifest and its config, both decoded."""

    digest: str
    manifest: Obj
    config: Obj
    descriptor: Descriptor = field(default=Descriptor("", "", 0))

    @property
    def id(self) -> str:
        return str(self.manifest["config"]["digest"])

    @property
    def layers(self) -> list[Descriptor]:
        return [Descriptor.from_json(layer) for layer in self.manifest["layers"]]

    @property
    def diff_ids(self) -> list[str]:
        return [str(diff_id) for diff_id in (self.config.get("rootfs") or {}).get("diff_ids") or ()]

    def as_image(self, reference: str, *, size: int, stand_in: bool) -> Image:
        run = self.config.get("config") or {}
        return Image(
            id=self.id,
            reference=reference,
            digest=self.digest,
            size=size,
            stand_in=stand_in,
            env=tuple(run.get("Env") or ()),
            entrypoint=tuple(run.get("Entrypoint") or ()),
            cmd=tuple(run.get("Cmd") or ()),
            working_dir=run.get("WorkingDir") or "/",
            user=run.get("User") or "",
            stop_signal=run.get("StopSignal") or "SIGTERM",
            volumes=tuple(sorted(run.get("Volumes") or ())),
        )


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def host_architecture() -> str:
    """This machine's architecture by its Go name."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def choose_platform(index: Obj) -> Descriptor | None:
    """The entry of an index that runs here: linux on this architecture, the plain variant first."""
    fitting = []
    for entry in index.get("manifests") or ():
        wanted = entry.get("platform") or {}
        if wanted.get("os", "linux") == "linux" and wanted.get("architecture") == host_architecture():
            fitting.append((wanted.get("variant") not in (None, "", "v8", "v7"), entry))
    if not fitting and len(index.get("manifests") or ()) == 1 and not index["manifests"][0].get("platform"):
        return Descriptor.from_json(index["manifests"][0])
    return Descriptor.from_json(min(fitting, key=lambda pair: pair[0])[1]) if fitting else None
