"""Kubernetes' protobuf bodies, both ways, for every built-in kind.

A body is `k8s\\0` and a `runtime.Unknown` with the type and the bytes of the message. A field the table does not know
is refused, never dropped: what a client sends is kept whole or not at all.
"""

from __future__ import annotations

from typing import Any

from dure.api.protobuf_leaves import READERS, WRITERS, read_raw, text
from dure.api.protobuf_table import Field, Message, table
from dure.api.protobuf_wire import (
    FIXED64,
    VARINT,
    Value,
    bytes_field,
    double,
    double_field,
    malformed,
    read_fields,
    read_varint,
    signed,
    varint_field,
)
from dure.core.errors import UnsupportedMediaType
from dure.core.json import JSONDecodeError, Obj, loads

MAGIC = b"k8s\0"
CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAX_DEPTH = 120
_SCHEMA = "apiextensions/v1.JSONSchemaProps"


def decode(data: bytes) -> Obj:
    """The object of a body. Raises BadRequest for broken bytes, UnsupportedMediaType for unknown kinds and fields."""
    if not data.startswith(MAGIC):
        raise malformed("provided data does not appear to be a protobuf message, expected prefix k8s\\0")
    return _decode(memoryview(data), 0)


def _decode(data: memoryview, depth: int) -> Obj:
    """An envelope and what is in it."""
    parts = _strings_of(data[len(MAGIC) :])
    if parts.get(3):
        raise UnsupportedMediaType(f"content encoding {text(parts[3])!r} inside a protobuf body")
    raw = parts.get(2, memoryview(b""))
    if bytes(parts.get(4, b"")) == b"application/json":
        value = _json(raw)
        if not isinstance(value, dict):
            raise malformed("expected an object")
        return value
    names = _strings_of(parts.get(1, memoryview(b"")))
    api_version, kind = text(names.get(1, memoryview(b""))), text(names.get(2, memoryview(b"")))
    message = table().of_kind(api_version, kind)
    if message is None:
        raise UnsupportedMediaType(f"no protobuf form is known for {kind or 'a body without kind'} in {api_version!r}")
    return {"apiVersion": api_version, "kind": kind, **_read_message(raw, message, depth)}


def _strings_of(data: memoryview) -> dict[int, memoryview]:
    parts = {}
    for number, _, value in read_fields(data):
        if isinstance(value, int):
            raise malformed("the envelope is broken")
        parts[number] = value
    return parts


def _json(raw: memoryview) -> Any:
    try:
        return loads(bytes(raw))
    except JSONDecodeError as error:
        raise malformed(f"raw JSON: {error}") from None


def _read_embedded(data: memoryview, depth: int) -> Any:
    """JSON as it is, or an object in an envelope of its own."""
    raw = memoryview(read_raw(data))
    if bytes(raw[: len(MAGIC)]) == MAGIC:
        if depth > _MAX_DEPTH:
            raise malformed("nested too deeply")
        return _decode(raw, depth + 1)
    return _json(raw) if raw else None


def _read_message(data: memoryview, message: Message, depth: int) -> Obj:
    if depth > _MAX_DEPTH:
        raise malformed("nested too deeply")
    obj: Obj = {}
    fields = message.by_number
    for number, wire, raw in read_fields(data):
        field = fields.get(number)
        if field is None:
            raise UnsupportedMediaType(f"field number {number} of {message.name} is not known here; send JSON")
        if field.shape == "map":
            key, value = _read_entry(raw, field, depth)
            obj.setdefault(field.name, {})[key] = value
            continue
        if field.shape == "list":
            _extend(obj.setdefault(field.name, []), wire, raw, field, depth)
            continue
        value = _read_value(wire, raw, field.type, depth)
        if field.inline:
            obj.update(value)
        elif value is None or (not field.zero_is_value and not value and not isinstance(value, dict)):
            obj.pop(field.name, None)
        else:
            obj[field.name] = value
    return obj


def _extend(items: list[Any], wire: int, raw: Value, field: Field, depth: int) -> None:
    """One element, or several packed numbers."""
    if field.type in ("int", "bool") and isinstance(raw, memoryview):
        for value in _packed(raw):
            items.append(bool(value) if field.type == "bool" else signed(value))
    else:
        items.append(_read_value(wire, raw, field.type, depth))


def _packed(raw: memoryview) -> list[int]:
    values: list[int] = []
    at = 0
    while at < len(raw):
        value, at = read_varint(raw, at)
        values.append(value)
    return values


