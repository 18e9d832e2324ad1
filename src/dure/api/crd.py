"""From a CustomResourceDefinition to the kinds it makes, and the judgement on its names.

Versions differ in name alone (`conversion.strategy: None`): what is stored is the storage version's `apiVersion`.
"""

from __future__ import annotations

import re
from typing import Any, Literal, cast

from dure.api.columns.cells import NAME
from dure.api.durations import since
from dure.api.jsonpath import find
from dure.api.kind import Column, Conversion, FieldError, Kind, Kinds, Subresource
from dure.api.kinds.strategy import StandardStrategy
from dure.api.meta import GroupVersionKind, name_of, with_condition
from dure.api.structural import default_custom, validate_custom
from dure.core.json import Obj, dumps

_SCALE = GroupVersionKind("autoscaling", "v1", "Scale")
_READ_WRITE = frozenset({"get", "patch", "update"})
_VERSION = re.compile(r"^v(\d+)(?:(alpha|beta)(\d+))?$")
_MATURITY = {None: 2, "beta": 1, "alpha": 0}


class CustomStrategy(StandardStrategy):
    """Defaults, rules and selectable fields as one version of the definition says."""

    has_generation = True

    def __init__(self, version: Obj, *, namespaced: bool) -> None:
        subresources = version.get("subresources") or {}
        super().__init__(namespaced=namespaced, has_status=subresources.get("status") is not None)
        self._schema: Obj = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        paths = [entry["jsonPath"] for entry in version.get("selectableFields") or []]
        self.selectable = {path.lstrip("."): _selectable(path) for path in paths}

    def default(self, obj: Obj) -> None:
        default_custom(self._schema, obj)

    def check(self, obj: Obj) -> list[FieldError]:
        return validate_custom(self._schema, obj)

    def _keep_all_but_status(self, obj: Obj, old: Obj) -> None:
        """Through `status` not even metadata may be changed, but for who owns which field."""
        super()._keep_all_but_status(obj, old)
        meta = dict(old["metadata"])
        for name in ("managedFields", "resourceVersion"):
            meta.pop(name, None)
            if name in obj["metadata"]:
                meta[name] = obj["metadata"][name]
        obj["metadata"] = meta

    def _is_apart(self, name: str) -> bool:
        return super()._is_apart(name) if self.has_status else name in ("apiVersion", "kind", "metadata")


