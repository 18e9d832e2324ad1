"""Checks that many kinds share: one-of unions, enumerations, label selectors, quantities, port numbers or names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from dure.api.fields import duplicate, forbidden, invalid, not_supported, required
from dure.api.kind import FieldError
from dure.api.names import NameRule, label_value, port_name, port_number, qualified_name
from dure.api.quantities import parse_quantity
from dure.core.json import Obj

NOT_NEGATIVE = "must be greater than or equal to 0"


def check_name(path: str, value: str | None, rule: NameRule) -> list[FieldError]:
    """A required name that must follow `rule`."""
    if not value:
        return [required(path)]
    return [invalid(path, value, message) for message in rule(value)]


def check_optional(path: str, value: str | None, rule: NameRule) -> list[FieldError]:
    return [invalid(path, value, message) for message in rule(value)] if value else []


def check_choice(path: str, value: str | None, allowed: Collection[str]) -> list[FieldError]:
    """A required value of an enumeration."""
    if not value:
        return [required(path)]
    return [] if value in allowed else [not_supported(path, value, allowed)]


def check_optional_choice(path: str, value: str | None, allowed: Collection[str]) -> list[FieldError]:
    return [not_supported(path, value, allowed)] if value and value not in allowed else []


def check_not_negative(path: str, value: int | None) -> list[FieldError]:
    return [invalid(path, value, NOT_NEGATIVE)] if value is not None and value < 0 else []


def check_required_fields(body: Mapping[str, Any], path: str, names: Iterable[str]) -> list[FieldError]:
    return [required(f"{path}.{name}") for name in names if body.get(name) in (None, "", [])]


def check_unique(path: str, items: Iterable[Obj], key: str) -> list[FieldError]:
    """No two items with the same non-empty `key`."""
    seen: set[Any] = set()
    errors = []
    for index, item in enumerate(items):
        value = item.get(key)
        if value in (None, ""):
            continue
        if value in seen:
            errors.append(duplicate(f"{path}[{index}].{key}", value))
        seen.add(value)
    return errors


def check_one_of(body: Obj, path: str, choices: Collection[str], noun: str) -> list[FieldError]:
    """Exactly one of `choices` is set; `noun` is what upstream calls them."""
    given = [name for name in choices if body.get(name) is not None]
    if not given:
        return [required(path, f"must specify a {noun}")]
    return [forbidden(f"{path}.{name}", f"may not specify more than 1 {noun}") for name in given[1:]]


def check_port(path: str, value: Any) -> list[FieldError]:
    """A required port number or port name."""
    if isinstance(value, str):
        return [invalid(path, value, message) for message in port_name(value)]
    if value is None:
        return [required(path)]
    return [invalid(path, value, message) for message in port_number(value)]


def check_quantity(path: str, value: Any) -> list[FieldError]:
    """Not negative. Its form was checked when it was decoded."""
    return [invalid(path, str(value), NOT_NEGATIVE)] if parse_quantity(value) < 0 else []


def check_label_selector(selector: Obj | None, path: str) -> list[FieldError]:
    """A `meta/v1.LabelSelector`."""
    errors = []
    for key, value in ((selector or {}).get("matchLabels") or {}).items():
        errors += [invalid(f"{path}.matchLabels", key, message) for message in qualified_name(key)]
        errors += [invalid(f"{path}.matchLabels", value, message) for message in label_value(value)]
    for index, item in enumerate((selector or {}).get("matchExpressions") or []):
        errors += _check_expression(item, f"{path}.matchExpressions[{index}]")
    return errors


def _check_expression(item: Obj, path: str) -> list[FieldError]:
    operator, values = item.get("operator") or "", item.get("values") or []
    errors = []
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden(f"{path}.values", detail))
    else:
        errors.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    key = item.get("key") or ""
    errors += [invalid(f"{path}.key", key, message) for message in qualified_name(key)]
    for index, value in enumerate(values):
        errors += [invalid(f"{path}.values[{index}]", value, message) for message in label_value(value)]
    return errors