def _read_entry(raw: Value, field: Field, depth: int) -> tuple[str, Any]:
    """Key and value of one map entry; the value of its type's zero when left out."""
    if not isinstance(raw, memoryview):
        raise malformed(f"{field.name} is no map entry")
    key, value = "", _zero(field.type)
    for number, wire, part in read_fields(raw):
        if number == 1:
            key = _read_value(wire, part, "string", depth)
        elif number == 2:
            value = _read_value(wire, part, field.type, depth)
    return key, value


def _zero(type_: str) -> Any:
    if type_ in ("string", "bytes"):
        return ""
    return {"int": 0, "bool": False, "items": [], "quantity": "0", "time": None}.get(type_, {})


def _read_value(wire: int, raw: Value, type_: str, depth: int) -> Any:
    if isinstance(raw, memoryview):
        reader = READERS.get(type_)
        if reader is not None:
            return reader(raw)
        if type_ == "raw1":
            return _read_embedded(raw, depth)
        message = table().message(type_)
        if message is not None:
            return _read_message(raw, message, depth + 1)
        if type_.startswith("schema-or-"):
            return _read_schema_or(raw, type_, depth)
    elif wire == VARINT and type_ == "int":
        return signed(raw)
    elif wire == VARINT and type_ == "bool":
        return raw != 0
    elif wire == FIXED64 and type_ == "double":
        number = double(raw)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    raise malformed(f"wire type {wire} for {type_}")


def _read_schema_or(raw: memoryview, type_: str, depth: int) -> Any:
    """JSON schema's members that may be a schema or something else: field 1 and 2, bool's the other way round."""
    parts: dict[int, list[tuple[int, Value]]] = {1: [], 2: []}
    for number, wire, part in read_fields(raw):
        parts.setdefault(number, []).append((wire, part))
    schema, others = (parts[2], parts[1]) if type_ == "schema-or-bool" else (parts[1], parts[2])
    if schema:
        return _read_value(*schema[0], _SCHEMA, depth)
    if type_ == "schema-or-bool":
        return bool(others and others[0][1])
    return [_read_value(*other, "string" if type_ == "schema-or-strings" else _SCHEMA, depth) for other in others]


def encode(obj: Obj) -> bytes:
    """The body for an object. Members the kind does not have are left out. Raises UnsupportedMediaType."""
    api_version, kind = str(obj.get("apiVersion", "")), str(obj.get("kind", ""))
    message = table().of_kind(api_version, kind)
    if message is None:
        raise UnsupportedMediaType(f"no protobuf form is known for {kind} in {api_version!r}")
    type_meta = bytes_field(1, api_version.encode()) + bytes_field(2, kind.encode())
    return b"".join(
        (
            MAGIC,
            bytes_field(1, type_meta),
            bytes_field(2, _write_message(obj, message)),
            bytes_field(3, b""),
            bytes_field(4, b""),
        )
    )


def _write_message(obj: Obj, message: Message) -> bytes:
    out: list[bytes] = []
    for field in message.fields:
        if field.inline:
            inner = table().message(field.type)
            if inner is not None:
                out.append(bytes_field(field.number, _write_message(obj, inner)))
            continue
        value = obj.get(field.name)
        if value is None:
            continue
        if field.shape == "list":
            out += [_write_field(field.number, item, field.type) for item in value]
        elif field.shape == "map":
            out += [_write_entry(field, key, value[key]) for key in sorted(value)]
        else:
            out.append(_write_field(field.number, value, field.type))
    return b"".join(out)


def _write_entry(field: Field, key: str, value: Any) -> bytes:
    return bytes_field(field.number, bytes_field(1, key.encode()) + _write_field(2, value, field.type))


def _write_field(number: int, value: Any, type_: str) -> bytes:
    if type_ in ("int", "bool"):
        return varint_field(number, int(value))
    if type_ == "double":
        return double_field(number, float(value))
    if type_.startswith("schema-or-"):
        return bytes_field(number, _write_schema_or(value, type_))
    message = table().message(type_)
    if message is not None:
        return bytes_field(number, _write_message(value, message))
    return bytes_field(number, WRITERS[type_](value))


def _write_schema_or(value: Any, type_: str) -> bytes:
    if type_ == "schema-or-bool":
        if isinstance(value, bool):
            return varint_field(1, value)
        return varint_field(1, True) + _write_field(2, value, _SCHEMA)
    if isinstance(value, dict):
        return _write_field(1, value, _SCHEMA)
    other = "string" if type_ == "schema-or-strings" else _SCHEMA
    return b"".join(_write_field(2, item, other) for item in value)
