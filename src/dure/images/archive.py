"""A layer folder as a tar, always the same bytes for the same folder: the reverse of `extract`.

Sorted by name, PAX, numeric owners, whole seconds. A layer made here is stored unpacked only; its tar, whose
sha256 is the layer's diffID, is made again from the folder whenever somebody wants the bytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

from dure.images.extract import OPAQUE, is_user_xattr
from dure.images.kernel import names_in

_CHUNK = 1 << 20
_BLOCK = 512

Sink = Callable[[bytes], object]


def write_layer(folder: Path, sink: Sink) -> None:
    """Give the tar of `folder` to `sink`, piece by piece."""
    writer = _Writer(sink)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        writer.add_folder_content(fd, "")
    finally:
        os.close(fd)
    sink(b"\0" * (2 * _BLOCK))


def digest_layer(folder: Path) -> tuple[str, int]:
    """The diffID of the folder and the length of its tar."""
    hasher = hashlib.sha256()
    size = 0

    def count(data: bytes) -> None:
        nonlocal size
        hasher.update(data)
        size += len(data)

    write_layer(folder, count)
    return "sha256:" + hasher.hexdigest(), size


class _Writer:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._links: dict[tuple[int, int], str] = {}  # bounded by the folder's entries

    def add_folder_content(self, fd: int, path: str) -> None:
        if _is_opaque(fd):
            self._header(_info(f"{path}/.wh..wh..opq" if path else ".wh..wh..opq", os.fstat(fd)))
        for name in names_in(fd):
            self._add(fd, name, f"{path}/{name}" if path else name)

    def _add(self, parent: int, name: str, path: str) -> None:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        mode = status.st_mode
        info = _info(path, status)
        if stat.S_ISDIR(mode):
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                info.type, info.name = tarfile.DIRTYPE, path + "/"
                self._header(info, _xattrs(fd))
                self.add_folder_content(fd, path)
            finally:
                os.close(fd)
        elif stat.S_ISREG(mode):
            self._add_file(parent, name, info, status)
        elif stat.S_ISLNK(mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=parent)
            self._header(info)
        elif stat.S_ISCHR(mode) and status.st_rdev == 0:
            white = _info(path.removesuffix(name) + ".wh." + name, status)
            white.mode, white.mtime = 0, 0
            self._header(white)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            info.type = tarfile.CHRTYPE if stat.S_ISCHR(mode) else tarfile.BLKTYPE
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
            self._header(info)
        elif stat.S_ISFIFO(mode):
            info.type = tarfile.FIFOTYPE
            self._header(info)
        # a socket is left out: it means nothing in an image

    def _add_file(self, parent: int, name: str, info: tarfile.TarInfo, status: os.stat_result) -> None:
        inode = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and inode in self._links:
            info.type, info.linkname = tarfile.LNKTYPE, self._links[inode]
            self._header(info)
            return
        self._links[inode] = info.name
        info.size = status.st_size
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._header(info, _xattrs(fd))
            left = info.size
            while left:
                data = os.read(fd, min(left, _CHUNK))
                if not data:
                    raise OSError(f"{info.name} became shorter while it was read")
                left -= len(data)
                self._sink(data)
        finally:
            os.close(fd)
        if info.size % _BLOCK:
            self._sink(b"\0" * (_BLOCK - info.size % _BLOCK))

    def _header(self, info: tarfile.TarInfo, xattrs: dict[str, str] | None = None) -> None:
        if xattrs:
            info.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in sorted(xattrs.items())}
        self._sink(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))


def _info(path: str, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    info.mtime = max(int(status.st_mtime), 0)
    return info


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE) == b"y"
    except OSError:
        return False


def _xattrs(fd: int) -> dict[str, str]:
    names = [name for name in os.listxattr(fd) if name == "security.capability" or is_user_xattr(name)]
    return {name: os.fsdecode(os.getxattr(fd, name)) for name in names}
