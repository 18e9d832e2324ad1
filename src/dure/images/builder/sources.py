"""What COPY and ADD take: entries of a build context or of another image's tree, never from outside of it."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dure.images.builder.ignore import Ignore, glob_regex, has_glob
from dure.images.errors import BuildFailed
from dure.images.kernel import names_in, open_in_root, path_of

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Node:
    """One entry below a chosen source; `parent` is open while the node is being looked at."""

    path: str
    """Relative to the source, "" for the source itself."""
    parent: int
    name: str
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @contextmanager
    def opened(self) -> Iterator[int]:
        fd = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.parent)
        try:
            yield fd
        finally:
            os.close(fd)

    def link_target(self) -> str:
        return os.readlink(self.name, dir_fd=self.parent)


class SourceTree:
    """A folder that sources are named in. Open as a context manager."""

    def __init__(self, root: Path, ignore: Ignore | None = None) -> None:
        self._root = root
        self._ignore = ignore or Ignore()
        self._fd = -1

    def __enter__(self) -> SourceTree:
        self._fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def select(self, pattern: str) -> list[str]:
        """The paths a source names: at least one, sorted. Raises BuildFailed."""
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise BuildFailed(f"forbidden path outside the build context: {pattern}")
        found = [""]
        for part in parts:
            if has_glob(part) or "\\" in part:
                found = [path for base in found for path in self._matching(base, part)]
            else:
                found = [f"{base}/{part}" if base else part for base in found]
        chosen = sorted(path for path in found if self._is_there(path))
        if not chosen:
            raise BuildFailed(f'"/{"/".join(parts)}": not found')
        return chosen

    def _matching(self, base: str, pattern: str) -> list[str]:
        regex = glob_regex(pattern)
        try:
            fd = open_in_root(self._fd, base, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return []
        try:
            names = [name for name in names_in(fd) if regex.match(name)]
        finally:
            os.close(fd)
        return [f"{base}/{name}" if base else name for name in names]

    def _is_there(self, path: str) -> bool:
        try:
            fd = open_in_root(self._fd, path, os.O_PATH)
        except OSError:
            return False
        try:
            is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        finally:
            os.close(fd)
        return not path or not self._ignore.ignores(path) or (is_folder and self._ignore.has_exceptions)

    def walk(self, path: str) -> Iterator[Node]:
        """The source itself, links in its own path followed, then all below it in order."""
        real = self._real(path)
        parent = open_in_root(self._fd, os.path.dirname(real), os.O_PATH | os.O_DIRECTORY)  # noqa: PTH120 (text)
        name = real.rpartition("/")[2] or "."
        try:
            node = Node("", parent, name, os.stat(name, dir_fd=parent, follow_symlinks=False))
            yield node
            if node.is_folder:
                yield from self._below(node, real)
        finally:
            os.close(parent)

    def _real(self, path: str) -> str:
        """Where the path leads inside the tree."""
        try:
            fd = open_in_root(self._fd, path, os.O_PATH)
        except OSError as error:
            reason = "too many levels of links" if error.errno == errno.ELOOP else "not found"
            raise BuildFailed(f'"/{path}": {reason}') from error
        try:
            top = path_of(self._fd)
            return path_of(fd).removeprefix(top).strip("/")
        finally:
            os.close(fd)

    def _below(self, folder: Node, real: str) -> Iterator[Node]:
        with folder.opened() as fd:
            for name in names_in(fd):
                inside = f"{real}/{name}" if real else name
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                ignored = self._ignore.ignores(inside)
                if ignored and not (stat.S_ISDIR(status.st_mode) and self._ignore.has_exceptions):
                    continue
                node = Node(f"{folder.path}/{name}" if folder.path else name, fd, name, status)
                if not ignored:
                    yield node
                if node.is_folder:
                    yield from self._below(node, inside)


def digest_sources(tree: SourceTree, paths: Sequence[str]) -> str:
    """Changes when a name, a mode, a link or a content changes; times and owners do not count."""
    hasher = hashlib.sha256()
    for path in paths:
        hasher.update(f"source {path}\0".encode(errors="surrogateescape"))
        for node in tree.walk(path):
            mode = node.status.st_mode
            hasher.update(f"{node.path}\0{mode:o}\0".encode(errors="surrogateescape"))
            if stat.S_ISLNK(mode):
                hasher.update(os.fsencode(node.link_target()))
            elif stat.S_ISREG(mode):
                with node.opened() as fd:
                    hasher.update(_digest_file(fd))
    return hasher.hexdigest()


def _digest_file(fd: int) -> bytes:
    hasher = hashlib.sha256()
    while data := os.read(fd, _CHUNK):
        hasher.update(data)
    return hasher.digest()
