"""Both ends of a raw connection in memory, and the request that upgrades to one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from dure.wire.http import Duplex, Request

_HIGH_WATER = 1 << 20


class MemoryDuplex:
    """One end; what it writes the other reads. A writer waits while the other holds too much."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._ended = self._closed = False
        self._changed = asyncio.Event()
        self.other: MemoryDuplex = self
        self.paused = asyncio.Event()

    async def read(self, limit: int = 65536) -> bytes:
        while not self._chunks:
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        chunk = self._chunks.popleft()
        if len(chunk) > limit:
            self._chunks.appendleft(chunk[limit:])
            chunk = chunk[:limit]
        self._held -= len(chunk)
        self.paused.set()
        return chunk

    async def read_exactly(self, size: int) -> bytes:
        out = b""
        while len(out) < size and (chunk := await self.read(size - len(out))):
            out += chunk
        return out

    async def read_until(self, end: bytes) -> bytes:
        out = b""
        while not out.endswith(end) and (byte := await self.read(1)):
            out += byte
        return out

    async def write(self, data: bytes) -> None:
        if self._closed or self.other._closed:
            raise ConnectionResetError("closed")
        self.other._put(bytes(data))
        while self.other._held > _HIGH_WATER:
            self.other.paused.clear()
            await self.other.paused.wait()

    def _put(self, data: bytes) -> None:
        self._chunks.append(data)
        self._held += len(data)
        self._changed.set()

    def write_eof(self) -> None:
        self.other._ended = True
        self.other._changed.set()

    async def close(self) -> None:
        self._closed = self._ended = True
        self._changed.set()
        self.paused.set()
        self.write_eof()


def duplex_pair() -> tuple[MemoryDuplex, MemoryDuplex]:
    ours, theirs = MemoryDuplex(), MemoryDuplex()
    ours.other, theirs.other = theirs, ours
    return ours, theirs


def upgrade_request(
    target: str, headers: Mapping[str, str], server: Duplex, *, method: str = "GET", body: bytes = b""
) -> Request:
    """A request whose connection becomes `server` when it is taken over."""

    async def upgrade() -> Duplex:
        return server

    path, _, query = target.partition("?")
    values: Mapping[str, Sequence[str]] = parse_qs(query, keep_blank_values=True)
    lower = {name.lower(): value for name, value in headers.items()}
    return Request(method, path, values, {"connection": "Upgrade", **lower}, body, upgrade=upgrade)
