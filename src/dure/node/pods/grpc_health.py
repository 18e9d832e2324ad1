"""One `grpc.health.v1.Health/Check` over a fresh connection: as much of HTTP/2 (RFC 9113) as that takes.

Headers are sent as HPACK literals without indexing; the answer's headers are not read, its one message is.
"""

from __future__ import annotations

import struct
from typing import Any

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS, ACK, PADDED = 1, 4, 1, 8
FRAME_LIMIT = 1 << 14
STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


async def check(reader: Any, writer: Any, authority: str, service: str) -> tuple[bool, str]:
    """Whether the service says SERVING, else what to report. Raises OSError or IncompleteReadError when cut off."""
    writer.write(PREFACE + frame(SETTINGS, 0, 0) + request(authority, service))
    await writer.drain()
    message = b""
    while True:
        kind, flags, stream, payload = await _read_frame(reader)
        if kind == SETTINGS and not flags & ACK:
            writer.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            writer.write(frame(PING, ACK, 0, payload))
        elif kind in (GOAWAY, RST_STREAM):
            break
        elif stream == 1:
            if kind == DATA:
                message += _unpadded(payload, flags)
            if flags & END_STREAM:
                break
    return verdict(message)


def verdict(message: bytes) -> tuple[bool, str]:
    """From the length-prefixed HealthCheckResponse: field 1 is the status."""
    if len(message) < 5:
        return False, "error: health rpc failed: the server gave no answer"
    body = message[5:]
    status = body[1] if len(body) >= 2 and body[0] == 0x08 else 0
    if status == 1:
        return True, "service healthy"
    return False, f"service unhealthy (responded with {STATUS.get(status, str(status))!r})".replace("'", '"')


def request(authority: str, service: str) -> bytes:
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "kube-probe/1.33"),
    ]
    block = b"".join(_literal(name, value) for name, value in headers)
    name = service.encode()
    body = b"\x0a" + _varint(len(name)) + name if name else b""
    message = b"\x00" + struct.pack(">I", len(body)) + body
    return frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, message)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _literal(name: str, value: str) -> bytes:
    """HPACK: literal header field without indexing, new name, no Huffman."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    return b"\x7f" + _varint(len(data) - 127) + data


def _varint(value: int) -> bytes:
    encoded = b""
    while value >= 128:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])


async def _read_frame(reader: Any) -> tuple[int, int, int, bytes]:
    head = await reader.readexactly(9)
    length = int.from_bytes(head[:3], "big")
    if length > FRAME_LIMIT:
        raise ValueError(f"an HTTP/2 frame of {length} bytes")
    stream = int.from_bytes(head[5:9], "big") & 0x7FFFFFFF
    return head[3], head[4], stream, await reader.readexactly(length)


def _unpadded(payload: bytes, flags: int) -> bytes:
    if not flags & PADDED or not payload:
        return payload
    return payload[1 : len(payload) - payload[0]]
