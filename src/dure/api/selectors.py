"""Label and field selectors: parsed once, asked often.

Grammar: Kubernetes' `labels.Parse` (`a=b,a!=b,a in (x,y),a notin (x),a,!a`) and `fields.ParseSelector`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dure.core.errors import BadRequest

_SET = re.compile(r"^\s*(!?)\s*([^\s=!,()]+)(?:\s+(in|notin)\s*\(([^()]*)\))?\s*$")
_EQUAL = re.compile(r"^\s*([^\s=!,()]+)\s*(==|!=|=|<|>)\s*([^\s=!,()]*)\s*$")
_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
_VALUE = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")


@dataclass(frozen=True, slots=True)
class Requirement:
    """`operator` is In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        has = self.key in labels
        match self.operator:
            case "In":
                return has and labels[self.key] in self.values
            case "NotIn":
                return not has or labels[self.key] not in self.values
            case "Exists":
                return has
            case "DoesNotExist":
                return not has
        return has and self._compares(labels[self.key])

    def _compares(self, value: str) -> bool:
        try:
            left, right = int(value), int(next(iter(self.values)))
        except ValueError:
            return False
        return left > right if self.operator == "Gt" else left < right


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must hold; none means everything matches."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        return all(requirement.matches(labels or {}) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)


EVERYTHING = LabelSelector()


def _split(text: str) -> list[str]:
    """At commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return parts


def _label_requirement(part: str) -> Requirement:
    if match := _EQUAL.match(part):
        key, sign, value = match.groups()
        operator = {"=": "In", "==": "In", "!=": "NotIn", ">": "Gt", "<": "Lt"}[sign]
        requirement = Requirement(key, operator, frozenset({value}))
    elif match := _SET.match(part):
        negated, key, sign, inside = match.groups()
        if sign and not negated:
            values = frozenset(value.strip() for value in inside.split(","))
            requirement = Requirement(key, "In" if sign == "in" else "NotIn", values)
        elif sign:
            raise BadRequest(f"unable to parse requirement: {part.strip()!r}")
        else:
            requirement = Requirement(key, "DoesNotExist" if negated else "Exists")
    else:
        raise BadRequest(f"unable to parse requirement: {part.strip()!r}")
    if not _KEY.match(requirement.key):
        raise BadRequest(f"unable to parse requirement: invalid label key {requirement.key!r}")
    for value in requirement.values:
        if not _VALUE.match(value):
            raise BadRequest(f"unable to parse requirement: invalid label value {value!r}")
    return requirement


def parse_label_selector(text: str) -> LabelSelector:
    """From a query parameter. Raises BadRequest."""
    if not text.strip():
        return EVERYTHING
    return LabelSelector(tuple(_label_requirement(part) for part in _split(text)))


def from_label_selector(spec: Mapping[str, Any] | None) -> LabelSelector | None:
    """From a `meta/v1.LabelSelector`; None selects nothing, {} everything."""
    if spec is None:
        return None
    equal = [Requirement(key, "In", frozenset({value})) for key, value in (spec.get("matchLabels") or {}).items()]
    sets = [
        Requirement(item["key"], item["operator"], frozenset(item.get("values") or ()))
        for item in spec.get("matchExpressions") or []
    ]
    return LabelSelector(tuple(equal + sets))


def from_map(labels: Mapping[str, str] | None) -> LabelSelector | None:
    """From a plain map, as in a Service; None or {} selects nothing."""
    return from_label_selector({"matchLabels": dict(labels)}) if labels else None


def format_label_selector(spec: Mapping[str, Any] | None) -> str:
    """A `meta/v1.LabelSelector` as one line, as `/scale` and Tables show it."""
    if spec is None:
        return "<none>"
    parts = [f"{key}={value}" for key, value in sorted((spec.get("matchLabels") or {}).items())]
    for item in spec.get("matchExpressions") or []:
        values = ",".join(sorted(item.get("values") or ()))
        parts.append(
            {
                "In": f"{item['key']} in ({values})",
                "NotIn": f"{item['key']} notin ({values})",
                "Exists": item["key"],
                "DoesNotExist": f"!{item['key']}",
            }[item["operator"]]
        )
    return ",".join(parts)


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Pairs of field, value and whether they must be equal."""

    terms: tuple[tuple[str, str, bool], ...] = ()

    def matches(self, field: Callable[[str], str]) -> bool:
        """`field` gives a field's value, empty when unset."""
        return all((field(name) == value) is equal for name, value, equal in self.terms)

    def exact(self, name: str) -> str | None:
        """The value `name` must have, if the selector says so."""
        return next((value for field, value, equal in self.terms if equal and field == name), None)

    def __bool__(self) -> bool:
        return bool(self.terms)


def parse_field_selector(text: str) -> FieldSelector:
    """From a query parameter: `a=b`, `a==b`, `a!=b`, with `\\,`, `\\=` and `\\\\` escaped. Raises BadRequest."""
    terms = []
    for part in re.split(r"(?<!\\),", text):
        if not part.strip():
            continue
        match = re.match(r"^((?:[^\\=!]|\\.)+?)(!=|==|=)((?:[^\\]|\\.)*)$", part)
        if not match:
            raise BadRequest(f"invalid selector: {text!r}; can't understand {part!r}")
        name, sign, value = match.groups()
        terms.append((name.strip(), re.sub(r"\\(.)", r"\1", value), sign != "!="))
    return FieldSelector(tuple(terms))
