"""Images in a file: OCI image layout tars out and in, and `docker save` archives in.

A layer that was made here has no blob; its tar is made again while it is written, and must have its digest.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from dure.core.json import Obj, dumps_sorted
from dure.images.archive import write_layer
from dure.images.content import JSON_LIMIT, parse_json
from dure.images.errors import ArchiveRefused, ImageNotFound
from dure.images.extract import extract_tar
from dure.images.kernel import open_in_root
from dure.images.model import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Descriptor, StoredImage
from dure.images.names import Name
from dure.images.reference import Reference, is_digest, parse_reference
from dure.images.store import ContentStore
from dure.images.unpack import decompressed, unpack_blob, unpack_stream

_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"
_CHUNK = 1 << 20
_BLOCK = 512

Write = Callable[[bytes], Any]


def export_image(content: ContentStore, name: Name, target: Path) -> int:
    """Write the image of this platform to `target`, all or nothing; the file's size. Raises ImageNotFound."""
    image = content.load(name.digest)
    if not content.is_complete(image):
        raise ImageNotFound(f"{name.reference} is not complete, it cannot be exported")
    scratch = target.with_name(f".{target.name}.part")
    try:
        with scratch.open("wb") as file:
            _write_layout(content, image, parse_reference(name.reference), file.write)
        scratch.rename(target)
    finally:
        scratch.unlink(missing_ok=True)
    return target.stat().st_size


