"""The server's end of a SPDY/3.1 connection: streams that a client opens, over any `Duplex`.

Flow control goes both ways. What arrives is granted again as it is read. What is sent minds the peer's windows once
the peer has shown that it keeps any: the library under kubectl never grants one, and holding back would stop it after
64 KiB. A stream nobody reads holds the whole connection back before it fills memory.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import AsyncIterator, Mapping

from dure.wire.http import Duplex
from dure.wire.spdy_frames import (
    CANCEL,
    FLAG_FIN,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW,
    INVALID_STREAM,
    PING,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTING_INITIAL_WINDOW,
    SETTINGS,
    SYN_REPLY,
    SYN_STREAM,
    WINDOW_UPDATE,
    Frame,
    FrameReader,
    HeaderReader,
    HeaderWriter,
    SpdyError,
    control_frame,
    data_frame,
    numbers,
    settings,
)

log = logging.getLogger(__name__)

MAX_STREAMS = 4096
_PIECE = 32 * 1024
_GRANT_FROM = 32 * 1024
_HELD_BYTES = 4 * 1024 * 1024
"""What one stream may hold unread before the connection is no longer read."""


class StreamReset(ConnectionError):
    """The peer, or this side, has given the stream up."""


class SpdyStream:
    """One stream. One reader and one writer at a time."""

    def __init__(self, connection: SpdyConnection, number: int, headers: Mapping[str, str], window: int) -> None:
        self.number = number
        self.headers = headers
        """Names in lower case."""
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._ungranted = 0
        self._changed = asyncio.Event()
        self._remote_done = self._local_done = self._reset = False
        self.window = window

    @property
    def held(self) -> int:
        """Bytes that wait to be read."""
        return self._held

    async def read(self) -> bytes:
        """At least one byte, or empty at the end. Raises StreamReset."""
        while not self._chunks:
            if self._reset:
                raise StreamReset(f"stream {self.number} was reset")
            if self._remote_done:
                return b""
            self._changed.clear()
            await self._changed.wait()
        chunk = self._chunks.popleft()
        self._held -= len(chunk)
        self._ungranted += len(chunk)
        await self._connection.consumed(len(chunk))
        if self._ungranted >= _GRANT_FROM and not self._remote_done:
            granted, self._ungranted = self._ungranted, 0
            await self._connection.grant(self.number, granted)
        return chunk

    async def write(self, data: bytes) -> None:
        """Waits while the peer is slow. Raises StreamReset, ConnectionError."""
        view = memoryview(data)
        while view:
            if self._reset or self._local_done:
                raise StreamReset(f"stream {self.number} is closed")
            size = await self._connection.wait_window(self, min(len(view), _PIECE))
            await self._connection.send(data_frame(self.number, bytes(view[:size])))
            view = view[size:]

    async def close_write(self) -> None:
        """Say that nothing more will be written. Safe to repeat."""
        if not self._local_done and not self._reset:
            self._local_done = True
            await self._connection.send(data_frame(self.number, b"", FLAG_FIN))
            self._forget_if_done()

    async def reset(self, status: int = CANCEL) -> None:
        """Give the stream up. Safe to repeat."""
        if not self._reset and not (self._local_done and self._remote_done):
            self.abort()
            await self._connection.send(control_frame(RST_STREAM, struct.pack(">II", self.number, status)))

    def feed(self, data: bytes, *, fin: bool) -> None:
        """Called by the connection."""
        if data and not self._remote_done:
            self._chunks.append(data)
            self._held += len(data)
        if fin:
            self._remote_done = True
            self._forget_if_done()
        self._changed.set()

    def abort(self) -> None:
        """Called by the connection: the stream, or all, has ended."""
        self._reset = True
        self._changed.set()
        self._connection.forget(self.number)

    def _forget_if_done(self) -> None:
        if self._remote_done and self._local_done:
            self._connection.forget(self.number)

    @property
    def was_reset(self) -> bool:
        return self._reset

    @property
    def ended_by_peer(self) -> bool:
        return self._remote_done or self._reset


class SpdyConnection:
    """`run()` reads frames until the peer goes; meanwhile `streams()` gives each stream the client opens."""

    def __init__(self, duplex: Duplex) -> None:
        self._duplex = duplex
        self._frames, self._header_reader, self._header_writer = FrameReader(), HeaderReader(), HeaderWriter()
        self._open: dict[int, SpdyStream] = {}
        self._new: asyncio.Queue[SpdyStream | None] = asyncio.Queue()  # bounded by MAX_STREAMS
        self._last = 0
        self._keeps_windows = False
        self._initial_window = self._window = INITIAL_WINDOW
        self._ungranted = 0
        self._window_grew = asyncio.Event()
        self._drained = asyncio.Event()
        self._ended = False

    async def run(self) -> None:
        """Until the peer closes or breaks the protocol; every stream is aborted then."""
        try:
            while data := await self._duplex.read():
                for frame in self._frames.feed(data):
                    await self._take(frame)
                await self._wait_drained()
        except SpdyError as error:
            log.info("spdy connection ended", extra={"error": error})
            await self._say_goodbye(PROTOCOL_ERROR)
        except ConnectionError as error:
            log.debug("spdy connection lost", extra={"error": error})
        finally:
            self._end()

    async def streams(self) -> AsyncIterator[SpdyStream]:
        """Streams as they are opened, until the connection ends. Each has been accepted already."""
        while (stream := await self._new.get()) is not None:
            yield stream

    async def _say_goodbye(self, status: int) -> None:
        try:
            await self._duplex.write(control_frame(GOAWAY, struct.pack(">II", self._last, status)))
        except ConnectionError as error:
            log.debug("no goodbye", extra={"error": error})

    def _end(self) -> None:
        self._ended = True
        for stream in list(self._open.values()):
            stream.abort()
        self._window_grew.set()
        self._new.put_nowait(None)

    async def _wait_drained(self) -> None:
        while any(stream.held > _HELD_BYTES for stream in self._open.values()):
            self._drained.clear()
            await self._drained.wait()

    async def _take(self, frame: Frame) -> None:
        match frame.type:
            case 0:
                await self._take_data(frame)
            case t if t == SYN_STREAM:
                await self._take_syn(frame)
            case t if t == RST_STREAM:
                number, _ = numbers(frame.payload, 2)
                if (stream := self._open.get(number)) is not None:
                    stream.abort()
            case t if t == PING:
                (number,) = struct.unpack(">I", frame.payload[:4].rjust(4, b"\0"))
                if number % 2:  # the client's own; an even one would answer ours, and we send none
                    await self.send(control_frame(PING, struct.pack(">I", number)))
            case t if t == SETTINGS:
                self._take_settings(frame)
            case t if t == WINDOW_UPDATE:
                self._take_window(frame)
            case t if t in (HEADERS, SYN_REPLY):
                self._take_headers(frame)
            case t if t == GOAWAY:
                self._new.put_nowait(None)

    async def _take_data(self, frame: Frame) -> None:
        stream = self._open.get(frame.stream)
        if stream is None or stream.ended_by_peer:
            await self.consumed(len(frame.payload))
            if stream is None and frame.stream > self._last:
                await self.send(control_frame(RST_STREAM, struct.pack(">II", frame.stream, INVALID_STREAM)))
            return
        stream.feed(frame.payload, fin=frame.fin)

    async def _take_syn(self, frame: Frame) -> None:
        number, _ = numbers(frame.payload, 2)
        headers = self._header_reader.read(frame.payload[10:])
        if number % 2 == 0 or number <= self._last:
            raise SpdyError(f"stream {number} after {self._last}")
        self._last = number
        if len(self._open) >= MAX_STREAMS or self._new.qsize() >= MAX_STREAMS:
            await self.send(control_frame(RST_STREAM, struct.pack(">II", number, REFUSED_STREAM)))
            return
        stream = SpdyStream(self, number, headers, self._initial_window)
        self._open[number] = stream
        await self.send(control_frame(SYN_REPLY, struct.pack(">I", number) + self._header_writer.write({})))
        if frame.fin:
            stream.feed(b"", fin=True)
        self._new.put_nowait(stream)

    def _take_headers(self, frame: Frame) -> None:
        """Read for the sake of the shared compression state only."""
        number, *_ = numbers(frame.payload, 1)
        self._header_reader.read(frame.payload[4:])
        if frame.fin and (stream := self._open.get(number)) is not None:
            stream.feed(b"", fin=True)

    def _take_settings(self, frame: Frame) -> None:
        size = settings(frame.payload).get(SETTING_INITIAL_WINDOW)
        if size is None:
            return
        self._keeps_windows = True
        for stream in self._open.values():
            stream.window += size - self._initial_window
        self._initial_window = size
        self._window_grew.set()

    def _take_window(self, frame: Frame) -> None:
        number, delta = numbers(frame.payload, 2)
        self._keeps_windows = True
        if number == 0:
            self._window += delta
        elif (stream := self._open.get(number)) is not None:
            stream.window += delta
            if stream.window > 0x7FFF_FFFF:
                raise SpdyError(f"window of stream {number} is too large")
        self._window_grew.set()

    # ── called by streams ──────────────────────────────────────────────────────────────────────────

    async def send(self, frame: bytes) -> None:
        """Raises ConnectionError once the peer has gone."""
        if self._ended:
            raise ConnectionResetError("the connection has ended")
        await self._duplex.write(frame)

    async def wait_window(self, stream: SpdyStream, size: int) -> int:
        """How much of `size` may be sent now, taken off the windows; at least one byte."""
        while self._keeps_windows and min(stream.window, self._window) <= 0:
            if self._ended or stream.was_reset:
                raise StreamReset(f"stream {stream.number} was reset")
            self._window_grew.clear()
            await self._window_grew.wait()
        if self._keeps_windows:
            size = min(size, stream.window, self._window)
        stream.window -= size
        self._window -= size
        return size

    async def consumed(self, size: int) -> None:
        self._drained.set()
        self._ungranted += size
        if self._ungranted >= _GRANT_FROM:
            granted, self._ungranted = self._ungranted, 0
            await self.grant(0, granted)

    async def grant(self, number: int, size: int) -> None:
        """Let the peer send more. That it has gone meanwhile does not spoil what was read."""
        if not self._ended:
            try:
                await self._duplex.write(control_frame(WINDOW_UPDATE, struct.pack(">II", number, size)))
            except ConnectionError as error:
                log.debug("nothing granted", extra={"error": error})

    def forget(self, number: int) -> None:
        self._open.pop(number, None)
        self._drained.set()
        self._window_grew.set()
