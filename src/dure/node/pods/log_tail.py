"""The end of a CRI log as plain text, for termination messages."""

from __future__ import annotations

from pathlib import Path

WINDOW = 64 * 1024


def last_lines(path: Path, lines: int, limit: int) -> bytes:
    """The last `lines` of what the container printed, at most `limit` bytes of it."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - WINDOW))
            raw = file.read(WINDOW).splitlines(keepends=True)
            if size > WINDOW and raw:
                raw = raw[1:]
    except FileNotFoundError:
        return b""
    return b"".join(_content(line) for line in raw[-lines:])[-limit:]


def _content(line: bytes) -> bytes:
    """`<time> <stream> <F|P> <text>`; a partial line's text goes on in the next."""
    parts = line.split(b" ", 3)
    if len(parts) < 4:
        return b""
    return parts[3] if parts[2].startswith(b"F") else parts[3].rstrip(b"\n")
