"""Unpack one layer's tar into an empty folder, as an overlay lower layer, trusting nothing in it.

`tarfile` only parses. Every path goes through `open_in_root`; entries are made with O_EXCL and O_NOFOLLOW
relative to their parent's descriptor; hard links stay inside. Whiteouts become 0/0 character devices, opaque
marks the overlay attribute (OCI image specification, layer.md). Whatever is broken raises ArchiveRefused: the
caller throws the folder away.
"""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import zstandard

from dure.images.errors import ArchiveRefused
from dure.images.kernel import open_in_root

OPAQUE = "trusted.overlay.opaque"
_WHITEOUT = ".wh."
_OPAQUE_MARK = ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_CHUNK = 1 << 20
_DECODING = (zlib.error, lzma.LZMAError, zstandard.ZstdError)
_CACHED_PARENTS = 64
_MOST_LINKS = 16
_HIGHEST_ID = 0xFFFF_FFFE
_HIGHEST_TIME = 1 << 33


@dataclass(frozen=True, slots=True)
class Limits:
    """What one layer may hold."""

    bytes: int = 64 << 30
    entries: int = 2_000_000


def extract_layer(stream: IO[bytes], target: Path, limits: Limits = Limits()) -> int:
    """Unpack the uncompressed tar of a layer; the bytes of its files. Raises ArchiveRefused."""
    root_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return extract_tar(stream, root_fd, limits)
    finally:
        os.close(root_fd)


def extract_tar(stream: IO[bytes], root_fd: int, limits: Limits = Limits(), *, whiteouts: bool = True) -> int:
    """Unpack below an open folder; without `whiteouts`, names that begin with `.wh.` are plain names."""
    extractor = _Extractor(root_fd, limits, whiteouts=whiteouts)
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK, encoding="utf-8") as tar:
            for member in tar:
                extractor.add(tar, member)
                tar.members = []  # type: ignore[attr-defined] # tarfile would keep every header otherwise
        extractor.finish()
    except ArchiveRefused:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EPERM, errno.EROFS):
            raise
        raise ArchiveRefused(f"layer refused: {error.strerror}: {error.filename!r}") from error
    except (tarfile.TarError, ValueError, OverflowError, EOFError, *_DECODING) as error:
        raise ArchiveRefused(f"layer refused: broken archive: {error}") from error
    finally:
        extractor.close()
    return extractor.bytes


