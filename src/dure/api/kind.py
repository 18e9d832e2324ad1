"""What a kind is: its names, scope, verbs, columns, and the one `Strategy` that gives it behaviour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from dure.api.meta import GroupVersionKind
from dure.core.json import Obj


@dataclass(frozen=True, slots=True)
class FieldError:
    """One cause of an Invalid answer, as in `meta/v1.StatusCause`.

    `reason` is FieldValueRequired, FieldValueInvalid, FieldValueNotSupported, FieldValueDuplicate,
    FieldValueForbidden, FieldValueNotFound, FieldValueTooLong, FieldValueTooMany, FieldValueTypeInvalid;
    `message` is upstream's text after the field, such as `Invalid value: "x": must be ...`.
    """

    field: str
    reason: str
    message: str


class Strategy(Protocol):
    """The only per-kind behaviour in the API server; every method is pure.

    `obj` is a fresh copy the strategy may change; `old` is frozen.
    """

    def default(self, obj: Obj) -> None:
        """Fill in what the version's defaults say, in place."""
        ...

    def prepare_create(self, obj: Obj) -> None:
        """Reset what a client may not set on create (usually status), in place."""
        ...

    def prepare_update(self, obj: Obj, old: Obj, subresource: str) -> None:
        """Keep what this endpoint may not change ("" or "status", "scale", ...), in place."""
        ...

    def validate(self, obj: Obj) -> list[FieldError]: ...

    def validate_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        """Immutability and transitions; `validate` has run already."""
        ...

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        """Values of the fields a field selector may name, beyond metadata.name and metadata.namespace."""
        ...

    @property
    def field_labels(self) -> frozenset[str]:
        """The names `selectable_fields` may give, for refusing others."""
        ...

    def warnings(self, obj: Obj) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a server-side Table. `value` gets the object and the time in seconds since the epoch."""

    name: str
    type: Literal["string", "integer", "number", "boolean", "date"]
    value: Callable[[Obj, float], Any]
    description: str = ""
    format: str = ""
    priority: int = 0
    """0 is always shown, 1 with `-o wide`."""


@dataclass(frozen=True, slots=True)
class Subresource:
    """`status`, `scale`, `binding`, `eviction`, `exec`, `log`, `token`, ... with the kind it speaks."""

    name: str
    verbs: frozenset[str]
    kind: GroupVersionKind


@dataclass(frozen=True, slots=True)
class Conversion:
    """For a version that is not the stored one: whose records it reads, and how. Both directions give a new object."""

    stored: GroupVersionKind
    group: str
    plural: str
    to_stored: Callable[[Obj], Obj]
    from_stored: Callable[[Obj], Obj]


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource of one served version."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    strategy: Strategy
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: frozenset[str] = frozenset(
        {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
    )
    subresources: tuple[Subresource, ...] = ()
    columns: tuple[Column, ...] = ()
    schema: str = ""
    """Name of the definition in the schema table, such as `io.k8s.api.core.v1.Pod`; empty for custom kinds."""
    custom: Obj | None = field(default=None, compare=False)
    """For a kind made by a CustomResourceDefinition: its version entry."""
    conversion: Conversion | None = field(default=None, compare=False)
    """None when objects are stored in this very version."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def gvk(self) -> GroupVersionKind:
        return GroupVersionKind(self.group, self.version, self.kind)

    @property
    def resource(self) -> str:
        """`deployments.apps`, `pods`: how a Client and RBAC messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"

    def subresource(self, name: str) -> Subresource | None:
        return next((sub for sub in self.subresources if sub.name == name), None)

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of the collection or object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        tail = f"/{name}" if name else ""
        end = f"/{subresource}" if subresource else ""
        return f"{root}{scope}/{self.plural}{tail}{end}"

    def key(self, namespace: str, name: str) -> str:
        """The store key of one object."""
        return f"{self.prefix(namespace)}{name}"

    def prefix(self, namespace: str = "") -> str:
        """The store prefix of the collection, of one namespace when given."""
        place = self.conversion or self
        root = f"{place.group or 'core'}/{place.plural}/"
        return f"{root}{namespace}/" if self.namespaced and namespace else root


class Kinds:
    """The registry of served kinds; custom ones come and go. Served versions of a kind share one store prefix."""

    def __init__(self) -> None:
        self._by_path: dict[tuple[str, str, str], Kind] = {}
        self._by_gvk: dict[GroupVersionKind, Kind] = {}
        self._by_resource: dict[str, Kind] = {}
        self.generation = 0
        """Grows with every change, so that discovery and OpenAPI know when to rebuild."""

    def add(self, kind: Kind) -> None:
        """Register or replace; of several versions of a resource the first added is preferred."""
        self._by_path[kind.group, kind.version, kind.plural] = kind
        self._by_gvk[kind.gvk] = kind
        preferred = self._by_resource.get(kind.resource)
        if preferred is None or preferred.version == kind.version:
            self._by_resource[kind.resource] = kind
        self.generation += 1

    def remove(self, kind: Kind) -> None:
        self._by_path.pop((kind.group, kind.version, kind.plural), None)
        self._by_gvk.pop(kind.gvk, None)
        if self._by_resource.get(kind.resource) == kind:
            del self._by_resource[kind.resource]
            others = (k for k in self._by_path.values() if k.resource == kind.resource)
            if (other := next(others, None)) is not None:
                self._by_resource[kind.resource] = other
        self.generation += 1

    def at(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_path.get((group, version, plural))

    def of(self, gvk: GroupVersionKind) -> Kind | None:
        return self._by_gvk.get(gvk)

    def resource(self, name: str) -> Kind:
        """By `pods` or `deployments.apps`, in the preferred version. Raises KeyError."""
        return self._by_resource[name]

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._by_path.values()))
