"""A SPDY/3.1 client over a duplex, as simple as tests allow: it notes every frame that comes."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from dure.wire.spdy_frames import (
    FLAG_FIN,
    RST_STREAM,
    SYN_REPLY,
    SYN_STREAM,
    Frame,
    FrameReader,
    HeaderReader,
    HeaderWriter,
    control_frame,
    data_frame,
)
from tests.support.duplex import MemoryDuplex


class SpdyClient:
    def __init__(self, duplex: MemoryDuplex) -> None:
        self.duplex = duplex
        self.frames: list[Frame] = []
        self._reader, self._headers, self._replies = FrameReader(), HeaderWriter(), HeaderReader()
        self._next = 1

    async def open(self, headers: Mapping[str, str], *, fin: bool = False) -> int:
        number, self._next = self._next, self._next + 2
        payload = struct.pack(">IIH", number, 0, 0) + self._headers.write(headers)
        await self.duplex.write(control_frame(SYN_STREAM, payload, FLAG_FIN if fin else 0))
        return number

    async def send(self, number: int, data: bytes, *, fin: bool = False) -> None:
        await self.duplex.write(data_frame(number, data, FLAG_FIN if fin else 0))

    async def reset(self, number: int) -> None:
        await self.duplex.write(control_frame(RST_STREAM, struct.pack(">II", number, 5)))

    async def next_frame(self) -> Frame | None:
        """In order of arrival; None at the end."""
        while not self.frames:
            data = await self.duplex.read()
            if not data:
                return None
            self.frames += self._reader.feed(data)
        frame = self.frames.pop(0)
        if frame.type == SYN_REPLY:
            self._replies.read(frame.payload[4:])
        return frame

    async def next_of(self, type_: int) -> Frame:
        while (frame := await self.next_frame()) is not None:
            if frame.type == type_:
                return frame
        raise AssertionError(f"no frame of type {type_}")

    async def read_all(self, *numbers: int) -> dict[int, bytes]:
        """Until each of the streams has ended."""
        found, open_ = dict.fromkeys(numbers, b""), set(numbers)
        while open_ and (frame := await self.next_frame()) is not None:
            if frame.type == 0 and frame.stream in found:
                found[frame.stream] += frame.payload
                if frame.fin:
                    open_.discard(frame.stream)
            elif frame.type == RST_STREAM:
                open_.discard(struct.unpack(">I", frame.payload[:4])[0])
        assert not open_, f"streams {open_} did not end"
        return found