def split_path(name: str) -> list[str]:
    """The parts of a path inside an archive. Raises ArchiveRefused for `..` and NUL."""
    if "\0" in name:
        raise ArchiveRefused(f"layer refused: entry {name!r} has a NUL in its name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveRefused(f"layer refused: entry {name!r} leads out of the root")
    return parts


class _Extractor:
    def __init__(self, root_fd: int, limits: Limits, *, whiteouts: bool) -> None:
        self.bytes = 0
        self._whiteouts = whiteouts
        self._root = root_fd
        self._limits = limits
        self._entries = 0
        self._parents: dict[str, int] = {}  # bounded by _CACHED_PARENTS
        self._folder_times: dict[str, float] = {}  # bounded by limits.entries
        self._made: set[tuple[str, str]] = set()

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise ArchiveRefused(f"layer refused: more than {self._limits.entries} entries")
        if not (0 <= member.uid <= _HIGHEST_ID and 0 <= member.gid <= _HIGHEST_ID):
            raise ArchiveRefused(f"layer refused: entry {member.name!r} has owner {member.uid}:{member.gid}")
        parts = split_path(member.name)
        if not parts:
            if member.isdir():
                _set_attributes(self._root, member)
                self._folder_times["."] = member.mtime
            return
        folder, name = "/".join(parts[:-1]), parts[-1]
        parent = self._parent(folder)
        if self._whiteouts and name.startswith(_WHITEOUT):
            self._white_out(parent, folder, name)
        elif member.isdir():
            self._folder(parent, folder, name, member)
        else:
            self._create(tar, member, self._make_room(folder, name), name)
        self._made.add((folder, name))

    def finish(self) -> None:
        """Folder times last: filling a folder moves them."""
        for path in reversed(list(self._folder_times)):
            try:
                fd = open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except (FileNotFoundError, NotADirectoryError):
                continue  # replaced by a later entry
            try:
                _set_time(fd, self._folder_times[path])
            finally:
                os.close(fd)

    def close(self) -> None:
        self._forget_parents()

    def _forget_parents(self) -> None:
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()

    def _parent(self, folder: str) -> int:
        fd = self._parents.get(folder)
        if fd is None:
            if len(self._parents) >= _CACHED_PARENTS:
                self._forget_parents()
            try:
                fd = open_in_root(self._root, folder, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                make_folders(self._root, folder.split("/"))
                fd = open_in_root(self._root, folder, os.O_RDONLY | os.O_DIRECTORY)
            self._parents[folder] = fd
        return fd

    def _white_out(self, parent: int, folder: str, name: str) -> None:
        if name == _OPAQUE_MARK:
            os.setxattr(parent, OPAQUE, b"y")
            return
        hidden = name[len(_WHITEOUT) :]
        if hidden.startswith(_WHITEOUT):
            return  # aufs' own bookkeeping
        if hidden in ("", ".", ".."):
            raise ArchiveRefused(f"layer refused: whiteout {name!r} names nothing")
        if (folder, hidden) in self._made:
            return  # a whiteout hides what lower layers hold, not this one
        if _lstat(parent, hidden) is None:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)

    def _folder(self, parent: int, folder: str, name: str, member: tarfile.TarInfo) -> None:
        present = _lstat(parent, name)
        if present is not None and not stat.S_ISDIR(present.st_mode):
            parent = self._make_room(folder, name)
            present = None
        if present is None:
            os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            _set_attributes(fd, member)
        finally:
            os.close(fd)
        path = f"{folder}/{name}" if folder else name
        self._folder_times.pop(path, None)
        self._folder_times[path] = member.mtime

    def _make_room(self, folder: str, name: str) -> int:
        """Remove what has the name, if anything; the parent's descriptor, opened anew where paths may have changed."""
        parent = self._parent(folder)
        present = _lstat(parent, name)
        if present is None:
            return parent
        if stat.S_ISDIR(present.st_mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        if stat.S_ISDIR(present.st_mode) or stat.S_ISLNK(present.st_mode):
            self._forget_parents()
        return self._parent(folder)

    def _create(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        if member.isreg():
            self._file(tar, member, parent, name)
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
            _set_link_attributes(parent, name, member)
        elif member.islnk():
            self._hard_link(member, parent, name)
        elif member.ischr() or member.isblk():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
            _set_node_attributes(parent, name, member)
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
            _set_node_attributes(parent, name, member)
        else:
            raise ArchiveRefused(f"layer refused: entry {member.name!r} has unknown type {member.type!r}")

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        self.bytes += member.size
        if self.bytes > self._limits.bytes:
            raise ArchiveRefused(f"layer refused: more than {self._limits.bytes} bytes")
        source = tar.extractfile(member)
        if source is None:
            raise ArchiveRefused(f"layer refused: entry {member.name!r} has no content")
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            left = member.size
            while left:
                chunk = source.read(min(left, _CHUNK))
                if not chunk:
                    raise ArchiveRefused(f"layer refused: entry {member.name!r} is cut short")
                left -= len(chunk)
                while chunk:
                    chunk = chunk[os.write(fd, chunk) :]
            _set_attributes(fd, member)
            _set_time(fd, member.mtime)
        finally:
            os.close(fd)

    def _hard_link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        *folders, last = split_path(member.linkname) or [""]
        if not last:
            raise ArchiveRefused(f"layer refused: hard link {member.name!r} names nothing")
        source = open_in_root(self._root, "/".join(folders), os.O_PATH | os.O_DIRECTORY)
        try:
            os.link(last, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)


def make_folders(
    root_fd: int, parts: Sequence[str], mode: int = 0o755, owner: tuple[int, int] = (0, 0), *, links: int = _MOST_LINKS
) -> None:
    """Every folder of the path that is not there, inside the root; also what a link on the way points to."""
    for depth in range(1, len(parts) + 1):
        above, name = parts[: depth - 1], parts[depth - 1]
        try:
            os.close(open_in_root(root_fd, "/".join(parts[:depth]), os.O_PATH | os.O_DIRECTORY))
            continue
        except FileNotFoundError:
            parent = open_in_root(root_fd, "/".join(above), os.O_PATH | os.O_DIRECTORY)
        try:
            os.mkdir(name, mode, dir_fd=parent)
            os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            if not links:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), "/".join(parts)) from None
            target = os.readlink(name, dir_fd=parent)
            make_folders(root_fd, _joined(above, target), mode, owner, links=links - 1)
        finally:
            os.close(parent)


def _joined(above: Sequence[str], link: str) -> list[str]:
    """Where a link in the folder `above` points to, as a path from the root."""
    found = [] if link.startswith("/") else list(above)
    for part in link.split("/"):
        if part == "..":
            del found[-1:]
        elif part not in ("", "."):
            found.append(part)
    return found


def _lstat(parent: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _set_attributes(fd: int, member: tarfile.TarInfo) -> None:
    os.fchown(fd, member.uid, member.gid)
    os.fchmod(fd, member.mode & 0o7777)  # after the owner: changing it clears the set-id bits
    for name, value in _xattrs(member):
        os.setxattr(fd, name, value)


def _set_time(fd: int, mtime: float) -> None:
    moment = min(max(int(mtime), 0), _HIGHEST_TIME)
    os.utime(fd, (moment, moment))


def _set_link_attributes(parent: int, name: str, member: tarfile.TarInfo) -> None:
    os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    moment = min(max(int(member.mtime), 0), _HIGHEST_TIME)
    os.utime(name, (moment, moment), dir_fd=parent, follow_symlinks=False)


def _set_node_attributes(parent: int, name: str, member: tarfile.TarInfo) -> None:
    _set_link_attributes(parent, name, member)
    os.chmod(name, member.mode & 0o7777, dir_fd=parent)


def _xattrs(member: tarfile.TarInfo) -> list[tuple[str, bytes]]:
    """Only capabilities and the user's own: an archive that set overlay's attributes could redirect a merge."""
    found = []
    for key, value in member.pax_headers.items():
        name = key.removeprefix(_XATTR)
        if name != key and (name == "security.capability" or is_user_xattr(name)):
            found.append((name, os.fsencode(value)))
    return found


def is_user_xattr(name: str) -> bool:
    return name.startswith("user.") and not name.startswith("user.overlay.")
