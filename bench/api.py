"""A lean HTTPS client for load: one connection is one asyncio protocol, one request at a time, no header objects.

It costs a tenth of a full client, so that what is measured is the server.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dure.core.json import dumps, loads

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an API answers and who asks: a certificate authority, a client certificate and its key."""

    host: str
    port: int
    authority: Path
    certificate: Path
    key: Path

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.certificate, self.key)
        return context


class Connection(asyncio.Protocol):
    """Kept alive; the caller sends the next request only after the last answer."""

    def __init__(self, host: str) -> None:
        self._host = host.encode()
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0
        self._head = b""
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._stream: asyncio.StreamReader | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionResetError("the server closed the connection"))
        if self._stream is not None:
            self._stream.feed_eof()

    def data_received(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.feed_data(data)
            return
        self._parts.append(data)
        self._have += len(data)
        if not self._need:
            self._read_head()
        if self._need and self._have >= self._need:
            whole = b"".join(self._parts)
            self._answer(int(self._head[9:12]), whole[len(self._head) :])

    def _read_head(self) -> None:
        whole = b"".join(self._parts)
        end = whole.find(b"\r\n\r\n")
        if end < 0:
            return
        self._parts, self._head = [whole], whole[: end + 4]
        length = _LENGTH.search(self._head)
        if length is None:
            raise ValueError(f"an answer without a length: {self._head[:200]!r}")
        self._need = end + 4 + int(length[1])

    def _answer(self, status: int, body: bytes) -> None:
        self._parts, self._have, self._need = [], 0, 0
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result((status, body))

    def _write(self, method: str, path: str, body: bytes, headers: bytes) -> None:
        assert self.transport is not None
        self.transport.write(
            b"%b %b HTTP/1.1\r\nHost: %b\r\nAccept: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
            % (method.encode(), path.encode(), self._host, headers, len(body), body)
        )

    async def send(self, method: str, path: str, body: bytes = b"", headers: bytes = b"") -> tuple[int, bytes]:
        """Status and body. Raises ConnectionError."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the connection has gone")
        if body:
            headers += b"Content-Type: application/json\r\n"
        self._waiter = asyncio.get_running_loop().create_future()
        self._write(method, path, body, headers)
        return await self._waiter

    async def json(self, method: str, path: str, value: Any = None) -> Any:
        """The decoded answer. Raises RuntimeError for anything but success."""
        status, body = await self.send(method, path, dumps(value) if value is not None else b"")
        if status >= 300:
            raise RuntimeError(f"{method} {path} gave {status}: {body[:300].decode()}")
        return loads(body)

    async def watch(self, path: str) -> AsyncIterator[Any]:
        """Events of a watch, decoded. Nothing else can be sent on this connection afterwards."""
        self._stream = asyncio.StreamReader(limit=1 << 24)
        self._write("GET", path, b"", b"")
        head = await self._stream.readuntil(b"\r\n\r\n")
        if int(head[9:12]) != 200:
            raise RuntimeError(f"watch {path} gave {head[:200]!r}")
        rest = b""
        while size := int(await self._stream.readline() or b"0", 16):
            lines = (rest + await self._stream.readexactly(size)).split(b"\n")
            await self._stream.readexactly(2)
            rest = lines.pop()
            for line in lines:
                yield loads(line)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()


async def connect(host: str, port: int, tls: ssl.SSLContext | None) -> Connection:
    """Raises OSError."""
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(f"{host}:{port}"), host, port, ssl=tls, server_hostname=host if tls else None
    )
    return connection


@asynccontextmanager
async def connected(place: Place, count: int = 1) -> AsyncIterator[Sequence[Connection]]:
    """`count` connections, closed at the end."""
    tls = place.tls()
    connections = [await connect(place.host, place.port, tls) for _ in range(count)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()
