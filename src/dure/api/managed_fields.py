"""Who manages which fields: the entries of `metadata.managedFields` as values.

An entry is told apart by manager, operation and subresource, an Update also by its apiVersion. Order, the limit on
Update entries and the name they are gathered under follow Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from dure.api.field_sets import SELF, FieldSet, in_order, union
from dure.core.json import Obj

MAX_UPDATE_ENTRIES = 10
_GATHERED = "ancient-changes"


class Identity(NamedTuple):
    manager: str
    operation: str
    api_version: str
    """Empty for Apply: a manager applies under one identity in all versions."""
    subresource: str

    def __str__(self) -> str:
        """As conflict messages name it."""
        name = f'"{self.manager}"'
        if self.subresource:
            name += f' with subresource "{self.subresource}"'
        return f"{name} using {self.api_version}" if self.operation == "Update" else name


@dataclass(frozen=True, slots=True)
class Managed:
    """One entry. `time` is RFC 3339, empty when unknown."""

    identity: Identity
    api_version: str
    fields: FieldSet
    time: str = ""
    raw: Obj | None = None
    """The entry as it was read, as long as it has not changed."""

    @property
    def applied(self) -> bool:
        return self.identity.operation == "Apply"

    def with_fields(self, fields: FieldSet) -> Managed:
        return self if fields is self.fields or fields == self.fields else replace(self, fields=fields, raw=None)

    def to_entry(self) -> Obj:
        if self.raw is not None:
            return self.raw
        entry: Obj = {"manager": self.identity.manager, "operation": self.identity.operation}
        entry["apiVersion"] = self.api_version
        if self.time:
            entry["time"] = self.time
        entry["fieldsType"] = "FieldsV1"
        entry["fieldsV1"] = in_order(self.fields)
        if self.identity.subresource:
            entry["subresource"] = self.identity.subresource
        return entry


Managers = dict[Identity, Managed]


def identity_of(manager: str, operation: str, api_version: str, subresource: str) -> Identity:
    return Identity(manager or "unknown", operation, "" if operation == "Apply" else api_version, subresource)


def read_managers(entries: Any, *, trusted: bool = False) -> Managers | None:
    """From `metadata.managedFields`; None when an entry is not of the known form.

    `trusted` are entries that were written here: their sets are not looked through again.
    """
    if not isinstance(entries, list):
        return None
    managers: Managers = {}
    for entry in entries:
        managed = _read_entry(entry, trusted=trusted)
        if managed is None:
            return None
        managers[managed.identity] = managed
    return managers


def _read_entry(entry: Any, *, trusted: bool) -> Managed | None:
    if not isinstance(entry, dict):
        return None
    operation, api_version = entry.get("operation"), entry.get("apiVersion")
    fields = entry.get("fieldsV1") or {}
    if operation not in ("Apply", "Update") or not api_version or entry.get("fieldsType") != "FieldsV1":
        return None
    if not trusted and not _is_field_set(fields):
        return None
    identity = identity_of(entry.get("manager") or "", operation, api_version, entry.get("subresource") or "")
    return Managed(identity, api_version, fields, entry.get("time") or "", entry)


def _is_field_set(fields: Any) -> bool:
    if not isinstance(fields, dict):
        return False
    for step, node in fields.items():
        if step != SELF and step[:2] not in ("f:", "k:", "v:", "i:"):
            return False
        if node != {} and not _is_field_set(node):
            return False
    return True


def is_reset(entries: Any) -> bool:
    """Whether a client asks to forget all managers: an empty list, or one empty entry."""
    return isinstance(entries, list) and (not entries or entries == [{}])


def write_managers(managers: Managers) -> list[Obj]:
    return [managed.to_entry() for managed in sorted(managers.values(), key=_order)]


def _order(managed: Managed) -> tuple[str, str, str, str, str]:
    identity = managed.identity
    return (identity.operation, managed.time, identity.manager, managed.api_version, identity.subresource)


def _by_age(managers: Iterable[Managed]) -> list[Managed]:
    return sorted(managers, key=lambda managed: (managed.time, managed.identity))


def cap_updates(managers: Managers) -> Managers:
    """At most MAX_UPDATE_ENTRIES Update entries: the oldest of a version are gathered into one."""
    updates = _by_age(managed for managed in managers.values() if not managed.applied)
    excess = len(updates) - MAX_UPDATE_ENTRIES
    if excess <= 0:
        return managers
    kept = dict(managers)
    first_of: dict[str, Managed] = {}
    for managed in updates:
        first = first_of.setdefault(managed.api_version, managed)
        if excess <= 0 or first is managed:
            continue
        bucket = Identity(_GATHERED, "Update", managed.api_version, "")
        if bucket not in kept:
            kept[bucket] = replace(kept.pop(first.identity), identity=bucket, raw=None)
        gathered = union(managed.fields, kept[bucket].fields)
        kept[bucket] = replace(kept[bucket], fields=gathered, time=managed.time, raw=None)
        if managed.identity != bucket:
            del kept[managed.identity]
            excess -= 1
    return kept
