"""Put files into an image's tree: the writing half of COPY and ADD. Every path is resolved inside that tree."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

import zstandard

from dure.images.builder.sources import Node, SourceTree
from dure.images.errors import BuildFailed
from dure.images.extract import extract_tar, make_folders
from dure.images.kernel import open_in_root

_CHUNK = 1 << 20
_TAR_MAGIC_AT = 257


class Destination:
    """One COPY's target in the tree at `root`. Open as a context manager. Raises BuildFailed and OSError."""

    def __init__(self, root: Path, target: str, owner: tuple[int, int] = (0, 0), mode: int | None = None) -> None:
        self._root = root
        self._parts = normal_parts(target)
        self._owner = owner
        self._mode = mode
        self._is_folder = target.endswith(("/", "/.")) or not self._parts
        self._fd = -1

    def __enter__(self) -> Destination:
        self._fd = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def copy(self, tree: SourceTree, path: str, *, unpack: bool = False) -> None:
        """A folder's content, or a file, which `unpack` opens if it is an archive."""
        nodes = tree.walk(path)
        source = next(nodes)
        if source.is_folder:
            self._place_folder(self._parts, source)
            for node in nodes:
                self._place(node)
            return
        if unpack and stat.S_ISREG(source.status.st_mode) and self._unpack(source):
            return
        name = path.rpartition("/")[2]
        self._place_file(self._file_parts(name), source)

    def write(self, name: str, data: bytes) -> None:
        """A file of given content, as from a here-document."""
        parts = self._file_parts(name)
        parent = self._parent(parts)
        try:
            fd = self._create(parent, parts[-1])
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                os.fchown(fd, *self._owner)
                os.fchmod(fd, 0o644 if self._mode is None else self._mode)
                os.utime(fd, (0, 0))
        finally:
            os.close(parent)

    def _file_parts(self, name: str) -> list[str]:
        if self._is_folder or self._is_existing_folder(self._parts):
            return [*self._parts, name]
        return self._parts

    def _is_existing_folder(self, parts: list[str]) -> bool:
        try:
            os.close(open_in_root(self._fd, "/".join(parts), os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
        return True

    def _parent(self, parts: list[str]) -> int:
        if not self._is_existing_folder(parts[:-1]):
            make_folders(self._fd, parts[:-1], owner=self._owner)
        return open_in_root(self._fd, "/".join(parts[:-1]), os.O_RDONLY | os.O_DIRECTORY)

    def _place(self, node: Node) -> None:
        parts = [*self._parts, *node.path.split("/")]
        if node.is_folder:
            self._place_folder(parts, node)
        elif stat.S_ISLNK(node.status.st_mode):
            parent = self._parent(parts)
            try:
                _make_room(parent, parts[-1])
                os.symlink(node.link_target(), parts[-1], dir_fd=parent)
                os.chown(parts[-1], *self._owner, dir_fd=parent, follow_symlinks=False)
                moment = int(node.status.st_mtime)
                os.utime(parts[-1], (moment, moment), dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(parent)
        else:
            self._place_file(parts, node)

    def _place_folder(self, parts: list[str], node: Node) -> None:
        if not parts or self._is_existing_folder(parts):
            return
        parent = self._parent(parts)
        try:
            _make_room(parent, parts[-1])
            os.mkdir(parts[-1], dir_fd=parent)
            os.chown(parts[-1], *self._owner, dir_fd=parent, follow_symlinks=False)
            os.chmod(parts[-1], stat.S_IMODE(node.status.st_mode) if self._mode is None else self._mode, dir_fd=parent)
        finally:
            os.close(parent)

    def _place_file(self, parts: list[str], node: Node) -> None:
        if not stat.S_ISREG(node.status.st_mode):
            raise BuildFailed(f"{'/'.join(parts)}: neither a file nor a folder nor a link, it cannot be copied")
        parent = self._parent(parts)
        try:
            with node.opened() as source:
                fd = self._create(parent, parts[-1])
                with os.fdopen(os.dup(source), "rb") as reader, os.fdopen(fd, "wb") as writer:
                    shutil.copyfileobj(reader, writer, _CHUNK)
                    writer.flush()
                    os.fchown(fd, *self._owner)
                    os.fchmod(fd, stat.S_IMODE(node.status.st_mode) if self._mode is None else self._mode)
                    with suppress(OSError):  # only where the source carries one
                        os.setxattr(fd, "security.capability", os.getxattr(source, "security.capability"))
                    moment = int(node.status.st_mtime)
                    os.utime(fd, (moment, moment))
        finally:
            os.close(parent)

    def _create(self, parent: int, name: str) -> int:
        _make_room(parent, name)
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)

    def _unpack(self, node: Node) -> bool:
        """Whether it was an archive; then it is now unpacked into the target folder."""
        with node.opened() as source, os.fdopen(os.dup(source), "rb") as file:
            stream = open_archive(file)
            if stream is None:
                return False
            if not self._is_existing_folder(self._parts):
                make_folders(self._fd, self._parts, owner=self._owner)
            fd = open_in_root(self._fd, "/".join(self._parts), os.O_RDONLY | os.O_DIRECTORY)
            try:
                extract_tar(stream, fd, whiteouts=False)
            finally:
                os.close(fd)
        return True


def open_archive(file: IO[bytes]) -> IO[bytes] | None:
    """The tar inside a plain or compressed file, None if there is none."""
    stream = _decompressed(file)
    try:
        head = stream.read(512)
    except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError):
        return None
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] != b"ustar":
        return None
    file.seek(0)
    return _decompressed(file)


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if magic.startswith(b"BZh"):
        return cast(IO[bytes], bz2.BZ2File(file))
    if magic == b"\xfd7zXZ\0":
        return cast(IO[bytes], lzma.LZMAFile(file))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return cast(IO[bytes], zstandard.ZstdDecompressor().stream_reader(file))
    return file


def normal_parts(path: str) -> list[str]:
    """The parts of an absolute path, `..` taken out as in a root folder."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts


def _make_room(parent: int, name: str) -> None:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        raise BuildFailed(f"cannot copy over the folder {name}: the source is none")
    os.unlink(name, dir_fd=parent)
