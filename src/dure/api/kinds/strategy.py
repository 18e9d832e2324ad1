"""What holds for nearly every kind: status kept apart from spec, generation, metadata rules; others subclass it.

`metadata.generation` lives here: 1 at creation, one more with every change of what is not metadata or status. The
server gives names, uids and times before it validates; `validate` checks metadata too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dure.api.kind import FieldError
from dure.api.names import NameRule, dns1123_subdomain
from dure.api.objectmeta import validate_object_meta, validate_object_meta_update
from dure.core.json import Obj, thaw

Selectable = Mapping[str, Callable[[Obj], str]]

_APART = frozenset({"apiVersion", "kind", "metadata", "status"})


class StandardStrategy:
    """A kind without special behaviour; subclasses override `default`, `check`, `check_update`, `selectable`."""

    name_rule: NameRule = staticmethod(dns1123_subdomain)
    """What `metadata.name` may be."""
    has_status: bool = False
    """Whether there is a status that only the status subresource may write."""
    has_generation: bool = False
    """Whether upstream counts generations for this kind."""
    namespaced: bool = True
    selectable: Selectable = MappingProxyType({})
    """Fields a field selector may name, beyond metadata.name and metadata.namespace."""

    def __init__(
        self,
        *,
        namespaced: bool = True,
        has_status: bool | None = None,
        has_generation: bool | None = None,
        name_rule: NameRule | None = None,
    ) -> None:
        self.namespaced = namespaced
        if has_status is not None:
            self.has_status = has_status
        if has_generation is not None:
            self.has_generation = has_generation
        if name_rule is not None:
            self.name_rule = name_rule

    def default(self, obj: Obj) -> None:
        return None

    def prepare_create(self, obj: Obj) -> None:
        if self.has_status:
            obj.pop("status", None)
        if self.has_generation:
            obj["metadata"]["generation"] = 1
        else:
            obj["metadata"].pop("generation", None)

    def prepare_update(self, obj: Obj, old: Obj, subresource: str) -> None:
        if subresource:
            self._keep_all_but_status(obj, old)
        elif self.has_status:
            _keep(obj, old, "status")
        self._count(obj, old)

    def _keep_all_but_status(self, obj: Obj, old: Obj) -> None:
        for name in {*obj, *old} - _APART:
            _keep(obj, old, name)

    def _is_apart(self, name: str) -> bool:
        """Whether a change of this member leaves the generation alone."""
        return name in _APART

    def _count(self, obj: Obj, old: Obj) -> None:
        generation = old["metadata"].get("generation")
        if not self.has_generation:
            obj["metadata"].pop("generation", None)
            if generation is not None:
                obj["metadata"]["generation"] = generation
            return
        changed = any(obj.get(name) != old.get(name) for name in {*obj, *old} if not self._is_apart(name))
        obj["metadata"]["generation"] = (generation or 1) + (1 if changed else 0)

    def validate(self, obj: Obj) -> list[FieldError]:
        meta = validate_object_meta(obj, namespaced=self.namespaced, name_rule=self.name_rule)
        return [*meta, *self.check(obj)]

    def check(self, obj: Obj) -> list[FieldError]:
        """The kind's own rules, metadata apart."""
        return []

    def validate_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        return [*validate_object_meta_update(obj, old), *self.check_update(obj, old, subresource)]

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        """The kind's own immutability and transitions."""
        return []

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {name: read(obj) for name, read in self.selectable.items()}

    @property
    def field_labels(self) -> frozenset[str]:
        return frozenset(self.selectable)

    def warnings(self, obj: Obj) -> list[str]:
        return []


def _keep(obj: Obj, old: Obj, name: str) -> None:
    """The member as it was, absent when it was absent."""
    if name in old:
        obj[name] = thaw(old[name])
    else:
        obj.pop(name, None)


def field(*path: str, default: str = "") -> Callable[[Obj], str]:
    """A reader of one field as a field selector compares it; booleans as true and false."""

    def read(obj: Obj) -> str:
        here: Any = obj
        for name in path:
            here = here.get(name) if isinstance(here, dict) else None
        if here is None:
            return default
        return str(here).lower() if isinstance(here, bool) else str(here)

    return read
