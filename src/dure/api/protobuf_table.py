"""Which message a kind is and what its fields are: the table that `scripts/make_protobuf.py` makes and documents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Literal

import zstandard

from dure.core.json import loads


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message. `type` is a leaf form or another message's name."""

    number: int
    name: str
    type: str
    shape: Literal["one", "list", "map"]
    zero_is_value: bool
    inline: bool


class Message:
    """Fields of a message by number and in order."""

    def __init__(self, name: str, rows: list[tuple[int, str, str, str]]) -> None:
        self.name = name
        self.fields = tuple(_field(*row) for row in rows)

    @cached_property
    def by_number(self) -> dict[int, Field]:
        return {field.number: field for field in self.fields}


def _field(number: int, name: str, type_: str, mark: str) -> Field:
    shape: Literal["one", "list", "map"] = "one"
    if type_.startswith("[]"):
        shape = "list"
    elif type_.startswith("{}"):
        shape = "map"
    return Field(number, name, type_ if shape == "one" else type_[2:], shape, mark == "+", mark == "^")


class Table:
    """Messages by name and by kind; each is made when first asked for."""

    def __init__(self) -> None:
        packed = resources.files("dure.api").joinpath("data/protobuf.json.zst").read_bytes()
        raw = loads(zstandard.ZstdDecompressor().decompress(packed))
        self._rows: dict[str, list[tuple[int, str, str, str]]] = raw["messages"]
        self._kinds: dict[str, str] = raw["kinds"]
        self._common: dict[str, str] = raw["common"]
        self._made: dict[str, Message] = {}

    def message(self, name: str) -> Message | None:
        """None for a leaf form."""
        made = self._made.get(name)
        if made is None and name in self._rows:
            made = self._made[name] = Message(name, self._rows[name])
        return made

    def of_kind(self, api_version: str, kind: str) -> Message | None:
        name = self._kinds.get(f"{api_version}/{kind}") or self._common.get(kind)
        return self.message(name) if name else None


@cache
def table() -> Table:
    """The installed table, read once a process and only when a protobuf body comes."""
    return Table()
