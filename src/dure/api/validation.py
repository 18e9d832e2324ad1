"""Checks an object against the structure of its type, as the upstream decoder does, and answers in its words.

`decode_object` is what a server calls on a body: wrong types are BadRequest, unknown fields are cut out and named,
times and quantities take their canonical form. The first pass only looks; paths are built when something is wrong.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from dure.api.kind import Kind
from dure.api.quantities import canonical_quantity
from dure.api.schemas import OBJECT_META, Schema, Schemas
from dure.core.clock import parse_rfc3339, rfc3339, rfc3339_micro
from dure.core.errors import BadRequest
from dure.core.json import Obj

_INT_RANGES = {"int32": 1 << 31, "int64": 1 << 63}
_JSON_NAMES = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}


class _TypeMismatch(Exception):
    """The text of the decoder's error."""


def decode_object(kind: Kind, obj: Obj) -> list[str]:
    """Check and clean `obj` in place; gives what was cut out, as `unknown field "spec.foo"`. Raises BadRequest."""
    if kind.custom is not None:
        return prune(custom_schema(kind), obj)
    return decode_as(kind.schema, kind.version, kind.kind, obj)


def decode_as(definition: str, version: str, kind: str, obj: Any) -> list[str]:
    """`decode_object` for a type named by its definition, such as DeleteOptions."""
    schema = Schemas.load().definition(definition)
    if _is_clean(schema, obj):
        return []
    try:
        cleaner = _Cleaner()
        cleaner.clean(schema, obj, "", "", schema.go_name)
    except _TypeMismatch as error:
        raise BadRequest(f'{kind} in version "{version}" cannot be handled as a {kind}: {error}') from None
    return [f'unknown field "{path}"' for path in cleaner.unknown]


def strict_error(kind: Kind, problems: list[str]) -> BadRequest:
    """What `fieldValidation=Strict` answers to the findings of `decode_object`."""
    text = f"strict decoding error: {', '.join(problems)}"
    if kind.custom is not None:
        return BadRequest(text)
    return BadRequest(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {text}')


def custom_schema(kind: Kind) -> Schema:
    """The structural schema of a custom kind, with the server's own object metadata in it."""
    raw = ((kind.custom or {}).get("schema") or {}).get("openAPIV3Schema") or _FREE
    key = id(raw)
    found = _custom_schemas.get(key)
    if found is None or found[0] is not raw:
        if len(_custom_schemas) > 1000:
            _custom_schemas.clear()
        header = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"$ref": OBJECT_META}}
        whole = {"type": "object", **raw, "properties": {**(raw.get("properties") or {}), **header}}
        found = _custom_schemas[key] = raw, Schema.from_openapi(whole, Schemas.load())
    return found[1]


_FREE: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_custom_schemas: dict[int, tuple[Any, Schema]] = {}
"""By identity of the raw schema, which each entry keeps alive and compares."""


# ── the look: true when there is nothing to do ────────────────────────────────────────────────────────────────────


def _is_clean(schema: Schema, value: Any) -> bool:
    match schema.type:
        case "string":
            return type(value) is str and (not schema.format or _is_clean_text(schema, value))
        case "object":
            return type(value) is dict and _is_clean_object(schema, value)
        case "array":
            items = schema.items
            return type(value) is list and items is not None and all(_is_clean(items, item) for item in value)
        case "integer":
            limit = _INT_RANGES.get(schema.format)
            return type(value) is int and (limit is None or -limit <= value < limit)
        case "boolean":
            return type(value) is bool
        case "number":
            return type(value) is float or type(value) is int
    return _is_clean_untyped(schema, value)


def _is_clean_object(schema: Schema, value: dict[str, Any]) -> bool:
    properties = schema.properties
    if properties:
        for name, item in value.items():
            child = properties.get(name)
            if child is None or not _is_clean(child, item):
                return False
        return True
    additional = schema.additional
    if additional is not None:
        return all(_is_clean(additional, item) for item in value.values())
    return schema.preserve_unknown or not value


def _is_clean_text(schema: Schema, value: str) -> bool:
    if schema.format == "byte":
        return _base64_fault(value) is None
    if schema.format == "date-time":
        return len(value) == (27 if schema.go_name == "MicroTime" else 20) and _canonical_time(schema, value) == value
    return True


def _is_clean_untyped(schema: Schema, value: Any) -> bool:
    if schema.format == "quantity":
        try:
            return type(value) is str and canonical_quantity(value) == value
        except ValueError:
            return False
    if schema.int_or_string:
        return type(value) is str or (type(value) is int and -(1 << 31) <= value < 1 << 31)
    return True


