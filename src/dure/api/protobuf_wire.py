"""The protobuf wire format: varints, tags, lengths. Bounds are checked; nothing is copied but what is kept."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from dure.core.errors import BadRequest

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Value = int | memoryview
"""A varint or fixed number as unsigned bits, else the bytes."""


def malformed(why: str) -> BadRequest:
    return BadRequest(f"unable to decode protobuf body: {why}")


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise malformed("unexpected end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift > 63:
            raise malformed("integer overflow")


def read_fields(data: memoryview) -> Iterator[tuple[int, int, Value]]:
    """Number, wire type and value of each field of a message, in order."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise malformed("field number 0")
        value: Value
        if wire == VARINT:
            value, at = read_varint(data, at)
        elif wire == BYTES:
            size, start = read_varint(data, at)
            at = start + size
            if at > len(data):
                raise malformed("unexpected end")
            value = data[start:at]
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
            if at + size > len(data):
                raise malformed("unexpected end")
            value = int.from_bytes(data[at : at + size], "little")
            at += size
        else:
            raise malformed(f"wire type {wire}")
        yield number, wire, value


def signed(value: int) -> int:
    """A varint's bits as a two's complement number."""
    return value - (1 << 64) if value >= 1 << 63 else value


def varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_field(number: int, value: int) -> bytes:
    return varint(number << 3 | VARINT) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def double_field(number: int, value: float) -> bytes:
    return varint(number << 3 | FIXED64) + struct.pack("<d", value)


def double(bits: int) -> float:
    return float(struct.unpack("<d", bits.to_bytes(8, "little"))[0])
