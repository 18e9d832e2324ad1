"""A container's log in the CRI format, one `<time> <stream> <F|P> <text>` a line, with rotation by size.

A full file is renamed to `<name>.<time>` beside itself, which sorts by age; readers that follow reopen by name.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Literal

LINE_BYTES = 16 * 1024
FILE_BYTES = 10 * 1024 * 1024
FILES = 5

Unfinished = Literal["", "P", "F"]
"""What becomes of a line without its end: left where it is, logged as the first part of one, logged as a whole one."""


class CriLog:
    """An open log. Lines go to the file with one write, so a killed monitor leaves whole lines."""

    def __init__(self, path: str, *, file_bytes: int = FILE_BYTES, files: int = FILES) -> None:
        self._path = path
        self._file_bytes = file_bytes
        self._files = files
        self._fd = -1
        self._size = 0
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size
        self._drop_torn_line()

    def _drop_torn_line(self) -> None:
        """A monitor killed inside a write leaves a torn line; its text still waits in the pipe."""
        start = max(0, self._size - 2 * LINE_BYTES)
        tail = os.pread(self._fd, self._size - start, start)
        if tail and not tail.endswith(b"\n"):
            self._size = start + tail.rfind(b"\n") + 1
            os.ftruncate(self._fd, self._size)

    def write(self, stream: str, data: bytes, unfinished: Unfinished = "") -> int:
        """Append the lines `data` holds and return how many of its bytes they took.

        A line without its end is left, unless it is longer than a log line may be or `unfinished` says how to tag it.
        """
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"
        full, partial = f"{stamp} {stream} F ".encode(), f"{stamp} {stream} P ".encode()
        taken = data.rfind(b"\n") + 1
        text = _prefix(data[:taken], full, partial)
        rest = data[taken:]
        while len(rest) > LINE_BYTES or (rest and unfinished):
            piece, rest = rest[:LINE_BYTES], rest[LINE_BYTES:]
            text += (full if unfinished == "F" and not rest else partial) + piece + b"\n"
            taken += len(piece)
        if text:
            self._append(text)
        return taken

    def _append(self, text: bytes) -> None:
        view = memoryview(text)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            # a full disk must not stop the container: these lines are given up, the file keeps whole ones
            os.ftruncate(self._fd, self._size)
            print(f"{self._path}: {error}; lost {len(text)} bytes of log", file=sys.stderr)
            return
        self._size += len(text)
        if self._size >= self._file_bytes:
            self._rotate()

    def _rotate(self) -> None:
        now = time.time_ns()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}"
        os.close(self._fd)
        with contextlib.suppress(FileNotFoundError):  # its folder was taken away: nothing to keep
            os.rename(self._path, f"{self._path}.{stamp}")
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        self._open()
        folder, name = os.path.split(self._path)
        old = sorted(entry for entry in os.listdir(folder) if entry.startswith(f"{name}."))
        for entry in old[: max(0, len(old) - self._files + 1)]:
            os.unlink(os.path.join(folder, entry))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _prefix(lines: bytes, full: bytes, partial: bytes) -> bytes:
    """Whole lines with their tags; a long one in several."""
    if not lines:
        return b""
    if not _may_hold_long_line(lines):
        return full + lines[:-1].replace(b"\n", b"\n" + full) + b"\n"
    out = []
    for line in lines[:-1].split(b"\n"):
        while len(line) > LINE_BYTES:
            out.append(partial + line[:LINE_BYTES] + b"\n")
            line = line[LINE_BYTES:]
        out.append(full + line + b"\n")
    return b"".join(out)


def _may_hold_long_line(lines: bytes) -> bool:
    """A line longer than two windows covers one of them whole."""
    window = LINE_BYTES // 2
    return any(lines.find(b"\n", start, start + window) < 0 for start in range(0, len(lines) - window, window))
