"""The part of JSONPath that printer columns and selectable fields use.

Members (`.spec.size`, `['a.b']`), indexes, `[*]`, and filters that compare a member with a literal
(`[?(@.type=="Ready")]`). Anything else is refused when the path is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

_Step = Callable[[Any], Iterable[Any]]

_TOKEN = re.compile(
    r"""\.(?P<member>(?:[^.\[\]\\'"]|\\.)+)
      | \[(?P<index>-?\d+)\]
      | \[(?P<all>\*)\]
      | \[(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\]
      | \[\?\(\s*@\.(?P<field>[^=!\s]+)\s*(?P<sign>==|!=)\s*(?P<literal>"[^"]*"|'[^']*'|[^)\s]+)\s*\)\]""",
    re.VERBOSE,
)


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[_Step, ...]:
    text = path.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    steps: list[_Step] = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"json path {path!r} cannot be read from {text[place:]!r}")
        steps.append(_step(match))
        place = match.end()
    return tuple(steps)


def _step(match: re.Match[str]) -> _Step:
    if match["member"] is not None:
        return _member(re.sub(r"\\(.)", r"\1", match["member"]))
    if match["quoted"] is not None:
        return _member(re.sub(r"\\(.)", r"\1", match["quoted"]))
    if match["index"] is not None:
        return _index(int(match["index"]))
    if match["all"]:
        return _everything
    return _filter(match["field"], match["sign"] == "==", match["literal"])


def _member(name: str) -> _Step:
    if name == "*":
        return _everything
    return lambda value: [value[name]] if isinstance(value, dict) and name in value else []


def _index(number: int) -> _Step:
    def step(value: Any) -> list[Any]:
        inside = isinstance(value, list) and -len(value) <= number < len(value)
        return [value[number]] if inside else []

    return step


def _everything(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else []


def _filter(field: str, equal: bool, literal: str) -> _Step:
    wanted = literal[1:-1] if literal[0] in "'\"" else literal
    names = field.split(".")

    def matches(item: Any) -> bool:
        for name in names:
            item = item.get(name) if isinstance(item, dict) else None
        shown = str(item).lower() if isinstance(item, bool) else str(item)
        return (item is not None and shown == wanted) is equal

    return lambda value: [item for item in value if matches(item)] if isinstance(value, list) else []


def find(path: str, value: Any) -> list[Any]:
    """Every value at `path`, in order. Raises ValueError for a path it cannot read."""
    found = [value]
    for step in _steps(path):
        found = [item for each in found for item in step(each)]
    return found


def is_readable(path: str) -> bool:
    """Whether `find` can use it."""
    try:
        _steps(path)
    except ValueError:
        return False
    return True
