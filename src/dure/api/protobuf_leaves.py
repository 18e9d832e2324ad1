"""Messages whose JSON form is not that of their fields: times, durations, quantities, int-or-string, raw JSON."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from dure.api.protobuf_wire import bytes_field, malformed, read_fields, signed, varint_field
from dure.core.json import dumps

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"h": 3_600_000_000_000, "m": 60_000_000_000, "s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3, "ns": 1}
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|h|m|s)")


def text(data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise malformed("a string is not UTF-8") from None


def _numbers(data: memoryview) -> dict[int, int]:
    """The number fields of a message; others are not expected beside them."""
    return {number: signed(value) for number, _, value in read_fields(data) if isinstance(value, int)}


def _first(data: memoryview, wanted: int) -> memoryview:
    """The bytes of field `wanted`, empty when it is left out."""
    found = [value for number, _, value in read_fields(data) if number == wanted]
    value = found[-1] if found else memoryview(b"")
    if isinstance(value, int):
        raise malformed(f"field {wanted} is a number")
    return value


def _moment(data: memoryview) -> tuple[datetime, int] | None:
    """Whole seconds and nanoseconds; None for no time."""
    if not data:
        return None
    members = _numbers(data)
    try:
        return _EPOCH + timedelta(seconds=members.get(1, 0)), members.get(2, 0) % 10**9
    except OverflowError:
        raise malformed("a time is out of range") from None


def _read_time(data: memoryview) -> str | None:
    moment = _moment(data)
    return None if moment is None else f"{moment[0]:%Y-%m-%dT%H:%M:%S}Z"


def _read_micro_time(data: memoryview) -> str | None:
    moment = _moment(data)
    return None if moment is None else f"{moment[0]:%Y-%m-%dT%H:%M:%S}.{moment[1] // 1000:06d}Z"


def _write_time(value: str) -> bytes:
    moment = datetime.fromisoformat(value) - _EPOCH
    seconds = moment.days * 86_400 + moment.seconds
    return varint_field(1, seconds) + varint_field(2, moment.microseconds * 1000)


def _read_duration(data: memoryview) -> str:
    """As Go prints one: 1h2m3.5s, 250ms, 0s."""
    left = _numbers(data).get(1, 0)
    sign, left = ("-", -left) if left < 0 else ("", left)
    if left == 0:
        return "0s"
    if left < 10**9:
        unit = next(unit for unit in ("ms", "µs", "ns") if left >= _UNITS[unit])
        return f"{sign}{_decimal(left, _UNITS[unit])}{unit}"
    hours, left = divmod(left, _UNITS["h"])
    minutes, left = divmod(left, _UNITS["m"])
    parts = f"{hours}h" if hours else ""
    parts += f"{minutes}m" if hours or minutes else ""
    return f"{sign}{parts}{_decimal(left, 10**9)}s"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0").rstrip(".") if rest else str(whole)


def _write_duration(value: str) -> bytes:
    parts = _DURATION_PART.findall(value)
    total = sum(round(float(number) * _UNITS[unit]) for number, unit in parts)
    return varint_field(1, -total if value.startswith("-") else total)


def _read_quantity(data: memoryview) -> str:
    return text(_first(data, 1)) or "0"


def _write_quantity(value: str | float) -> bytes:
    return bytes_field(1, str(value).encode())


def _read_int_or_string(data: memoryview) -> int | str:
    members = _numbers(data)
    return text(_first(data, 3)) if members.get(1, 0) == 1 else members.get(2, 0)


def _write_int_or_string(value: int | str) -> bytes:
    if isinstance(value, str):
        return varint_field(1, 1) + varint_field(2, 0) + bytes_field(3, value.encode())
    return varint_field(1, 0) + varint_field(2, value) + bytes_field(3, b"")


def read_raw(data: memoryview) -> bytes:
    return bytes(_first(data, 1))


def _write_raw(value: Any) -> bytes:
    return bytes_field(1, dumps(value))


def _read_items(data: memoryview) -> list[str]:
    return [text(value) for number, wire, value in read_fields(data) if number == 1 and isinstance(value, memoryview)]


def _write_items(value: list[str]) -> bytes:
    return b"".join(bytes_field(1, item.encode()) for item in value)


def read_bytes(data: memoryview) -> str:
    return base64.b64encode(data).decode()


def write_bytes(value: str) -> bytes:
    return base64.b64decode(value)


READERS: dict[str, Callable[[memoryview], Any]] = {
    "string": text,
    "bytes": read_bytes,
    "time": _read_time,
    "micro": _read_micro_time,
    "duration": _read_duration,
    "quantity": _read_quantity,
    "intstr": _read_int_or_string,
    "items": _read_items,
}
"""From the bytes of a length-delimited field; `raw1` is read where nested bodies are understood."""

WRITERS: dict[str, Callable[[Any], bytes]] = {
    "string": lambda value: str(value).encode(),
    "bytes": write_bytes,
    "time": _write_time,
    "micro": _write_time,
    "duration": _write_duration,
    "quantity": _write_quantity,
    "intstr": _write_int_or_string,
    "raw1": _write_raw,
    "items": _write_items,
}