def _write_layout(content: ContentStore, image: StoredImage, reference: Reference, write: Write) -> None:
    manifest = content.blobs.read(image.digest)
    entry = Descriptor(str(image.manifest.get("mediaType") or OCI_MANIFEST), image.digest, len(manifest)).to_json()
    entry["annotations"] = {_NAME: reference.tag or reference.digest, _FULL_NAME: str(reference)}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    _add(write, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    _add(write, "index.json", dumps_sorted(index))
    _add(write, _blob_path(image.digest), manifest)
    _add(write, _blob_path(image.id), content.blobs.read(image.id))
    for layer, diff_id in dict(zip(image.layers, image.diff_ids, strict=True)).items():
        _add_layer(content, write, layer, diff_id)
    write(b"\0" * (2 * _BLOCK))


def _add_layer(content: ContentStore, write: Write, layer: Descriptor, diff_id: str) -> None:
    write(_header(_blob_path(layer.digest), layer.size))
    if content.blobs.has(layer.digest):
        with content.blobs.path(layer.digest).open("rb") as file:
            while chunk := file.read(_CHUNK):
                write(chunk)
    elif layer.digest == diff_id:
        hasher = hashlib.sha256()

        def both(data: bytes) -> None:
            hasher.update(data)
            write(data)

        write_layer(content.layers.path(diff_id), both)
        if "sha256:" + hasher.hexdigest() != diff_id:
            raise ArchiveRefused(f"layer {diff_id} was changed on the disk, it cannot be exported")
    else:
        raise ImageNotFound(f"the compressed layer {layer.digest} is not here any more: pull the image again")
    write(b"\0" * (-layer.size % _BLOCK))


def _add(write: Write, name: str, data: bytes) -> None:
    write(_header(name, len(data)))
    write(data + b"\0" * (-len(data) % _BLOCK))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def import_images(content: ContentStore, source: Path, name: str = "") -> list[Reference]:
    """Read an archive; its images under their own names, or `name` for a single one. Raises ArchiveRefused."""
    with content.layers.scratch() as scratch, source.open("rb") as file:
        fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            extract_tar(decompressed(file), fd, whiteouts=False)
            archive = _Archive(content, fd)
            images = archive.oci() if archive.has("index.json") else archive.docker()
        finally:
            os.close(fd)
    if not images:
        raise ArchiveRefused(f"{source}: there is no image in it")
    if name:
        images = [(parse_reference(name), digest) for _, digest in images[:1]]
    named = [(reference, digest) for reference, digest in images if reference is not None]
    if not named:
        raise ArchiveRefused(f"{source}: its image has no name: give one")
    for reference, digest in named:
        content.names.set(str(reference), digest, "import")
    return [reference for reference, _ in named]


Found = list[tuple[Reference | None, str]]


class _Archive:
    """The unpacked archive at `fd`; its files are opened inside it only."""

    def __init__(self, content: ContentStore, fd: int) -> None:
        self._content = content
        self._fd = fd

    def has(self, path: str) -> bool:
        try:
            os.close(open_in_root(self._fd, path, os.O_PATH))
        except OSError:
            return False
        return True

    def _open(self, path: str) -> IO[bytes]:
        try:
            return os.fdopen(open_in_root(self._fd, path, os.O_RDONLY), "rb")
        except OSError as error:
            raise ArchiveRefused(f"the archive has no {path}: {error.strerror}") from error

    def _read(self, path: str) -> bytes:
        with self._open(path) as file:
            return file.read(JSON_LIMIT + 1)

    def oci(self) -> Found:
        index = parse_json(self._read("index.json"), "index.json")
        found: Found = []
        for entry in index.get("manifests") or ():
            annotations = entry.get("annotations") or {}
            digest = str(entry.get("digest"))
            self._take_image(digest)
            found.append((_name_of(annotations), digest))
        return found

    def _take_image(self, digest: str) -> None:
        self._take_blob(digest)
        body = self._content.blobs.read_json(digest)
        if "manifests" in body:
            for entry in body["manifests"]:
                inner = str(entry.get("digest"))
                if is_digest(inner) and self.has(_blob_path(inner)):
                    self._take_image(inner)
            return
        self._take_blob(str((body.get("config") or {}).get("digest")))
        image = self._content.load(digest)
        for layer, diff_id in zip(image.layers, image.diff_ids, strict=True):
            if self._content.layers.get(diff_id) is not None:
                continue
            self._take_blob(layer.digest)
            unpack_blob(self._content, layer.digest, diff_id)

    def _take_blob(self, digest: str) -> None:
        if self._content.blobs.has(digest):  # also refuses what is no digest
            return
        with self._open(_blob_path(digest)) as file, self._content.blobs.writing(digest) as writer:
            while chunk := file.read(_CHUNK):
                writer.write(chunk)

    def docker(self) -> Found:
        """The older form: manifest.json names a config and the layers' tars."""
        entries = parse_json(b'{"all":' + self._read("manifest.json") + b"}", "manifest.json")["all"]
        found: Found = []
        for entry in entries if isinstance(entries, list) else ():
            digest = self._take_docker_image(str(entry.get("Config")), entry.get("Layers") or ())
            names = entry.get("RepoTags") or [None]
            found += [(parse_reference(name) if name else None, digest) for name in names]
        return found

    def _take_docker_image(self, config_path: str, layer_paths: Sequence[str]) -> str:
        data = self._read(config_path)
        config = parse_json(data, config_path)
        diff_ids = [str(diff_id) for diff_id in (config.get("rootfs") or {}).get("diff_ids") or ()]
        if len(diff_ids) != len(layer_paths):
            raise ArchiveRefused(f"{config_path}: {len(layer_paths)} layers but {len(diff_ids)} diff ids")
        layers: list[Obj] = []
        for path, diff_id in zip(layer_paths, diff_ids, strict=True):
            layer = self._content.layers.get(diff_id)
            if layer is None:
                with self._open(str(path)) as file:
                    layer = unpack_stream(self._content, decompressed(file), diff_id)
            layers.append(Descriptor(OCI_LAYER, diff_id, layer.size).to_json())
        manifest: Obj = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor(OCI_CONFIG, self._content.blobs.put(data), len(data)).to_json(),
            "layers": layers,
        }
        return self._content.blobs.put_json(manifest, OCI_MANIFEST).digest


def _name_of(annotations: Obj) -> Reference | None:
    """A full name; the tag alone names nothing."""
    for key in (_FULL_NAME, _NAME):
        text = str(annotations.get(key) or "")
        if "/" in text or (key == _FULL_NAME and text) or ":" in text:
            return parse_reference(text)
    return None
