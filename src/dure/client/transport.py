"""How a `Client` reaches an API server: in this process or over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dure.core.aio import Scope


@dataclass(slots=True)
class Call:
    """One request to an API server. `value` is the decoded body; a transport encodes it when it must."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    value: Any = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Answer(Protocol):
    """What came back; errors are raised as `ApiError` before an Answer exists."""

    status: int

    async def value(self) -> Any:
        """The whole decoded body, frozen; None when empty."""
        ...

    async def text(self) -> str:
        """The whole body as it came (logs, version pages)."""
        ...

    def values(self) -> AsyncIterator[Any]:
        """The decoded frames of a watch, until the server ends it. Raises TransportError if it breaks."""
        ...


class Transport(Protocol):
    def send(self, call: Call) -> Scope[Answer]:
        """Raises ApiError for a Status, TransportError when no answer came."""
        ...
