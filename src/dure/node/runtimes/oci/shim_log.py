"""A container's log in the CRI format, one `<time> <stream> <F|P> <text>` a line, with rotation by size.

A full file is renamed to `<name>.<time>` beside itself, which sorts by age; readers that follow reopen by name.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

LINE_BYTES = 16 * 1024
FILE_BYTES = 10 * 1024 * 1024
FILES = 5


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

    def write(self, stream: str, data: bytes, *, last: bool = False) -> int:
        """Append the lines `data` holds and return how many of its bytes they took.

        A line without its end is left, unless it is longer than a log line may be or this is the last there is.
        """
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"
        full, partial = f"{stamp} {stream} F ".encode(), f"{stamp} {stream} P ".encode()
        out, taken = [], 0
        *lines, rest = data.split(b"\n")
        for line in lines:
            taken += len(line) + 1
            while len(line) > LINE_BYTES:
                out.append(partial + line[:LINE_BYTES])
                line = line[LINE_BYTES:]
            out.append(full + line)
        while len(rest) > LINE_BYTES or (rest and last):
            out.append((full if last and len(rest) <= LINE_BYTES else partial) + rest[:LINE_BYTES])
            taken += min(len(rest), LINE_BYTES)
            rest = rest[LINE_BYTES:]
        if out:
            self._append(b"\n".join(out) + b"\n")
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
