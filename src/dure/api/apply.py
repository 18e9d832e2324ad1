"""Server-side apply, and the record of who set what on every other write.

KEP-555. `apply` lays a configuration over the live object, takes away what its manager gave up and nobody else owns,
and refuses to take a field from another manager unless forced. `track_update` is for create, update and other patches.
Both are pure; `now` is RFC 3339. Status and spec are owned only at the endpoint that may write them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from dure.api.field_sets import (
    EMPTY,
    FieldSet,
    difference,
    has_common,
    intersection,
    paths,
    recursive_difference,
    union,
)
from dure.api.managed_fields import (
    Identity,
    Managed,
    Managers,
    cap_updates,
    identity_of,
    is_reset,
    read_managers,
    write_managers,
)
from dure.api.schemas import Schema, Schemas
from dure.api.typed_fields import Changes, compare, fields_of, merge, settled, with_named_fields, without
from dure.core.errors import BadRequest, Conflict
from dure.core.json import JSONDecodeError, Obj, dumps, loads

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_BEFORE_FIRST_APPLY = "before-first-apply"
_KUBECTL = "kubectl"
_UNOWNED_META = frozenset(
    {"name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"}
)
_ALWAYS_THERE = ("metadata", "spec", "status", "strategy", "updateStrategy", "template", "jobTemplate")
"""Structs that stand in every object of a built-in kind that has them, so that no one owns their mere presence."""


class _Shape:
    """A kind's schema with what apply needs besides: metadata's own schema, and what an empty object looks like."""

    def __init__(self, schema: Schema | None, subresource: str, reset: tuple[str, ...] | None) -> None:
        raw = {"x-kubernetes-preserve-unknown-fields": True} if schema is None else schema.raw
        self.schema = schema if schema is not None else Schema(raw)
        self.meta = Schemas.load().object_meta
        self.built_in = bool(self.schema.ref)
        if reset is None and self.built_in:
            reset = {"": ("status",), "status": ("spec",)}.get(subresource, ())
        self.reset: FieldSet = {f"f:{name}": {} for name in reset or ()}

    def fields(self, obj: Obj, *, strict: bool) -> FieldSet:
        """The fields an object sets, without those no one owns."""
        owned = fields_of(_ownable(obj), self.schema, strict=strict)
        meta = fields_of(_ownable_meta(obj), self.meta, strict=strict, path=".metadata")
        return {**owned, "f:metadata": meta} if meta else owned

    def compare(self, old: Obj, new: Obj) -> Changes:
        """Between two whole objects, leaving out what no one owns."""
        left, right = _ownable(old), _ownable(new)
        if self.built_in and any(name not in left for name in right):
            for name, value in _skeleton(self.schema).items():
                if name in right and name not in left and (not old or name in ("spec", "status")):
                    left[name] = value
        changes = compare(left, right, self.schema)
        meta = compare(_ownable_meta(old), _ownable_meta(new), self.meta)
        changes.merge_below("f:metadata", meta)
        return changes

    def merge(self, live: Obj, applied: Obj) -> Obj:
        merged: Obj = merge(live, {key: value for key, value in applied.items() if key != "metadata"}, self.schema)
        return {**merged, "metadata": merge(live.get("metadata") or {}, applied.get("metadata") or {}, self.meta)}

    def without(self, obj: Obj, fields: FieldSet) -> Obj:
        rest = without({key: value for key, value in obj.items() if key != "metadata"}, fields, self.schema)
        meta: Any = obj.get("metadata") or {}
        if node := fields.get("f:metadata"):
            meta = without(meta, {step: child for step, child in node.items() if step != "."}, self.meta)
        return {**(rest if isinstance(rest, dict) else {}), "metadata": meta if isinstance(meta, dict) else {}}

    def with_named_fields(self, fields: FieldSet) -> FieldSet:
        full = with_named_fields({step: node for step, node in fields.items() if step != "f:metadata"}, self.schema)
        if "f:metadata" in fields:
            full["f:metadata"] = with_named_fields(fields["f:metadata"], self.meta)
        return full


def _ownable(obj: Obj) -> Obj:
    """All but type and metadata."""
    return {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}


def _ownable_meta(obj: Obj) -> Obj:
    return {key: value for key, value in (obj.get("metadata") or {}).items() if key not in _UNOWNED_META}


@lru_cache(maxsize=256)
def _skeleton(schema: Schema, depth: int = 0) -> Obj:
    """The structs every object of the kind has, down to the pod template's required lists."""
    bones: Obj = {}
    for name, below in schema.properties.items():
        if below.type == "object" and (name in _ALWAYS_THERE and (depth or name != "metadata")):
            bones[name] = _skeleton(below, depth + 1) if depth < 5 else {}
        elif depth and name in schema.required and below.type == "array":
            bones[name] = None
    return bones


