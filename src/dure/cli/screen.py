"""What the command line prints: steps with times on a terminal, plain lines elsewhere, tables, JSON."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_QUIET_SECONDS = 2.0
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "") != "dumb" and "NO_COLOR" not in os.environ


def paint(text: str, code: str) -> str:
    """In colour on a terminal: `code` is an SGR number."""
    return f"\x1b[{code}m{text}\x1b[0m" if is_terminal() else text


def good(text: str) -> str:
    return paint(text, "32")


def bad(text: str) -> str:
    return paint(text, "31")


def faint(text: str) -> str:
    return paint(text, "2")


def bold(text: str) -> str:
    return paint(text, "1")


def say(text: str = "") -> None:
    print(text, flush=True)


def step(text: str, seconds: float | None = None, *, ok: bool = True) -> None:
    """One finished step, with how long it took."""
    mark = good("✓") if ok else bad("✗")
    took = faint(f"{seconds:6.2f} s  ") if seconds is not None else ""
    clear = "\r\x1b[K" if is_terminal() else ""
    say(f"{clear}{mark} {took}{text}")


class Live:
    """The line at the bottom that says what is going on; nothing where there is no terminal."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown = ""
        self._printed = 0.0
        self._frame = 0

    def show(self, text: str) -> None:
        """Replace the line. Elsewhere than on a terminal a new text is printed, but not more often than every 2 s."""
        if not is_terminal():
            now = time.monotonic()
            if text != self._shown and now - self._printed >= _QUIET_SECONDS:
                say(f"  {text}")
                self._printed = now
            self._shown = text
            return
        self._shown = text
        self._frame += 1
        spin = _SPINNER[self._frame % len(_SPINNER)]
        width = os.get_terminal_size().columns - 14
        line = text if len(text) <= width else text[: width - 1] + "…"
        sys.stdout.write(f"\r\x1b[K{spin} {faint(f'{time.monotonic() - self._began:6.1f} s')}  {line}")
        sys.stdout.flush()

    def clear(self) -> None:
        if is_terminal() and self._shown:
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()
        self._shown = ""


@contextmanager
def timed(text: str) -> Iterator[None]:
    """Prints `text` as a finished step once the block has ended well."""
    began = time.monotonic()
    yield
    step(text, time.monotonic() - began)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as their widest cell."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[index]) for row in cells)]) for index, name in enumerate(head)]
    for line in [list(head), *cells]:
        say("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def size(count: float) -> str:
    """Bytes for people: `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""
