"""The platform's own view of an HTTP exchange, free of any server library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


class Duplex(Protocol):
    """A raw byte stream in both directions, after an upgrade."""

    async def read(self, limit: int = 65536) -> bytes:
        """At least one byte, or empty at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Waits while the peer is slow. Raises ConnectionError once the peer has gone."""
        ...

    def write_eof(self) -> None: ...

    async def close(self) -> None: ...


class Stream(Protocol):
    """A body that goes on: `chunks` for the wire, `values` for a caller in the same process. Use one of them, once."""

    def chunks(self) -> AsyncIterator[bytes]: ...

    def values(self) -> AsyncIterator[Any]: ...


class Sink(Protocol):
    """Where a pushed stream goes. Nothing waits in `write`."""

    def write(self, data: bytes) -> bool:
        """False once the reader is behind: write no more until `drained`. Writing to a reader that left is lost."""
        ...

    async def drained(self) -> None:
        """Until there is room again. Raises ConnectionError, TimeoutError for a reader that does not come back."""
        ...


@runtime_checkable
class PushedStream(Protocol):
    """A stream that can also be pushed: thousands of readers are then served without waking a task for each."""

    async def push(self, sink: Sink) -> None:
        """Write until the stream ends or the task is cancelled."""
        ...


@dataclass(slots=True)
class Request:
    """One request. Header names are lower case; `query` keeps repeated keys in order."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    value: Any = None
    """The decoded body, when the caller is in this process and already has it."""
    peer_certificate: bytes | None = None
    """DER of the client's verified certificate."""
    peer_address: str = ""
    raw_target: str = ""
    """Path and query as they came, for proxies."""
    user: Any = None
    """Set by an in-process transport that vouches for its caller; never from the wire."""
    upgrade: Callable[[], Awaitable[Duplex]] | None = None
    """Takes the connection over: nothing has been answered yet, the taker writes the 101 itself."""

    def param(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default


@dataclass(slots=True)
class Response:
    """An answer: whole (`body`, joined in order) or going on (`stream`); `taken` when the connection was upgraded."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Sequence[bytes | memoryview] = b""
    stream: Stream | None = None
    value: Any = None
    """The decoded form of `body`, if the handler has it; frozen."""
    taken: bool = False


Handler = Callable[[Request], Awaitable[Response]]
