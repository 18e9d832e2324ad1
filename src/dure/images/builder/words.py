"""Variables and quotes in Dockerfile arguments, as the Dockerfile reference's "Environment replacement" says. Pure.

`$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME:+word}`, `${NAME:?word}` and the forms without the colon; an escaped
`$` stays; single quotes prevent replacement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dure.images.errors import DockerfileError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?!$-]")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_DEPTH_LIMIT = 20


def expand(text: str, variables: Mapping[str, str], escape: str = "\\", line: int = 0) -> str:
    """The text with variables replaced and quotes taken away, as one word. Raises DockerfileError."""
    return _Reader(text, variables, escape, line).read_word()


def expand_words(text: str, variables: Mapping[str, str], escape: str = "\\", line: int = 0) -> list[str]:
    """The text's words, split at blanks outside quotes, each expanded. Raises DockerfileError."""
    return [expand(word, variables, escape, line) for word in split_words(text, escape, line)]


def split_words(text: str, escape: str = "\\", line: int = 0) -> list[str]:
    """Split at blanks outside quotes; quotes and variables stay as they are. Raises DockerfileError."""
    words: list[str] = []
    current = ""
    begun = False
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        if char == escape and quote != "'" and position + 1 < len(text):
            current += text[position : position + 2]
            begun, position = True, position + 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in " \t\n":
            if begun:
                words.append(current)
            current, begun, position = "", False, position + 1
            continue
        current, begun, position = current + char, True, position + 1
    if quote:
        raise DockerfileError(f"unexpected end of statement while looking for matching {quote}", line)
    return [*words, current] if begun else words


def parse_pairs(name: str, text: str, line: int, escape: str = "\\") -> list[tuple[str, str]]:
    """`key=value …` or the old `key value`, not expanded. Raises DockerfileError."""
    words = split_words(text, escape, line)
    if words and "=" not in words[0]:
        key, _, value = text.partition(" ")
        if not value.strip():
            raise DockerfileError(f"{name} must have two arguments", line)
        return [(key, value.strip())]
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(f"can't find = in {word!r}. Must be of the form: name=value", line)
        if not key:
            raise DockerfileError(f"{name} names can not be blank", line)
        pairs.append((key, value))
    return pairs


class _Reader:
    def __init__(self, text: str, variables: Mapping[str, str], escape: str, line: int, depth: int = 0) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._line = line
        self._at = 0
        self._depth = depth
        if depth > _DEPTH_LIMIT:
            raise DockerfileError("variables are nested too deeply", line)

    def read_word(self) -> str:
        result = ""
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == "'":
                result += self._single_quoted()
            elif char == '"':
                result += self._double_quoted()
            elif char == "$":
                result += self._variable()
            elif char == self._escape:
                result += self._text[self._at + 1 : self._at + 2]
                self._at += 2
            else:
                result += char
                self._at += 1
        return result

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise DockerfileError("unexpected end of statement while looking for matching single-quote", self._line)
        quoted = self._text[self._at + 1 : end]
        self._at = end + 1
        return quoted

    def _double_quoted(self) -> str:
        result = ""
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return result
            if char == "$":
                result += self._variable()
            elif char == self._escape and self._text[self._at + 1 : self._at + 2] in ('"', "$", self._escape):
                result += self._text[self._at + 1]
                self._at += 2
            else:
                result += char
                self._at += 1
        raise DockerfileError("unexpected end of statement while looking for matching double-quote", self._line)

    def _variable(self) -> str:
        self._at += 1
        if self._text[self._at : self._at + 1] == "{":
            return self._braced()
        match = _NAME.match(self._text, self._at)
        if match is None:
            return "$"
        self._at = match.end()
        return self._variables.get(match[0], "")

    def _braced(self) -> str:
        end = self._closing_brace()
        inside = self._text[self._at + 1 : end]
        self._at = end + 1
        match = _NAME.match(inside)
        if match is None:
            raise DockerfileError(f"bad substitution ${{{inside}}}", self._line)
        name, rest = match[0], inside[match.end() :]
        value = self._variables.get(name)
        if not rest:
            return value or ""
        colon = rest.startswith(":")
        operator, word = rest[colon : colon + 1], rest[colon + 1 :]
        if operator not in ("-", "+", "?"):
            raise DockerfileError(f"unsupported modifier ({rest[:2]}) in substitution ${{{inside}}}", self._line)
        is_set = bool(value) if colon else value is not None
        return self._modified(operator, name, value or "", word, is_set=is_set)

    def _modified(self, operator: str, name: str, value: str, word: str, *, is_set: bool) -> str:
        if operator == "+":
            return self._nested(word) if is_set else ""
        if is_set:
            return value
        if operator == "-":
            return self._nested(word)
        raise DockerfileError(f"{name}: {self._nested(word) or 'not allowed to be empty'}", self._line)

    def _nested(self, word: str) -> str:
        return _Reader(word, self._variables, self._escape, self._line, self._depth + 1).read_word()

    def _closing_brace(self) -> int:
        depth = 0
        for position in range(self._at, len(self._text)):
            depth += {"{": 1, "}": -1}.get(self._text[position], 0)
            if depth == 0:
                return position
        raise DockerfileError("syntax error: missing '}' in a variable", self._line)


def is_variable_name(text: str) -> bool:
    return _PLAIN.match(text) is not None
