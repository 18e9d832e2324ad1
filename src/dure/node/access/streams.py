"""The streams of an exec or attach session, whatever carries them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

from dure.core.errors import BadRequest
from dure.core.json import Obj
from dure.wire.http import Request

Output = Literal["stdout", "stderr"]


class ClientGone(ConnectionError):
    """Nobody is there any more to talk to."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which streams the client asked for; with a terminal there is no stderr, and there are sizes."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def of(cls, request: Request) -> Wanted:
        """From the kubelet's or the API's parameter names. Raises BadRequest."""

        def given(*names: str) -> bool:
            return any(request.param(name).lower() in ("1", "true") for name in names)

        tty = given("tty")
        wanted = cls(given("input", "stdin"), given("output", "stdout"), given("error", "stderr") and not tty, tty)
        if not (wanted.stdin or wanted.stdout or wanted.stderr):
            raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")
        return wanted


class Streams(Protocol):
    """Open streams to a client."""

    def stdin(self) -> AsyncIterator[bytes]:
        """What the client types, until it closes its side."""
        ...

    def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """Columns and rows of the client's terminal as they change."""
        ...

    async def write(self, stream: Output, data: bytes) -> None:
        """Waits while the client is slow. Raises ConnectionError."""
        ...

    async def wait_gone(self) -> None:
        """Until the client has gone."""
        ...

    async def finish(self, status: Obj) -> None:
        """Tell how it ended and end every stream; waits a little for the client to take its leave."""
        ...
