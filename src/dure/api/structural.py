"""Values against the schema of a custom kind: defaults and validation, worded as upstream's validator.

Schemas are OpenAPI v3 in structural form, as `check_structural` lets them in.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import uuid
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from dure.api.fields import duplicate, invalid, not_supported, required, shown, too_long, too_many, type_invalid
from dure.api.kind import FieldError
from dure.core.clock import parse_rfc3339
from dure.core.json import Obj, dumps_sorted, thaw

_HEADER = ("apiVersion", "kind", "metadata")


# ── defaults ──────────────────────────────────────────────────────────────────────────────────────────────────────


def default_custom(schema: Obj, obj: Obj) -> None:
    """Fill in an object's defaults, in place; its metadata has none."""
    _default(schema, obj, skip=_HEADER)


def _default(schema: Any, value: Any, skip: tuple[str, ...] = ()) -> None:
    if not isinstance(schema, dict):
        return
    if isinstance(value, list):
        for item in value:
            _default(schema.get("items"), item)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties") or {}
    for name, child in properties.items():
        if name in skip:
            continue
        missing = name not in value or (value[name] is None and not child.get("nullable"))
        if missing and "default" in child:
            value[name] = thaw(child["default"])
        elif missing and name in value:
            del value[name]
        if name in value:
            inner = _HEADER if child.get("x-kubernetes-embedded-resource") else ()
            _default(child, value[name], inner)
    additional = schema.get("additionalProperties")
    for name, item in value.items():
        if name not in properties and isinstance(additional, dict):
            _default(additional, item)


# ── validation ────────────────────────────────────────────────────────────────────────────────────────────────────


def validate_custom(schema: Obj, obj: Obj) -> list[FieldError]:
    """All that is wrong with an object, metadata apart."""
    body = {name: value for name, value in obj.items() if name not in _HEADER}
    required_here = [name for name in schema.get("required") or () if name not in _HEADER]
    return _validate({**schema, "required": required_here}, body, "")


def _validate(schema: Any, value: Any, path: str) -> list[FieldError]:
    if not isinstance(schema, dict):
        return []
    if value is None and schema.get("nullable"):
        return []
    fault = _type_fault(schema, value, path)
    if fault is not None:
        return [fault]
    errors = _enumeration(schema, value, path)
    if isinstance(value, str):
        errors += _text(schema, value, path)
    elif isinstance(value, list):
        errors += _list(schema, value, path)
    elif isinstance(value, dict):
        errors += _object(schema, value, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        errors += _number(schema, value, path)
    return errors + _junctors(schema, value, path)


def _type_name(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _type_fault(schema: Obj, value: Any, path: str) -> FieldError | None:
    actual = _type_name(value)
    if schema.get("x-kubernetes-int-or-string"):
        if actual in ("integer", "string"):
            return None
        return type_invalid(path, actual, f"{_in_body(path)} must be of type integer,string: {shown(actual)}")
    wanted = schema.get("type")
    if not wanted or actual == wanted or (wanted == "number" and actual == "integer"):
        return None
    return type_invalid(path, actual, f"{_in_body(path)} must be of type {wanted}: {shown(actual)}")


def _in_body(path: str) -> str:
    return f"{path} in body"


def _enumeration(schema: Obj, value: Any, path: str) -> list[FieldError]:
    allowed = schema.get("enum")
    if not allowed or value in allowed:
        return []
    return [not_supported(path, value, [item if isinstance(item, str) else shown(item) for item in allowed])]


def _number(schema: Obj, value: float, path: str) -> list[FieldError]:
    errors = []
    low, high, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
    if low is not None and (value <= low if schema.get("exclusiveMinimum") else value < low):
        bound = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        errors.append(invalid(path, value, f"{_in_body(path)} should be {bound} {low}"))
    if high is not None and (value >= high if schema.get("exclusiveMaximum") else value > high):
        bound = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        errors.append(invalid(path, value, f"{_in_body(path)} should be {bound} {high}"))
    if step and value % step:
        errors.append(invalid(path, value, f"{_in_body(path)} should be a multiple of {step}"))
    return errors


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str] | None:
    """RE2 classes that Python lacks are rare; a pattern it cannot read is not enforced."""
    try:
        return re.compile(text.replace(r"\z", r"\Z"))
    except re.error:
        return None


def _text(schema: Obj, value: str, path: str) -> list[FieldError]:
    errors = []
    low, high, pattern = schema.get("minLength"), schema.get("maxLength"), schema.get("pattern")
    if low is not None and len(value) < low:
        errors.append(invalid(path, value, f"{_in_body(path)} should be at least {low} chars long"))
    if high is not None and len(value) > high:
        errors.append(too_long(path, high))
    if pattern:
        compiled = _pattern(pattern)
        if compiled is not None and not compiled.search(value):
            errors.append(invalid(path, value, f"{_in_body(path)} should match '{pattern}'"))
    check = _FORMATS.get(schema.get("format") or "")
    if check is not None and not _holds(check, value):
        errors.append(invalid(path, value, f"{_in_body(path)} must be of type {schema['format']}: {shown(value)}"))
    return errors


def _holds(check: Callable[[str], Any], value: str) -> bool:
    try:
        return check(value) is not False
    except ValueError:
        return False


_FORMATS: dict[str, Callable[[str], Any]] = {
    "byte": lambda value: base64.b64decode(value, validate=True),
    "date": lambda value: re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) is not None,
    "date-time": parse_rfc3339,
    "duration": lambda value: re.fullmatch(r"(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+|0", value) is not None,
    "email": lambda value: re.fullmatch(r"[^@\s]+@[^@\s]+", value) is not None,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "cidr": lambda value: ipaddress.ip_network(value, strict=False),
    "uri": lambda value: re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", value) is not None,
    "uuid": uuid.UUID,
}


