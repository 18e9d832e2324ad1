"""Blobs by their sha256 digest, one file each; the digest is verified before a blob gets its name.

`<root>/blobs/sha256/<hex>`, written beside as a temporary file, synced, renamed: whoever sees a blob sees all of it.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dure.core.json import JSONDecodeError, Obj, dumps_sorted, loads
from dure.images.errors import ArchiveRefused, ImageNotFound
from dure.images.model import Descriptor
from dure.images.reference import is_digest

JSON_LIMIT = 8 << 20
"""No manifest or config is longer."""


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class BlobWriter:
    """One blob being received; `commit` keeps it, leaving the block without it drops it."""

    def __init__(self, file: Any, hasher: Any) -> None:
        self._file = file
        self._hasher = hasher
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hasher.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        return "sha256:" + str(self._hasher.hexdigest())


class BlobStore:
    """Content by digest under `root`. Safe to use from several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / "blobs" / "sha256"
        self._scratch = root / "tmp"

    def prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._scratch.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        if not is_digest(digest):
            raise ArchiveRefused(f"{digest!r} is not a sha256 digest")
        return self._folder / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        """In bytes, 0 when the blob is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, digest: str) -> bytes:
        """A small blob. Raises ImageNotFound."""
        try:
            return self.path(digest).read_bytes()
        except FileNotFoundError:
            raise ImageNotFound(f"content {digest} is not in the store") from None

    def read_json(self, digest: str) -> Obj:
        data = self.read(digest)
        return parse_json(data, digest)

    def put(self, data: bytes) -> str:
        """Keep a small blob; its digest."""
        digest = digest_of(data)
        if not self.has(digest):
            with self.writing(digest) as writer:
                writer.write(data)
        return digest

    def put_json(self, value: Obj, media_type: str) -> Descriptor:
        data = dumps_sorted(value)
        return Descriptor(media_type, self.put(data), len(data))

    @contextmanager
    def writing(self, expect: str = "") -> Iterator[BlobWriter]:
        """Write a blob; on leaving, it is kept if its digest is `expect` (or nothing was expected).

        Raises ArchiveRefused on any other digest, and then keeps nothing.
        """
        scratch = self._scratch / f"blob-{uuid.uuid4().hex}"
        try:
            with scratch.open("xb") as file:
                writer = BlobWriter(file, hashlib.sha256())
                yield writer
                if expect and writer.digest != expect:
                    raise ArchiveRefused(f"content has digest {writer.digest}, expected {expect}")
                file.flush()
                os.fsync(file.fileno())
            scratch.rename(self.path(writer.digest))
        finally:
            scratch.unlink(missing_ok=True)

    def delete(self, digest: str) -> int:
        """Bytes given back."""
        size = self.size(digest)
        self.path(digest).unlink(missing_ok=True)
        return size

    def digests(self) -> list[str]:
        return ["sha256:" + entry.name for entry in self._folder.iterdir()]


def parse_json(data: bytes, what: str) -> Obj:
    """A JSON object. Raises ArchiveRefused."""
    if len(data) > JSON_LIMIT:
        raise ArchiveRefused(f"{what}: {len(data)} bytes of JSON, more than {JSON_LIMIT}")
    try:
        value = loads(data)
    except JSONDecodeError as error:
        raise ArchiveRefused(f"{what}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ArchiveRefused(f"{what}: not a JSON object")
    return value