def _selectable(path: str) -> Any:
    def read(obj: Obj) -> str:
        found = find(path, obj)
        return "" if not found or found[0] is None else _shown(found[0])

    return read


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Sorts with `reverse=True` as Kubernetes does: v2, v1, v1beta2, v1alpha1, then other names."""
    match = _VERSION.match(version)
    if match is None:
        return -1, 0, 0, version
    return _MATURITY[match[2]], int(match[1]), int(match[3] or 0), version


def kinds_of(crd: Obj) -> list[Kind]:
    """A Kind for each served version, the preferred first. The definition must have passed its own validation."""
    spec = crd["spec"]
    versions = sorted(spec["versions"], key=lambda version: version_priority(version["name"]), reverse=True)
    stored = next(version["name"] for version in versions if version.get("storage"))
    return [_kind(spec, version, stored) for version in versions if version.get("served")]


def _kind(spec: Obj, version: Obj, stored: str) -> Kind:
    names, namespaced = spec["names"], spec.get("scope", "Namespaced") == "Namespaced"
    gvk = GroupVersionKind(spec["group"], version["name"], names["kind"])
    subresources = version.get("subresources") or {}
    made = []
    if subresources.get("scale") is not None:
        made.append(Subresource("scale", _READ_WRITE, _SCALE))
    if subresources.get("status") is not None:
        made.append(Subresource("status", _READ_WRITE, gvk))
    return Kind(
        group=gvk.group,
        version=gvk.version,
        kind=gvk.kind,
        plural=names["plural"],
        namespaced=namespaced,
        strategy=CustomStrategy(version, namespaced=namespaced),
        singular=names.get("singular") or gvk.kind.lower(),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=tuple(made),
        columns=_columns(version),
        custom=version,
        conversion=None if version["name"] == stored else _renaming(gvk, stored, names["plural"]),
    )


def _renaming(gvk: GroupVersionKind, stored: str, plural: str) -> Conversion:
    target = gvk._replace(version=stored)
    return Conversion(
        stored=target,
        group=gvk.group,
        plural=plural,
        to_stored=lambda obj: {**obj, "apiVersion": target.api_version},
        from_stored=lambda obj: {**obj, "apiVersion": gvk.api_version},
    )


# ── columns ───────────────────────────────────────────────────────────────────────────────────────────────────────

_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def _columns(version: Obj) -> tuple[Column, ...]:
    entries = version.get("additionalPrinterColumns") or [_AGE]
    return (NAME, *(_column(entry) for entry in entries))


def _column(entry: Obj) -> Column:
    type_ = cast(Literal["string", "integer", "number", "boolean", "date"], entry["type"])
    path = entry["jsonPath"]

    def value(obj: Obj, now: float) -> Any:
        return _cell(find(path, obj), type_, now)

    return Column(
        entry["name"], type_, value, entry.get("description", ""), entry.get("format", ""), entry.get("priority", 0)
    )


def _cell(found: list[Any], type_: str, now: float) -> Any:
    """The first value in the column's type; all of them, joined, in a text column."""
    if not found or found[0] is None:
        return None if type_ != "string" else ""
    first = found[0]
    match type_:
        case "string":
            return " ".join(_shown(item) for item in found)
        case "date":
            return since(first, now) if isinstance(first, str) else None
        case "boolean":
            return first if isinstance(first, bool) else None
        case "integer":
            return int(first) if isinstance(first, int | float) and not isinstance(first, bool) else None
    return first if isinstance(first, int | float) and not isinstance(first, bool) else None


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value).decode()


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def settled_status(crd: Obj, kinds: Kinds, now: str) -> Obj:
    """The status with accepted names and the conditions NamesAccepted and Established; `now` as RFC 3339.

    Names that another resource of the group holds are refused and not served. The same status comes out when
    nothing changed.
    """
    spec, status = crd["spec"], dict(crd.get("status") or {})
    conflict = _conflict(crd, kinds)
    conditions: list[Obj] = list(status.get("conditions") or [])
    accepted = _condition("NamesAccepted", "True", "NoConflicts", "no conflicts found")
    if conflict is not None:
        accepted = _condition("NamesAccepted", "False", *conflict)
    conditions = with_condition(conditions, accepted, now)
    if conflict is None:
        status["acceptedNames"] = {name: value for name, value in spec["names"].items() if value}
        ready = _condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted")
    else:
        ready = _condition("Established", "False", "NotAccepted", "not all names are accepted")
    was = next((item for item in conditions if item["type"] == "Established"), None)
    if conflict is None or was is None or was["status"] != "True":
        conditions = with_condition(conditions, ready, now)
    return {**status, "conditions": conditions}


def _condition(type_: str, status: str, reason: str, message: str) -> Obj:
    return {"type": type_, "status": status, "reason": reason, "message": message}


def _conflict(crd: Obj, kinds: Kinds) -> tuple[str, str] | None:
    """Reason and message of the first name that another resource of the group holds."""
    names, group = crd["spec"]["names"], crd["spec"]["group"]
    others = [kind for kind in kinds if kind.group == group and f"{kind.plural}.{group}" != name_of(crd)]
    nouns = {name for kind in others for name in (kind.plural, kind.singular, *kind.short_names)}
    kind_names = {name for kind in others for name in (kind.kind, kind.list_kind)}
    for reason, wanted, taken in (
        ("PluralConflict", [names.get("plural")], nouns),
        ("SingularConflict", [names.get("singular")], nouns),
        ("ShortNamesConflict", names.get("shortNames") or [], nouns),
        ("KindConflict", [names.get("kind")], kind_names),
        ("ListKindConflict", [names.get("listKind")], kind_names),
    ):
        for name in wanted:
            if name and name in taken:
                return reason, f'"{name}" is already in use'
    return None


def is_established(crd: Obj) -> bool:
    """Whether its kinds are to be served."""
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(item.get("type") == "Established" and item.get("status") == "True" for item in conditions)