def _list(schema: Obj, value: list[Any], path: str) -> list[FieldError]:
    errors = []
    low, high = schema.get("minItems"), schema.get("maxItems")
    if low is not None and len(value) < low:
        errors.append(invalid(path, len(value), f"{_in_body(path)} should have at least {low} items"))
    if high is not None and len(value) > high:
        errors.append(too_many(path, len(value), high))
    if schema.get("uniqueItems") and len({dumps_sorted(item) for item in value}) != len(value):
        errors.append(invalid(path, value, f"{_in_body(path)} shouldn't contain duplicates"))
    errors += _repeats(schema, value, path)
    for index, item in enumerate(value):
        errors += _validate(schema.get("items"), item, f"{path}[{index}]")
    return errors


def _repeats(schema: Obj, value: list[Any], path: str) -> list[FieldError]:
    """Items that are equal in a set, or have equal keys in a map."""
    kind = schema.get("x-kubernetes-list-type")
    if kind not in ("set", "map"):
        return []
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    errors, seen = [], set()
    for index, item in enumerate(value):
        mark = {key: item.get(key) for key in keys} if kind == "map" and isinstance(item, dict) else item
        encoded = dumps_sorted(mark)
        if encoded in seen:
            errors.append(duplicate(f"{path}[{index}]", mark))
        seen.add(encoded)
    return errors


def _object(schema: Obj, value: Obj, path: str) -> list[FieldError]:
    errors = []
    prefix = f"{path}." if path else ""
    names = [name for name in schema.get("required") or () if name not in value]
    errors += [required(f"{prefix}{name}") for name in names]
    low, high = schema.get("minProperties"), schema.get("maxProperties")
    if low is not None and len(value) < low:
        errors.append(invalid(path, len(value), f"{_in_body(path)} should have at least {low} properties"))
    if high is not None and len(value) > high:
        errors.append(too_many(path, len(value), high))
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    embedded = schema.get("x-kubernetes-embedded-resource")
    for name, item in value.items():
        if embedded and name in _HEADER:
            continue
        child = properties.get(name, additional)
        errors += _validate(child, item, f"{prefix}{name}")
    if embedded:
        errors += [
            required(f"{prefix}{name}", "must not be empty") for name in ("apiVersion", "kind") if not value.get(name)
        ]
    return errors


def _junctors(schema: Obj, value: Any, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for child in schema.get("allOf") or ():
        errors += _validate(child, value, path)
    name = shown(path)
    choices = schema.get("anyOf")
    if choices and all(_validate(child, value, path) for child in choices):
        errors.append(invalid(path, "", f"{name} must validate at least one schema (anyOf)"))
    choices = schema.get("oneOf")
    if choices:
        valid = sum(not _validate(child, value, path) for child in choices)
        if valid != 1:
            found = "Found none valid" if not valid else f"Found {valid} valid alternatives"
            detail = f"{name} must validate one and only one schema (oneOf). {found}"
            errors.append(invalid(path, "", detail))
    if schema.get("not") and not _validate(schema["not"], value, path):
        errors.append(invalid(path, "", f"{name} must not validate the schema (not)"))
    return errors