def track_update(
    old: Obj | None,
    new: Obj,
    *,
    manager: str,
    schema: Schema | None,
    now: str,
    api_version: str = "",
    subresource: str = "",
    operation: str = "Update",
    reset: tuple[str, ...] | None = None,
) -> Obj:
    """`new` with the managers recorded in `metadata.managedFields`, shared with `new` but for metadata.

    `reset` names the top-level fields this endpoint cannot write; by default status, or spec at `status`, for built-in
    kinds. Nothing is recorded for an object whose record was cleared before.
    """
    shape = _Shape(schema, subresource, reset)
    managers = _managers_of(old, new, subresource)
    if not managers and old is not None:
        return _with_managers(new, {})
    changes = shape.compare(old or {}, new)
    if changes:
        identity = identity_of(manager, operation, api_version or new.get("apiVersion", ""), subresource)
        managers = cap_updates(_record_update(managers, changes, identity, now, shape.reset, new))
    return _with_managers(new, managers)


def _managers_of(old: Obj | None, new: Obj, subresource: str) -> Managers:
    """A client may edit the record, or clear it; what it leaves out or garbles stays as it was."""
    before = (old or {}).get("metadata", {}).get("managedFields")
    sent = new.get("metadata", {}).get("managedFields")
    if not subresource and sent != before:
        if is_reset(sent):
            return {}
        if edited := read_managers(sent):
            return edited
    return read_managers(before, trusted=True) or {}


def _with_managers(obj: Obj, managers: Managers) -> Obj:
    meta = {key: value for key, value in obj.get("metadata", {}).items() if key != "managedFields"}
    if managers:
        meta["managedFields"] = write_managers(managers)
    return {**obj, "metadata": meta}


def _record_update(
    managers: Managers, changes: Changes, identity: Identity, now: str, reset: FieldSet, new: Obj
) -> Managers:
    """Changed fields pass from every other entry to this one; removed ones leave all."""
    added, modified, removed = changes.added, changes.modified, changes.removed
    if reset:
        added, modified = recursive_difference(added, reset), recursive_difference(modified, reset)
        removed = recursive_difference(removed, reset)
    taken = union(added, modified)
    gone = union(taken, removed)
    kept: Managers = {}
    for key, managed in managers.items():
        left = managed
        if has_common(managed.fields, gone):
            left = managed.with_fields(difference(managed.fields, gone))
        if left.fields:
            kept[key] = left
    if taken:
        previous = managers.get(identity)
        mine = kept.get(identity)
        fields = union(mine.fields, taken) if mine is not None else taken
        version = previous.api_version if previous is not None else identity.api_version
        kept[identity] = Managed(identity, version or new.get("apiVersion", ""), fields, now)
    return kept


def apply(
    live: Obj | None,
    applied: Obj,
    *,
    manager: str,
    force: bool,
    schema: Schema | None,
    now: str,
    api_version: str = "",
    subresource: str = "",
    reset: tuple[str, ...] | None = None,
) -> Obj:
    """The object that results, with its managers; equal to `live` when nothing changes.

    Raises Conflict (a cause a field) when another manager owns a field set differently and `force` is not given,
    BadRequest when the configuration is of another version, bears managedFields or does not fit the schema.
    """
    api_version = api_version or applied.get("apiVersion", "")
    _check_configuration(applied, api_version)
    shape = _Shape(schema, subresource, reset)
    base, managers = _start(live, shape, now, api_version)
    applying = _Applying(shape, base, _cleaned(applied), managers, manager, api_version, subresource)
    merged, conflicts = applying.run(force=force)
    if conflicts and manager == _KUBECTL:
        allowed = _client_side_applied(base, shape)
        conflicts = {who: left for who, fields in conflicts.items() if (left := difference(fields, allowed))}
        if not conflicts:
            merged, conflicts = applying.run(force=True)
    if conflicts:
        raise _conflict(conflicts)
    merged = settled(merged)
    return _with_managers(_synced_last_applied(merged, applied, manager), applying.recorded(merged, now))


def _check_configuration(applied: Obj, api_version: str) -> None:
    if applied.get("apiVersion") != api_version:
        raise BadRequest(
            "Incorrect version specified in apply patch. "
            f"Specified patch version: {applied.get('apiVersion')}, expected: {api_version}"
        )
    meta = applied.get("metadata")
    if meta is not None and not isinstance(meta, dict):
        raise BadRequest("metadata must be an object")
    if (meta or {}).get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")


def _cleaned(applied: Obj) -> Obj:
    """Without the null times that clients send along."""
    meta = applied.get("metadata") or {}
    times = ("creationTimestamp", "deletionTimestamp")
    return {**applied, "metadata": {key: value for key, value in meta.items() if key not in times or value is not None}}


def _start(live: Obj | None, shape: _Shape, now: str, api_version: str) -> tuple[Obj, Managers]:
    """The live object and its managers; what an untracked object holds goes to one manager of its own."""
    if live is None:
        return {"metadata": {}}, {}
    managers = read_managers(live.get("metadata", {}).get("managedFields") or [], trusted=True)
    if managers is None:
        raise BadRequest("failed to decode managed fields of the live object")
    if not managers:
        changes = shape.compare({}, live)
        identity = identity_of(_BEFORE_FIRST_APPLY, "Update", api_version, "")
        managers = _record_update({}, changes, identity, now, EMPTY, live)
    return live, managers


