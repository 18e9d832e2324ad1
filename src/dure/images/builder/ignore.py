"""Which paths of a build context `.dockerignore` leaves out. Pure but for reading that file.

Rules of moby's patternmatcher: Go's filepath.Match plus `**`; the last matching pattern decides; `!` takes back; a
pattern that matches a folder covers what is in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_IN_BRACKETS = re.compile(r"([\[\]\\^&|~])")


@dataclass(frozen=True, slots=True)
class _Pattern:
    regex: re.Pattern[str]
    takes_back: bool


class Ignore:
    """Patterns in their order."""

    def __init__(self, lines: Sequence[str] = ()) -> None:
        self._patterns = [pattern for line in lines if (pattern := _parse(line)) is not None]
        self.has_exceptions = any(pattern.takes_back for pattern in self._patterns)

    def ignores(self, path: str) -> bool:
        """Whether the path, relative to the context, is left out."""
        parts = path.split("/")
        parents = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        ignored = False
        for pattern in self._patterns:
            if pattern.takes_back == ignored and any(pattern.regex.match(parent) for parent in parents):
                ignored = not ignored
        return ignored


def read_ignore(context: Path, dockerfile: Path) -> Ignore:
    """`<Dockerfile>.dockerignore` beside the Dockerfile, else the context's own."""
    for path in (dockerfile.with_name(dockerfile.name + ".dockerignore"), context / ".dockerignore"):
        if path.is_file():
            return Ignore(path.read_text(errors="replace").splitlines())
    return Ignore()


def _parse(line: str) -> _Pattern | None:
    text = line.strip()
    if not text or line.startswith("#"):
        return None
    takes_back = text.startswith("!")
    parts = [part for part in text.removeprefix("!").strip().split("/") if part not in ("", ".")]
    return _Pattern(glob_regex("/".join(parts)), takes_back) if parts else None


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Go's filepath.Match with `**` for any number of folders, as a regular expression."""
    result = ""
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if pattern.startswith("**", position):
            position += 2
            if pattern.startswith("/", position):
                result += "(?:.*/)?"
                position += 1
            else:
                result += ".*"
            continue
        if char == "*":
            result += "[^/]*"
        elif char == "?":
            result += "[^/]"
        elif char == "[" and (end := pattern.find("]", position + 2)) > 0:
            body = pattern[position + 1 : end]
            negated = body.startswith("^")
            result += ("[^" if negated else "[") + _IN_BRACKETS.sub(r"\\\1", body[negated:]) + "]"
            position = end
        elif char == "\\" and position + 1 < len(pattern):
            position += 1
            result += re.escape(pattern[position])
        else:
            result += re.escape(char)
        position += 1
    return re.compile(result + r"\Z", re.DOTALL)


def has_glob(text: str) -> bool:
    return any(char in text for char in "*?[")
