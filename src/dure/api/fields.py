"""The causes of an Invalid answer, worded as upstream's `field.Error`, and the answer built from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dure.api.kind import FieldError
from dure.core.errors import Invalid
from dure.core.json import dumps


def shown(value: Any) -> str:
    """A value as the message quotes it: strings quoted, numbers bare, structures as JSON."""
    return dumps(value).decode()


def _with_detail(body: str, detail: str) -> str:
    return f"{body}: {detail}" if detail else body


def required(path: str, detail: str = "") -> FieldError:
    return FieldError(path, "FieldValueRequired", _with_detail("Required value", detail))


def invalid(path: str, value: Any, detail: str) -> FieldError:
    return FieldError(path, "FieldValueInvalid", _with_detail(f"Invalid value: {shown(value)}", detail))


def not_supported(path: str, value: Any, allowed: Iterable[str]) -> FieldError:
    choices = ", ".join(shown(choice) for choice in sorted(allowed))
    return FieldError(path, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {choices}")


def duplicate(path: str, value: Any) -> FieldError:
    return FieldError(path, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def forbidden(path: str, detail: str) -> FieldError:
    return FieldError(path, "FieldValueForbidden", _with_detail("Forbidden", detail))


def not_found(path: str, value: Any) -> FieldError:
    return FieldError(path, "FieldValueNotFound", f"Not found: {shown(value)}")


def too_long(path: str, limit: int) -> FieldError:
    return FieldError(path, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def too_many(path: str, count: int, limit: int) -> FieldError:
    return FieldError(path, "FieldValueTooMany", f"Too many: {count}: must have at most {limit} items")


def type_invalid(path: str, value: Any, detail: str) -> FieldError:
    return FieldError(path, "FieldValueTypeInvalid", _with_detail(f"Invalid value: {shown(value)}", detail))


def immutable(path: str, new: Any, old: Any) -> list[FieldError]:
    """One error when `new` differs from `old`."""
    return [] if new == old else [invalid(path, new, "field is immutable")]


def invalid_error(group: str, kind: str, name: str, errors: list[FieldError]) -> Invalid:
    """`Pod "x" is invalid: spec.containers: Required value`, several causes as `[a, b]`."""
    lines = list(dict.fromkeys(f"{error.field}: {error.message}" for error in errors))
    text = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    qualified = f"{kind}.{group}" if group else kind
    details: dict[str, Any] = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = kind
    details["causes"] = [{"reason": error.reason, "message": error.message, "field": error.field} for error in errors]
    return Invalid(f"{qualified} {shown(name)} is invalid: {text}", details=details)
