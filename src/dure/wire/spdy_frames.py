"""SPDY/3.1 on the wire: control and data frames, and header blocks under zlib.

Draft 3.1, sections 2.2 and 2.6. Only what a byte stream needs is here: no push, no priorities, no credentials.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FLAG_FIN = 0x01
INITIAL_WINDOW = 65536
SETTING_INITIAL_WINDOW = 7

PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL, INTERNAL_ERROR = 1, 2, 3, 5, 6
FLOW_CONTROL_ERROR = 7

_VERSION = 0x8003
_MAX_CONTROL_BYTES = 128 * 1024
_MAX_DATA_BYTES = 4 * 1024 * 1024
_MAX_HEADER_BYTES = 64 * 1024
_MAX_HEADERS = 100

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_MORE_WORDS = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_TAIL = (
    b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    b"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    b"404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    b"Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    b"chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    b"publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.encode() for word in (*_WORDS.split(), *_MORE_WORDS)) + _TAIL
"""The compression dictionary of SPDY/3, appendix of the draft."""


class SpdyError(ConnectionError):
    """The peer broke the protocol; the connection cannot go on."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A control frame (`type` > 0) or a data frame (`type` 0, `stream` set)."""

    type: int
    flags: int
    payload: bytes
    stream: int = 0

    @property
    def fin(self) -> bool:
        return bool(self.flags & FLAG_FIN)


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are now whole. Raises SpdyError."""
        self._buffer += data
        at = 0
        try:
            while (end := self._end_of_frame(at)) is not None:
                frame = self._frame(at, end)
                at = end
                yield frame
        finally:
            del self._buffer[:at]

    def _end_of_frame(self, at: int) -> int | None:
        if len(self._buffer) < at + 8:
            return None
        size = int.from_bytes(self._buffer[at + 5 : at + 8], "big")
        if size > (_MAX_CONTROL_BYTES if self._buffer[at] & 0x80 else _MAX_DATA_BYTES):
            raise SpdyError(f"a frame of {size} bytes is too large")
        return at + 8 + size if len(self._buffer) >= at + 8 + size else None

    def _frame(self, at: int, end: int) -> Frame:
        first, flags = int.from_bytes(self._buffer[at : at + 4], "big"), self._buffer[at + 4]
        payload = bytes(self._buffer[at + 8 : end])
        if not first & 0x8000_0000:
            return Frame(0, flags, payload, first)
        if first >> 16 != _VERSION:
            raise SpdyError(f"SPDY version {first >> 16 & 0x7FFF}, expected 3")
        return Frame(first & 0xFFFF, flags, payload)


def control_frame(type_: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", _VERSION, type_, flags << 24 | len(payload)) + payload


def data_frame(stream: int, data: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", stream, flags << 24 | len(data)) + data


def numbers(payload: bytes, count: int) -> tuple[int, ...]:
    """`count` 32-bit numbers at the start of a payload, the reserved first bit cleared. Raises SpdyError."""
    if len(payload) < 4 * count:
        raise SpdyError("control frame is too short")
    return tuple(number & 0x7FFF_FFFF for number in struct.unpack_from(f">{count}I", payload))


def settings(payload: bytes) -> dict[int, int]:
    """SETTINGS entries by id."""
    (count,) = numbers(payload, 1)
    if len(payload) != 4 + 8 * count:
        raise SpdyError("SETTINGS frame of wrong length")
    pairs = struct.unpack(f">{2 * count}I", payload[4:])
    return {pairs[index] & 0xFFFFFF: pairs[index + 1] for index in range(0, 2 * count, 2)}


class HeaderReader:
    """The peer's header blocks, all in one zlib stream."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def read(self, block: bytes) -> dict[str, str]:
        """Names in lower case; several values of a name joined by a comma. Raises SpdyError."""
        try:
            plain = self._inflate.decompress(block, _MAX_HEADER_BYTES)
        except zlib.error as error:
            raise SpdyError(f"header block: {error}") from error
        if self._inflate.unconsumed_tail:
            raise SpdyError("header block is too large")
        return dict(self._pairs(plain))

    def _pairs(self, plain: bytes) -> Iterator[tuple[str, str]]:
        count, at = self._number(plain, 0), 4
        if count > _MAX_HEADERS:
            raise SpdyError(f"{count} headers")
        for _ in range(count):
            name, at = self._text(plain, at)
            value, at = self._text(plain, at)
            yield name.lower(), value.replace("\0", ", ")

    def _text(self, plain: bytes, at: int) -> tuple[str, int]:
        end = at + 4 + self._number(plain, at)
        if end > len(plain):
            raise SpdyError("header block ends early")
        return plain[at + 4 : end].decode("latin-1"), end

    @staticmethod
    def _number(plain: bytes, at: int) -> int:
        if at + 4 > len(plain):
            raise SpdyError("header block ends early")
        return int.from_bytes(plain[at : at + 4], "big")


class HeaderWriter:
    """Our header blocks, all in one zlib stream."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def write(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack(">I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode("latin-1"), value.encode("latin-1")):
                parts += (struct.pack(">I", len(text)), text)
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