def _base64_fault(text: str) -> int | None:
    """Where standard base64 breaks, as the Go decoder counts it."""
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        return next((index for index, char in enumerate(text) if char not in alphabet), len(text) // 4 * 4)
    return None


def _canonical_time(schema: Schema, value: str) -> str:
    if schema.go_name == "MicroTime":
        return rfc3339_micro(parse_rfc3339(value))
    return rfc3339(parse_rfc3339(value))


# ── the cleaning: with paths, in place ────────────────────────────────────────────────────────────────────────────


class _Cleaner:
    """Walks with two paths: the user's (`spec.containers[0].name`) and the decoder's (`spec.containers.name`)."""

    def __init__(self) -> None:
        self.unknown: list[str] = []

    def clean(self, schema: Schema, value: Any, path: str, field: str, struct: str) -> Any:
        """The value in canonical form; containers are changed in place."""
        match schema.type:
            case "object":
                return self._clean_object(schema, value, path, field, struct)
            case "array":
                return self._clean_array(schema, value, path, field, struct)
            case "string":
                return self._clean_text(schema, value, field, struct)
        if not _is_clean(schema, value):
            return self._clean_scalar(schema, value, field, struct)
        return value

    def _clean_object(self, schema: Schema, value: Any, path: str, field: str, struct: str) -> Any:
        if type(value) is not dict:
            raise self._mismatch(schema, value, field, struct)
        name_of_struct = schema.go_name or struct
        for name in list(value):
            item = value[name]
            child = schema.properties.get(name) or schema.additional
            if child is None:
                if not schema.preserve_unknown:
                    self.unknown.append(_join(path, name))
                    del value[name]
            elif item is None:
                if child.type:
                    del value[name]
            elif schema.additional is not None and name not in schema.properties:
                value[name] = self.clean(child, item, f"{path}.{name}", field, struct)
            else:
                value[name] = self.clean(child, item, _join(path, name), _join(field, name), name_of_struct)
        return value

    def _clean_array(self, schema: Schema, value: Any, path: str, field: str, struct: str) -> Any:
        if type(value) is not list:
            raise self._mismatch(schema, value, field, struct)
        items = schema.items
        if items is not None:
            for index, item in enumerate(value):
                empty: Any = {"object": {}, "array": [], "string": ""}.get(items.type)
                present = empty if item is None else item
                value[index] = self.clean(items, present, f"{path}[{index}]", field, struct)
        return value

    def _clean_text(self, schema: Schema, value: Any, field: str, struct: str) -> Any:
        if type(value) is not str:
            raise self._mismatch(schema, value, field, struct)
        if schema.format == "byte" and (fault := _base64_fault(value)) is not None:
            raise _TypeMismatch(f"illegal base64 data at input byte {fault}")
        if schema.format == "date-time":
            try:
                return _canonical_time(schema, value)
            except ValueError:
                form = (
                    "2006-01-02T15:04:05.000000Z07:00" if schema.go_name == "MicroTime" else "2006-01-02T15:04:05Z07:00"
                )
                raise _TypeMismatch(f'parsing time "{value}" as "{form}": cannot parse "{value}" as "2006"') from None
        return value

    def _clean_scalar(self, schema: Schema, value: Any, field: str, struct: str) -> Any:
        if schema.format == "quantity" and type(value) in (str, int, float):
            try:
                return canonical_quantity(value)
            except ValueError as error:
                raise _TypeMismatch(str(error)) from None
        if schema.int_or_string:
            raise _TypeMismatch(f"json: cannot unmarshal {_json_name(value)} into Go value of type int32")
        raise self._mismatch(schema, value, field, struct)

    def _mismatch(self, schema: Schema, value: Any, field: str, struct: str) -> _TypeMismatch:
        target = _go_type(schema)
        where = f"Go struct field {struct}.{field}" if field else "Go value"
        source = _json_name(value)
        if source == "number" and schema.type == "integer":
            source = f"number {value}"
        return _TypeMismatch(f"json: cannot unmarshal {source} into {where} of type {target}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _json_name(value: Any) -> str:
    return _JSON_NAMES.get(type(value), "null")


def _go_type(schema: Schema) -> str:
    if schema.type == "object" and schema.additional is not None:
        return f"map[string]{_go_type(schema.additional)}"
    if schema.type == "array" and schema.items is not None:
        return f"[]{_go_type(schema.items)}"
    if schema.type == "string" and schema.format == "byte":
        return "[]uint8"
    if schema.ref:
        return ".".join(schema.ref.split(".")[-2:])
    plain = {"integer": schema.format or "int64", "number": "float64", "boolean": "bool"}
    return plain.get(schema.type, schema.type or "interface {}")


# ── custom objects: prune only, types are the schema's own validation ─────────────────────────────────────────────


def prune(schema: Schema, obj: Obj) -> list[str]:
    """Cut what a structural schema does not name, in place; gives `unknown field "spec.foo"` for each."""
    unknown: list[str] = []
    _prune_root(schema, obj, "", unknown)
    return [f'unknown field "{path}"' for path in unknown]


def _prune_root(schema: Schema, obj: Obj, path: str, unknown: list[str]) -> None:
    """An object with apiVersion, kind and metadata of its own."""
    kept: Obj = {name: obj[name] for name in ("apiVersion", "kind", "metadata") if name in obj}
    meta = kept.get("metadata")
    if isinstance(meta, dict):
        cleaner = _Cleaner()
        try:
            cleaner.clean(Schemas.load().object_meta, meta, _join(path, "metadata"), "metadata", "ObjectMeta")
        except _TypeMismatch as error:
            raise BadRequest(f"failed to decode metadata: {error}") from None
        unknown.extend(cleaner.unknown)
    rest = {name: value for name, value in obj.items() if name not in kept}
    _prune(schema, rest, path, unknown)
    obj.clear()
    obj.update(kept)
    obj.update(rest)


def _prune(schema: Schema, value: Any, path: str, unknown: list[str]) -> None:
    if isinstance(value, list):
        if schema.items is not None:
            for index, item in enumerate(value):
                _prune_child(schema.items, item, f"{path}[{index}]", unknown)
        return
    if not isinstance(value, dict):
        return
    for name in list(value):
        child = schema.properties.get(name) or schema.additional
        if child is not None:
            _prune_child(child, value[name], _join(path, name), unknown)
        elif not schema.preserve_unknown:
            unknown.append(_join(path, name))
            del value[name]


def _prune_child(schema: Schema, value: Any, path: str, unknown: list[str]) -> None:
    if schema.embedded_resource and isinstance(value, dict):
        _prune_root(schema, value, path, unknown)
    else:
        _prune(schema, value, path, unknown)
