"""A layer's blob, however compressed, into an unpacked layer, its diffID verified on the way."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
from pathlib import Path
from typing import IO, cast

import zstandard

from dure.images.errors import ArchiveRefused
from dure.images.extract import Limits, extract_layer
from dure.images.layers import Layer
from dure.images.store import ContentStore

_CHUNK = 1 << 20
_MOST_BYTES = 64 << 30
_SHARE_OF_FREE = 0.9


class HashingReader(io.RawIOBase):
    """Passes a stream through and hashes what went by."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hasher = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._hasher.update(data)
        self.size += len(data)
        return data

    def drain(self) -> None:
        """What stands behind the tar's end counts too."""
        while self.read(_CHUNK):
            pass

    @property
    def digest(self) -> str:
        return "sha256:" + self._hasher.hexdigest()


def decompressed(file: IO[bytes]) -> IO[bytes]:
    """By the first bytes: gzip, zstd, or as it is. Raises ArchiveRefused for what OCI does not know."""
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if magic == b"\x28\xb5\x2f\xfd":
        return cast(
            IO[bytes], zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file, read_across_frames=True)
        )
    if magic.startswith((b"BZh", b"\xfd7zX")):
        raise ArchiveRefused("layer refused: compressed neither with gzip nor with zstd")
    return file


def unpack_blob(content: ContentStore, digest: str, diff_id: str) -> Layer:
    """Raises ArchiveRefused; then nothing of the layer is left."""
    with content.blobs.path(digest).open("rb") as file:
        return unpack_stream(content, decompressed(file), diff_id)


def unpack_stream(content: ContentStore, stream: IO[bytes], diff_id: str) -> Layer:
    """The uncompressed tar into the layer `diff_id`. Raises ArchiveRefused."""

    def extract(folder: Path) -> tuple[str, int]:
        reader = HashingReader(stream)
        free = int(shutil.disk_usage(folder).free * _SHARE_OF_FREE)
        extract_layer(cast(IO[bytes], reader), folder, Limits(bytes=min(_MOST_BYTES, free)))
        try:
            reader.drain()
        except (OSError, EOFError, zstandard.ZstdError) as error:
            raise ArchiveRefused(f"layer refused: broken archive: {error}") from error
        return reader.digest, reader.size

    return content.layers.unpack(extract, diff_id)
