"""CRI log files: which there are, where the last lines begin, and what of each line a client gets to see.

A line is `<time> stdout|stderr F|P <text>`; text of a P line goes on in the next line of its stream. Times are UTC with
nine digits, so they compare as bytes. A full file is renamed to `<name>.<time>`, which sorts by age.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_BLOCK_BYTES = 64 * 1024


def log_files(path: Path) -> list[Path]:
    """The rotated files, oldest first, and the file itself if it is there."""
    try:
        rotated = sorted(other for other in path.parent.iterdir() if other.name.startswith(f"{path.name}."))
    except FileNotFoundError:
        return []
    return [*rotated, path] if path.exists() else rotated


def start_of_tail(files: Sequence[Path], lines: int) -> tuple[int, int]:
    """Index of the file and offset in it where the last `lines` lines begin."""
    for index in range(len(files) - 1, -1, -1):
        with files[index].open("rb") as file:
            for offset, line in _lines_backward(file):
                if _ends_a_line(line):
                    if lines == 0:
                        return index, offset + len(line)
                    lines -= 1
    return 0, 0


def _lines_backward(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """From the last line to the first, each with its offset and its newline."""
    at, head = file.seek(0, 2), b""
    while at > 0:
        start = max(0, at - _BLOCK_BYTES)
        file.seek(start)
        block = file.read(at - start) + head
        at, end = start, len(block)
        while (newline := block.rfind(b"\n", 0, end - 1)) >= 0:
            yield at + newline + 1, block[newline + 1 : end]
            end = newline + 1
        head = block[:end]
    if head:
        yield 0, head


def _ends_a_line(line: bytes) -> bool:
    """Whether the container's own line ends here; a torn or foreign line counts as one."""
    return line.split(b" ", 3)[2:3] != [b"P"]


@dataclass(slots=True)
class Sieve:
    """Turns log lines into what the client asked for. `since` and `stream` are as they stand in the file."""

    timestamps: bool = False
    since: bytes = b""
    stream: bytes = b""
    left: int | None = None
    """How many bytes may still be given; None: any number."""
    _inside: set[bytes] = field(default_factory=set)
    """Streams whose last line goes on."""

    @property
    def exhausted(self) -> bool:
        return self.left is not None and self.left <= 0

    def render(self, lines: Sequence[bytes]) -> bytes:
        """Whole file lines with their ends; broken ones are passed over."""
        out = b"".join([self._one(line) for line in lines])
        if self.left is not None:
            out = out[: self.left]
            self.left -= len(out)
        return out

    def _one(self, line: bytes) -> bytes:
        parts = line.split(b" ", 3)
        if len(parts) < 4 or parts[0] < self.since or (self.stream and parts[1] != self.stream):
            return b""
        stamp, stream, tag, text = parts
        begins = stream not in self._inside
        if tag.startswith(b"P"):
            self._inside.add(stream)
            text = text.removesuffix(b"\n")
        else:
            self._inside.discard(stream)
        return stamp + b" " + text if self.timestamps and begins else text
