"""What is looked at between decoding and storing: plugins that change or refuse a write, in order.

Plugins see the object after defaulting and before validation. A plugin raises an ApiError to refuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from dure.api.kind import Kind
from dure.apiserver.ports import VerifiedUser
from dure.core.json import Obj


@dataclass(slots=True)
class Attributes:
    """A write that is about to happen. `obj` is the new object (None for DELETE), `old` the stored one, frozen."""

    operation: Literal["CREATE", "UPDATE", "DELETE"]
    kind: Kind
    namespace: str
    name: str
    subresource: str
    user: VerifiedUser
    obj: Obj | None = None
    old: Obj | None = None
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)


class Plugin(Protocol):
    async def admit(self, attributes: Attributes) -> None:
        """May change `attributes.obj` in place. Raises ApiError."""
        ...


class Reserver(Protocol):
    """Owns a scarce thing that some objects hold, such as cluster addresses."""

    def reserving(self, attributes: Attributes) -> Iterator[None]:
        """A generator: reserve and write into the object, yield while it is stored; undo if that raises."""
        ...


class Admission:
    """All plugins and reservers of a server."""

    def __init__(self, plugins: Sequence[Plugin] = (), reservers: Sequence[Reserver] = ()) -> None:
        self._plugins = tuple(plugins)
        self._reservers = tuple(contextmanager(reserver.reserving) for reserver in reservers)

    async def admit(self, attributes: Attributes) -> None:
        for plugin in self._plugins:
            await plugin.admit(attributes)

    @contextmanager
    def reserving(self, attributes: Attributes) -> Iterator[None]:
        """Every reserver's hold on the object, kept if the block succeeds."""
        with ExitStack() as stack:
            for reserving in self._reservers:
                stack.enter_context(reserving(attributes))
            yield
