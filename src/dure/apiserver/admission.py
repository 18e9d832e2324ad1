"""What is looked at between decoding and storing: plugins that change or refuse a write, in order.

Plugins see the object after defaulting and before the kind prepares and validates it. To refuse, they raise an
ApiError.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
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
    """Owns a scarce thing that objects of one resource hold, such as cluster addresses."""

    @property
    def resource(self) -> str: ...

    def reserving(self, attributes: Attributes) -> AbstractContextManager[None]:
        """Reserve and write into the object; undo if storing it, inside the block, fails."""
        ...


class Admission:
    """All plugins and reservers of a server."""

    def __init__(self, plugins: Sequence[Plugin] = (), reservers: Sequence[Reserver] = ()) -> None:
        self._plugins = tuple(plugins)
        self._reservers = {reserver.resource: reserver for reserver in reservers}

    async def admit(self, attributes: Attributes) -> None:
        for plugin in self._plugins:
            await plugin.admit(attributes)

    def reserving(self, attributes: Attributes) -> AbstractContextManager[None]:
        """The hold on what the object needs, kept if the block succeeds."""
        reserver = self._reservers.get(attributes.kind.resource)
        return _NOTHING if reserver is None else reserver.reserving(attributes)


_NOTHING = nullcontext()
