"""Session streams as channels of a WebSocket: the first byte, or digit, of each message names the channel.

Subprotocols `[v3.|v4.|v5.]channel.k8s.io` carry binary messages, `[v4.]base64.channel.k8s.io` text. From v4 on the
error channel bears a Status, before it a plain message; v5 lets the client close a channel by the message 255, channel.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dure.core.aio import running
from dure.core.json import JSONDecodeError, Obj, dumps, loads
from dure.node.access.streams import Output, Wanted
from dure.wire.http import Request
from dure.wire.websocket import Message, WebSocket, accept_websocket, choose_protocol

log = logging.getLogger(__name__)

V5 = "v5.channel.k8s.io"
PROTOCOLS = (
    V5,
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
)
STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
_CLOSE_SIGNAL = 255
_HELD_BYTES = 1024 * 1024
_LEAVE_SECONDS = 5.0


@asynccontextmanager
async def open_websocket_streams(request: Request, wanted: Wanted) -> AsyncIterator[WebSocketStreams]:
    """Raises BadRequest before anything was answered."""
    protocol = choose_protocol(request, PROTOCOLS)
    websocket = await accept_websocket(request, protocol)
    streams = WebSocketStreams(websocket, protocol)
    try:
        async with running(streams.run()):
            if protocol != V5:
                await streams.greet(wanted)
            yield streams
    finally:
        await websocket.close()


class Inbox:
    """Bytes on their way to one reader; `put` waits while too much is held."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._closed = False
        self._changed = asyncio.Event()

    async def put(self, data: bytes) -> None:
        while self._held > _HELD_BYTES and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if data and not self._closed:
            self._chunks.append(data)
            self._held += len(data)
            self._changed.set()

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    async def read(self) -> bytes:
        """At least one byte, or empty at the end."""
        while not self._chunks:
            if self._closed:
                return b""
            self._changed.clear()
            await self._changed.wait()
        chunk = self._chunks.popleft()
        self._held -= len(chunk)
        self._changed.set()
        return chunk


class Channels:
    """Messages with a channel number, binary or base64."""

    def __init__(self, websocket: WebSocket, protocol: str) -> None:
        self._websocket = websocket
        self._base64 = "base64" in protocol

    async def receive(self) -> tuple[int, bytes] | None:
        """None once the peer has closed; messages that make no sense are passed over."""
        while (message := await self._websocket.receive()) is not None:
            if message.data and (read := self._read(message)) is not None:
                return read
        return None

    def _read(self, message: Message) -> tuple[int, bytes] | None:
        if not self._base64:
            return message.data[0], message.data[1:]
        try:
            return message.data[0] - ord("0"), base64.b64decode(message.data[1:])
        except binascii.Error:
            return None

    async def send(self, channel: int, data: bytes) -> None:
        if self._base64:
            await self._websocket.send_text(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self._websocket.send(bytes((channel,)) + data)


class WebSocketStreams:
    """See `Streams`. `run` must go on beside it."""

    def __init__(self, websocket: WebSocket, protocol: str) -> None:
        self._websocket = websocket
        self._channels = Channels(websocket, protocol)
        self._has_status = protocol.startswith(("v4.", "v5."))
        self._closes_channels = protocol == V5
        self._stdin = Inbox()
        self._sizes: deque[tuple[int, int]] = deque(maxlen=1)
        self._size_changed = asyncio.Event()
        self._gone = asyncio.Event()

    async def run(self) -> None:
        try:
            while (message := await self._channels.receive()) is not None:
                await self._take(*message)
        finally:
            self._gone.set()
            self._stdin.close()

    async def _take(self, channel: int, data: bytes) -> None:
        if channel == STDIN:
            await self._stdin.put(data)
        elif channel == RESIZE and (size := read_size(data)) is not None:
            self._sizes.append(size)
            self._size_changed.set()
        elif channel == _CLOSE_SIGNAL and self._closes_channels and data[:1] == bytes((STDIN,)):
            self._stdin.close()

    async def greet(self, wanted: Wanted) -> None:
        """An empty message tells old clients that the session stands."""
        channel = STDOUT if wanted.stdout else STDERR if wanted.stderr else ERROR
        await self._channels.send(channel, b"")

    async def stdin(self) -> AsyncIterator[bytes]:
        while data := await self._stdin.read():
            yield data

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        while True:
            await self._size_changed.wait()
            self._size_changed.clear()
            yield self._sizes.popleft()

    async def write(self, stream: Output, data: bytes) -> None:
        await self._channels.send(STDOUT if stream == "stdout" else STDERR, data)

    async def wait_gone(self) -> None:
        await self._gone.wait()

    async def finish(self, status: Obj) -> None:
        try:
            if self._has_status:
                await self._channels.send(ERROR, dumps(status))
            elif status["status"] != "Success":
                await self._channels.send(ERROR, str(status["message"]).encode())
            await self._websocket.send_close()
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._gone.wait()
        except (ConnectionError, TimeoutError) as error:
            log.debug("client left early", extra={"error": error})


def read_size(data: bytes) -> tuple[int, int] | None:
    """`{"Width": 80, "Height": 24}` as columns and rows; None for anything else."""
    try:
        size: Any = loads(data)
    except JSONDecodeError:
        return None
    if not isinstance(size, dict):
        return None
    columns, rows = size.get("Width"), size.get("Height")
    if isinstance(columns, int) and isinstance(rows, int) and 0 < columns < 65536 and 0 < rows < 65536:
        return columns, rows
    return None
