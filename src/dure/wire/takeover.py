"""A connection taken over from the HTTP server: raw bytes both ways, with backpressure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

_HIGH_WATER = 256 * 1024


class RawConnection(asyncio.Protocol):
    """A `Duplex` over a transport that used to speak HTTP. `first` was read but not consumed by HTTP."""

    def __init__(
        self, transport: asyncio.Transport, first: bytes, on_lost: Callable[[BaseException | None], None]
    ) -> None:
        self._transport = transport
        self._chunks: deque[bytes] = deque([first] if first else [])
        self._buffered = len(first)
        self._on_lost = on_lost
        self._half_closes = transport.get_extra_info("ssl_object") is None
        self._ended = False
        self._lost = False
        self._reader: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        transport.set_protocol(self)
        transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > _HIGH_WATER:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return self._half_closes

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lost = self._ended = True
        self._writable.set()
        self._wake()
        self._on_lost(exc)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def read(self, limit: int = 65536) -> bytes:
        """At least one byte, or empty at the end. One reader at a time."""
        while not self._chunks:
            if self._ended:
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        chunk = self._chunks.popleft()
        if len(chunk) > limit:
            self._chunks.appendleft(chunk[limit:])
            chunk = chunk[:limit]
        was_full = self._buffered > _HIGH_WATER
        self._buffered -= len(chunk)
        if was_full and self._buffered <= _HIGH_WATER and not self._lost:
            self._transport.resume_reading()
        return chunk

    async def write(self, data: bytes) -> None:
        """Waits while the peer is slow. Raises ConnectionError once it has gone."""
        if self._lost or self._transport.is_closing():
            raise ConnectionResetError("the connection has gone")
        self._transport.write(data)
        await self._writable.wait()
        if self._lost:
            raise ConnectionResetError("the connection has gone")

    def write_eof(self) -> None:
        if not self._lost and self._transport.can_write_eof():
            self._transport.write_eof()

    def end(self) -> None:
        """Close, and let the reader see the end, whatever the peer does."""
        self._ended = True
        self._wake()
        if not self._lost:
            self._transport.close()

    async def close(self) -> None:
        if not self._lost:
            self._transport.close()
