"""Dockerfile text → instructions grouped into stages. Pure; errors name their line.

Follows the Dockerfile reference (frontend 1.x): parser directives, line continuation, comments inside a continued
line, here-documents, flags, exec and shell forms. What an instruction means is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from dure.core.json import JSONDecodeError, loads
from dure.images.errors import DockerfileError

_SIZE_LIMIT = 1 << 20
_LINES_LIMIT = 10_000
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.*?)\s*\Z")
_HEREDOC = re.compile(r"(?<!<)<<(-?)\s*(?:\"([^\"\s]+)\"|'([^'\s]+)'|([A-Za-z_][A-Za-z0-9_]*))")
_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=(\S*))?(?:\s+|\Z)")
_NAMES = frozenset(
    [
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"),
        *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    ]
)
_TAKES_HEREDOCS = frozenset(["ADD", "COPY", "RUN"])
_TAKES_FLAGS = frozenset(["ADD", "COPY", "FROM", "HEALTHCHECK", "RUN"])
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")


@dataclass(frozen=True, slots=True)
class Heredoc:
    """`expand` is false where the terminator was quoted."""

    name: str
    content: str
    expand: bool


@dataclass(frozen=True, slots=True)
class Instruction:
    """`text` is everything after name and flags; `words` is it as a JSON array, None in shell form."""

    name: str
    text: str
    line: int
    flags: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] | None = None
    heredocs: tuple[Heredoc, ...] = ()

    def __str__(self) -> str:
        flags = "".join(f"--{name}={value} " if value else f"--{name} " for name, value in self.flags)
        return f"{self.name} {flags}{self.text}".strip()

    def flag(self, name: str, default: str = "") -> str:
        """The last value given to the flag."""
        return next((value for key, value in reversed(self.flags) if key == name), default)


@dataclass(frozen=True, slots=True)
class Stage:
    """`source` is the FROM instruction; `base` its image with variables unexpanded."""

    source: Instruction
    base: str
    name: str
    index: int
    instructions: tuple[Instruction, ...] = ()


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """`arguments` stand before the first FROM."""

    arguments: tuple[Instruction, ...]
    stages: tuple[Stage, ...] = field(default=())
    escape: str = "\\"


def parse_dockerfile(text: str) -> Dockerfile:
    """Raises DockerfileError."""
    if len(text) > _SIZE_LIMIT:
        raise DockerfileError(f"the Dockerfile is longer than {_SIZE_LIMIT} characters")
    if "\0" in text:
        raise DockerfileError("the Dockerfile contains a NUL character")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    escape = _escape_directive(text)
    arguments: list[Instruction] = []
    stages: list[tuple[Instruction, str, str, list[Instruction]]] = []
    for instruction in _instructions(text.split("\n"), escape):
        if instruction.name == "FROM":
            base, name = _from(instruction)
            stages.append((instruction, base, name, []))
        elif stages:
            stages[-1][3].append(instruction)
        elif instruction.name == "ARG":
            arguments.append(instruction)
        else:
            raise DockerfileError(
                f"no build stage in current context: {instruction.name} before FROM", instruction.line
            )
    if not stages:
        raise DockerfileError("the Dockerfile has no FROM instruction")
    built = tuple(
        Stage(source, base, name, index, tuple(body)) for index, (source, base, name, body) in enumerate(stages)
    )
    return Dockerfile(tuple(arguments), built, escape)


def parse_instruction(text: str, line: int, escape: str = "\\") -> Instruction:
    """One instruction, as after ONBUILD. Raises DockerfileError."""
    name, _, rest = text.strip().partition(" ")
    return _instruction(name, rest.strip(), line, ())


def _escape_directive(text: str) -> str:
    for line in text.split("\n"):
        match = _DIRECTIVE.match(line.strip())
        if match is None:
            break
        if match[1].lower() == "escape":
            if match[2] not in ("\\", "`"):
                raise DockerfileError(f"invalid ESCAPE {match[2]!r}: must be ` or \\", 1)
            return match[2]
    return "\\"


def _instructions(lines: list[str], escape: str) -> Iterator[Instruction]:
    if len(lines) > _LINES_LIMIT:
        raise DockerfileError(f"the Dockerfile has more than {_LINES_LIMIT} lines")
    position = 0
    while position < len(lines):
        start = position
        text, position = _logical_line(lines, position, escape)
        if not text:
            continue
        name, _, rest = text.replace("\t", " ", 1).partition(" ") if text.split(None, 1)[0] else (text, "", "")
        heredocs: tuple[Heredoc, ...] = ()
        if name.upper() in _TAKES_HEREDOCS and "<<" in rest and not rest.lstrip().startswith("["):
            heredocs, position = _heredocs(rest, lines, position, start + 1)
        yield _instruction(name, rest.strip(), start + 1, heredocs)


def _logical_line(lines: list[str], position: int, escape: str) -> tuple[str, int]:
    """Continued lines joined, comments and blank lines inside left out; and where the next one begins."""
    parts: list[str] = []
    continued = False
    while position < len(lines):
        line = lines[position]
        position += 1
        stripped = line.strip()
        if stripped.startswith("#") or (continued and not stripped):
            if continued:
                continue
            return "", position
        trimmed = line.rstrip()
        continued = trimmed.endswith(escape)
        parts.append(trimmed[:-1] if continued else trimmed)
        if not continued:
            break
    return "".join(parts).strip(), position


def _heredocs(text: str, lines: list[str], position: int, start: int) -> tuple[tuple[Heredoc, ...], int]:
    found = []
    for dash, double, single, bare in _HEREDOC.findall(text):
        name = double or single or bare
        body: list[str] = []
        while True:
            if position >= len(lines):
                raise DockerfileError(f"unterminated heredoc {name}", start)
            line = lines[position].lstrip("\t") if dash else lines[position]
            position += 1
            if line == name:
                break
            body.append(line)
        found.append(Heredoc(name, "".join(f"{line}\n" for line in body), bool(bare)))
    return tuple(found), position


def _instruction(name: str, rest: str, line: int, heredocs: tuple[Heredoc, ...]) -> Instruction:
    upper = name.upper()
    if upper not in _NAMES:
        raise DockerfileError(f"unknown instruction: {name}", line)
    flags: list[tuple[str, str]] = []
    while upper in _TAKES_FLAGS and (match := _FLAG.match(rest)):
        flags.append((match[1], match[2] or ""))
        rest = rest[match.end() :]
    if not rest:
        raise DockerfileError(f"{upper} requires at least one argument", line)
    return Instruction(upper, rest, line, tuple(flags), _json_words(upper, rest, line), heredocs)


def _json_words(name: str, text: str, line: int) -> tuple[str, ...] | None:
    if not text.startswith("["):
        if name == "SHELL":
            raise DockerfileError("SHELL requires the arguments to be in JSON form", line)
        return None
    try:
        words = loads(text)
    except JSONDecodeError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        if name == "SHELL":
            raise DockerfileError("SHELL requires the arguments to be in JSON form", line)
        return None  # a shell command may begin with [
    return tuple(words)


def _from(instruction: Instruction) -> tuple[str, str]:
    words = instruction.text.split()
    if len(words) == 1:
        return words[0], ""
    if len(words) != 3 or words[1].upper() != "AS":
        raise DockerfileError("FROM requires either one or three arguments: FROM image [AS name]", instruction.line)
    name = words[2].lower()
    if not _STAGE_NAME.match(name):
        raise DockerfileError(f"invalid name for build stage: {words[2]!r}", instruction.line)
    return words[0], name
