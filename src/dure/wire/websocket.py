"""The server's end of a WebSocket over any `Duplex`: RFC 6455 without extensions.

Pings are answered here, fragments joined, and every limit breach or protocol error closes with its own code.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from dure.core.errors import BadRequest
from dure.wire.http import Duplex, Request

log = logging.getLogger(__name__)

MESSAGE_BYTES = 4 * 1024 * 1024
"""The longest message taken, over all its fragments."""

NORMAL, GOING_AWAY, PROTOCOL_ERROR, BAD_DATA, TOO_LARGE, INTERNAL_ERROR = 1000, 1001, 1002, 1007, 1009, 1011

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Message:
    data: bytes
    is_text: bool = False


class _Broken(Exception):
    """The peer broke the protocol; `code` says how."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def wants_websocket(request: Request) -> bool:
    connection = request.headers.get("connection", "").lower()
    return request.headers.get("upgrade", "").lower() == "websocket" and "upgrade" in connection


def choose_protocol(request: Request, supported: Sequence[str]) -> str:
    """The first subprotocol the client offers that is supported; "" if it offers none and that is supported.

    Raises BadRequest.
    """
    text = request.headers.get("sec-websocket-protocol", "")
    offered = [part.strip() for part in text.split(",") if part.strip()] or [""]
    chosen = next((protocol for protocol in offered if protocol in supported), None)
    if chosen is None:
        known = " ".join(protocol for protocol in supported if protocol)
        raise BadRequest(f"requested protocol(s) are not supported: [{' '.join(offered)}]; supports [{known}]")
    return chosen


async def accept_websocket(request: Request, protocol: str = "") -> WebSocket:
    """Take the connection over and answer the handshake. Raises BadRequest before anything was answered."""
    key = request.headers.get("sec-websocket-key", "")
    if not wants_websocket(request) or request.method != "GET" or request.upgrade is None:
        raise BadRequest("a WebSocket upgrade was expected")
    if request.headers.get("sec-websocket-version", "") != "13":
        raise BadRequest("only WebSocket version 13 is spoken here")
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64")
    except binascii.Error:
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64") from None
    proof = base64.b64encode(hashlib.sha1(key.encode() + _MAGIC).digest()).decode()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {proof}",
    ]
    if protocol:
        lines.append(f"Sec-WebSocket-Protocol: {protocol}")
    duplex = await request.upgrade()
    await duplex.write("\r\n".join([*lines, "", ""]).encode())
    return WebSocket(duplex)


class WebSocket:
    """An open connection. One task receives; any may send, each message in one write."""

    def __init__(self, duplex: Duplex, *, limit: int = MESSAGE_BYTES) -> None:
        self._duplex = duplex
        self._limit = limit
        self._buffer = bytearray()
        self._close_sent = False
        self._peer_closed = False

    async def receive(self) -> Message | None:
        """The next message; None once the peer has closed, has gone, or had to be refused."""
        if self._peer_closed:
            return None
        try:
            return await self._next_message()
        except _Broken as error:
            log.info("websocket refused", extra={"error": error})
            await self.send_close(error.code, str(error))
        except ConnectionError as error:
            log.debug("websocket lost", extra={"error": error})
        self._peer_closed = True
        return None

    async def _next_message(self) -> Message | None:
        parts: list[bytes] = []
        kind = size = 0
        while True:
            opcode, fin, data = await self._next_frame(self._limit - size)
            if opcode == _CLOSE:
                self._peer_closed = True
                await self.send_close(_close_code(data), "")
                return None
            if opcode >= _CLOSE:
                if opcode == _PING and not self._close_sent:
                    await self._duplex.write(_frame(_PONG, data))
                continue
            if (opcode == _CONTINUATION) != bool(kind):
                raise _Broken(PROTOCOL_ERROR, "unexpected fragment")
            kind = kind or opcode
            parts.append(data)
            size += len(data)
            if fin:
                return _message(kind, b"".join(parts))

    async def _next_frame(self, room: int) -> tuple[int, bool, bytes]:
        first, second = await self._take(2)
        opcode, fin, size = first & 0x0F, bool(first & 0x80), second & 0x7F
        if first & 0x70 or opcode not in (_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG):
            raise _Broken(PROTOCOL_ERROR, "unknown frame")
        if not second & 0x80:
            raise _Broken(PROTOCOL_ERROR, "frames of a client must be masked")
        if opcode >= _CLOSE and (size > 125 or not fin):
            raise _Broken(PROTOCOL_ERROR, "control frames are short and whole")
        if size >= 126:
            size = int.from_bytes(await self._take(2 if size == 126 else 8), "big")
        if opcode < _CLOSE and size > room:
            raise _Broken(TOO_LARGE, f"a message may have {self._limit} bytes")
        mask = await self._take(4)
        return opcode, fin, _masked(await self._take(size), mask)

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = await self._duplex.read()
            if not data:
                raise ConnectionResetError("the peer has gone")
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def send(self, data: bytes) -> None:
        """A binary message. Waits while the peer is slow. Raises ConnectionError."""
        await self._send(_BINARY, data)

    async def send_text(self, text: str) -> None:
        await self._send(_TEXT, text.encode())

    async def _send(self, opcode: int, data: bytes) -> None:
        if self._close_sent:
            raise ConnectionResetError("the websocket is closed")
        await self._duplex.write(_frame(opcode, data))

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye, wait a little for the peer's, and close; while no one else receives. Safe to repeat."""
        await self.send_close(code, reason)
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                while not self._peer_closed:
                    await self.receive()
        except TimeoutError:
            log.debug("no goodbye from the peer")
        await self._duplex.close()

    async def send_close(self, code: int = NORMAL, reason: str = "") -> None:
        """Nothing may be sent after this; `receive` goes on until the peer answers. Safe to repeat, never raises."""
        if self._close_sent:
            return
        self._close_sent = True
        try:
            await self._duplex.write(_frame(_CLOSE, struct.pack(">H", code) + reason.encode()[:120]))
        except ConnectionError as error:
            log.debug("websocket lost", extra={"error": error})


def _close_code(data: bytes) -> int:
    code: int = struct.unpack(">H", data[:2])[0] if len(data) >= 2 else NORMAL
    return code if 1000 <= code <= 4999 and code not in (1004, 1005, 1006, 1015) else PROTOCOL_ERROR


def _message(kind: int, data: bytes) -> Message:
    if kind == _TEXT:
        try:
            data.decode()
        except UnicodeDecodeError:
            raise _Broken(BAD_DATA, "a text message must be UTF-8") from None
    return Message(data, kind == _TEXT)


def _masked(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask, as one large number: the fastest way plain Python has."""
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def _frame(opcode: int, data: bytes) -> bytes:
    size = len(data)
    if size < 126:
        head = struct.pack(">BB", 0x80 | opcode, size)
    elif size < 65536:
        head = struct.pack(">BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
    return head + data


class WebSocketDuplex:
    """Bytes in binary messages as a plain `Duplex`: how SPDY is tunnelled."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._rest = b""

    async def read(self, limit: int = 65536) -> bytes:
        while not self._rest:
            message = await self._websocket.receive()
            if message is None:
                return b""
            self._rest = message.data
        taken, self._rest = self._rest[:limit], self._rest[limit:]
        return taken

    async def write(self, data: bytes) -> None:
        await self._websocket.send(data)

    def write_eof(self) -> None:
        """A WebSocket has no half-close; `close` ends it."""

    async def close(self) -> None:
        await self._websocket.close()
