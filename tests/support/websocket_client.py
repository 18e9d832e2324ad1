"""A WebSocket client over a duplex, frame by frame."""

from __future__ import annotations

import os
import struct

from tests.support.duplex import MemoryDuplex

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}


class WebSocketClient:
    def __init__(self, duplex: MemoryDuplex) -> None:
        self.duplex = duplex

    async def handshake(self) -> str:
        return (await self.duplex.read_until(b"\r\n\r\n")).decode()

    async def send(self, data: bytes, opcode: int = 2, *, fin: bool = True, masked: bool = True) -> None:
        size, mask = len(data), os.urandom(4)
        head = struct.pack(">B", (0x80 if fin else 0) | opcode)
        bit = 0x80 if masked else 0
        if size < 126:
            head += struct.pack(">B", bit | size)
        elif size < 65536:
            head += struct.pack(">BH", bit | 126, size)
        else:
            head += struct.pack(">BQ", bit | 127, size)
        if masked:
            data = mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        await self.duplex.write(head + data)

    async def receive(self) -> tuple[int, bytes] | None:
        """Opcode and payload of the next frame; None at the end."""
        head = await self.duplex.read_exactly(2)
        if len(head) < 2:
            return None
        size = head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(await self.duplex.read_exactly(2 if size == 126 else 8), "big")
        return head[0] & 0x0F, await self.duplex.read_exactly(size)