class _Applying:
    """One application of a configuration, which may be run a second time with force."""

    def __init__(
        self,
        shape: _Shape,
        live: Obj,
        applied: Obj,
        managers: Managers,
        manager: str,
        api_version: str,
        subresource: str,
    ) -> None:
        self._shape, self._live, self._applied, self._before = shape, live, applied, managers
        self._api_version = api_version
        self._identity = identity_of(manager, "Apply", api_version, subresource)
        try:
            wanted = shape.fields(applied, strict=True)
        except BadRequest as error:
            meta = applied.get("metadata") or {}
            where = f"{meta.get('namespace', '')}/{meta.get('name', '')}; {api_version}, Kind={applied.get('kind')}"
            raise BadRequest(f"failed to create typed patch object ({where}): {error.message}") from None
        self._fields = recursive_difference(wanted, shape.reset)
        self._after: Managers = {}

    def run(self, *, force: bool) -> tuple[Obj, dict[Identity, FieldSet]]:
        """The merged object, and the fields others own that it would change; those are taken when forced."""
        merged = self._prune(self._shape.merge(self._live, self._applied))
        changes = self._shape.compare(self._live, merged)
        changed = union(changes.added, changes.modified)
        if self._shape.reset:
            changed = recursive_difference(changed, self._shape.reset)
        conflicts: dict[Identity, FieldSet] = {}
        self._after = {}
        for identity, managed in self._before.items():
            if identity == self._identity:
                continue
            if lost := intersection(managed.fields, changed):
                conflicts[identity] = lost
            gone = union(lost, changes.removed)
            if left := difference(managed.fields, gone) if gone else managed.fields:
                self._after[identity] = managed.with_fields(left)
        return merged, {} if force else conflicts

    def _prune(self, merged: Obj) -> Obj:
        """`merged` without what this manager applied before, does not now, and no one else owns."""
        last = self._before.get(self._identity)
        if last is None:
            return merged
        shape = self._shape
        full_last = shape.with_named_fields(last.fields)
        if not difference(full_last, shape.with_named_fields(self._fields)):
            return merged
        owned = self._fields
        for identity, managed in self._before.items():
            if identity != self._identity:
                owned = union(owned, managed.fields)
        everything = shape.with_named_fields(shape.fields(merged, strict=False))
        pruned = shape.without(merged, full_last)
        kept = union(self._named(pruned), shape.with_named_fields(owned))
        pruned = shape.without(merged, difference(everything, kept))
        gone = intersection(difference(everything, self._named(pruned)), full_last)
        return shape.without(merged, gone)

    def _named(self, obj: Obj) -> FieldSet:
        return self._shape.with_named_fields(self._shape.fields(obj, strict=False))

    def recorded(self, merged: Obj, now: str) -> Managers:
        """The managers after a run without conflicts; the time moves when the object or this manager's fields did."""
        managers = dict(self._after)
        last = self._before.get(self._identity)
        if not self._fields:
            return managers
        same_object = self._live.keys() == merged.keys() and self._live == merged
        if last is not None and same_object and last.fields == self._fields and last.api_version == self._api_version:
            managers[self._identity] = last
        else:
            managers[self._identity] = Managed(self._identity, self._api_version, self._fields, now)
        return managers


def _client_side_applied(live: Obj, shape: _Shape) -> FieldSet:
    """Fields that client-side apply set and nobody changed since: server-side apply by kubectl may take them over."""
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    if not text:
        return EMPTY
    try:
        last = loads(text)
        if not isinstance(last, dict) or last.get("apiVersion") != live.get("apiVersion"):
            return EMPTY
        fields = shape.fields(last, strict=False)
        changes = shape.compare(last, live)
    except (JSONDecodeError, BadRequest):
        return EMPTY
    return difference(fields, union(union(changes.modified, changes.added), changes.removed))


def _synced_last_applied(merged: Obj, applied: Obj, manager: str) -> Obj:
    """kubectl's annotation kept true for those who still apply on the client side."""
    meta = merged.get("metadata") or {}
    annotations = meta.get("annotations") or {}
    if manager != _KUBECTL or not annotations.get(LAST_APPLIED):
        return merged
    sent_meta = applied.get("metadata") or {}
    if LAST_APPLIED in (sent_meta.get("annotations") or {}):
        kept = {key: value for key, value in sent_meta["annotations"].items() if key != LAST_APPLIED}
        applied = {**applied, "metadata": {**sent_meta, "annotations": kept}}
    text = dumps(applied).decode() + "\n"
    return {**merged, "metadata": {**meta, "annotations": {**annotations, LAST_APPLIED: text}}}


def _conflict(conflicts: dict[Identity, FieldSet]) -> Conflict:
    found = [(who, path) for who, fields in sorted(conflicts.items()) for path in paths(fields)]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": path} for who, path in found
    ]
    if len(found) == 1:
        who, path = found[0]
        text = f"Apply failed with 1 conflict: conflict with {who}: {path}"
    else:
        lines = []
        for who, fields in sorted(conflicts.items()):
            lines += [f"conflicts with {who}:", *(f"- {path}" for path in paths(fields))]
        text = f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)
    return Conflict(text, details={"causes": causes})
