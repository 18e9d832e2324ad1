"""Cells that several kinds share: names, ages, labels, containers, and readers of fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from dure.api.durations import since
from dure.api.kind import Column
from dure.core.json import Obj

NONE = "<none>"
Cell = Callable[[Obj, float], Any]
CellType = Literal["string", "integer", "number", "boolean", "date"]


def column(name: str, value: Cell, type_: CellType = "string", *, wide: bool = False, text: str = "") -> Column:
    """A column of a built-in kind; `wide` ones are shown with `-o wide` only."""
    return Column(name, type_, value, text or name, "", 1 if wide else 0)


def at(obj: Any, *path: str) -> Any:
    """The value at a path of members, None when there is none."""
    for name in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(name)
    return obj


def text(*path: str, default: str = "") -> Cell:
    """The field as text; `default` when it is unset or empty."""

    def cell(obj: Obj, now: float) -> Any:
        value = at(obj, *path)
        return default if value in (None, "") else str(value)

    return cell


def count(*path: str) -> Cell:
    """The field as a number, 0 when unset."""
    return lambda obj, now: at(obj, *path) or 0


def length(*paths: str) -> Cell:
    """How many entries the named members have together."""
    return lambda obj, now: sum(len(obj.get(name) or ()) for name in paths)


def age(obj: Obj, now: float) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def labels_text(labels: Mapping[str, Any] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def joined(values: Iterable[Any], default: str = NONE) -> str:
    return ",".join(str(value) for value in values) or default


def yes_no(value: Any, unset: str = "False") -> str:
    return unset if value is None else str(bool(value))


NAME = Column(
    "Name", "string", lambda obj, now: obj["metadata"].get("name", ""), "Name must be unique within its scope.", "name"
)
AGE = column("Age", age, text="The time since this object was created.")
CREATED_AT = Column(
    "Created At",
    "date",
    lambda obj, now: obj["metadata"].get("creationTimestamp"),
    "The time this object was created.",
    "date",
)
DEFAULT = (NAME, AGE)
"""For kinds without columns of their own."""


def containers_of(*path: str) -> tuple[Column, Column]:
    """Wide columns with the names and images of the containers of the pod spec at `path`."""

    def field(name: str) -> Cell:
        return lambda obj, now: joined((item.get(name, "") for item in at(obj, *path, "containers") or []), "")

    return (
        column("Containers", field("name"), wide=True, text="Names of each container in the template."),
        column("Images", field("image"), wide=True, text="Images referenced by each container in the template."),
    )
