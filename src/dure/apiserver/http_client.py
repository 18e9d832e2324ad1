"""Just enough HTTP/1.1 over a raw connection for proxying: write a head, read an answer, pipe bytes both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from dure.core.aio import running
from dure.core.errors import InternalError
from dure.wire.http import Duplex

_HEAD_LIMIT = 64 * 1024
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "server", "date"}
)


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    text = "\r\n".join(lines)
    if any(char in text for char in ("\0", "\r\n\r\n")) or text.count("\n") != len(lines) - 1:
        raise InternalError("a header of the request cannot be forwarded")
    return (text + "\r\n\r\n").encode("latin-1", "replace")


@dataclass(slots=True)
class PipedResponse:
    """An answer whose body is still to come; `rest` is what was read of it with the head."""

    status: int
    headers: dict[str, str]
    rest: bytes
    peer: Duplex

    def kept_headers(self) -> dict[str, str]:
        return {_title(name): value for name, value in self.headers.items() if name not in _HOP_BY_HOP}

    def body(self) -> AsyncIterator[bytes]:
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return self._chunked()
        length = self.headers.get("content-length", "")
        return self._plain(int(length) if length.isdigit() else None)

    async def _plain(self, left: int | None) -> AsyncIterator[bytes]:
        data = self.rest
        while left is None or left > 0:
            if data:
                if left is not None:
                    data = data[:left]
                    left -= len(data)
                yield data
                if left == 0:
                    return
            data = await self.peer.read()
            if not data:
                return

    async def _chunked(self) -> AsyncIterator[bytes]:
        buffer = bytearray(self.rest)
        while True:
            while b"\r\n" not in buffer:
                await self._more(buffer)
            line, _, _ = bytes(buffer).partition(b"\r\n")
            del buffer[: len(line) + 2]
            size = int(line.split(b";")[0], 16)
            if size == 0:
                return
            sent = 0
            while sent < size:
                if not buffer:
                    await self._more(buffer)
                part = bytes(buffer[: size - sent])
                del buffer[: len(part)]
                sent += len(part)
                yield part
            while len(buffer) < 2:
                await self._more(buffer)
            del buffer[:2]

    async def _more(self, buffer: bytearray) -> None:
        data = await self.peer.read()
        if not data:
            raise ConnectionResetError("the node's answer broke off")
        buffer += data


def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


async def read_response(peer: Duplex) -> PipedResponse:
    """The head of an answer. Raises InternalError when it is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await peer.read()
        if not more or len(data) > _HEAD_LIMIT:
            raise InternalError("the node agent closed the connection without an answer")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[1].isdigit():
        raise InternalError("the node agent did not answer in HTTP")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return PipedResponse(int(parts[1]), headers, rest, peer)


async def pipe(client: Duplex, server: Duplex) -> None:
    """Copy both ways until the server's side has ended or either is lost; both are closed then.

    A client that has no more to send may still wait for what comes back.
    """
    try:
        async with running(_copy(client, server)):
            await _copy(server, client)
    except ConnectionError:
        pass  # one side went away: the end of a tunnel like any other
    finally:
        await client.close()
        await server.close()


async def _copy(source: Duplex, target: Duplex) -> None:
    while data := await source.read():
        await target.write(data)
    target.write_eof()
