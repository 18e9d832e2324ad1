"""What an object's schema says about its fields: which it has, how two versions differ, how they merge.

Granularity follows Kubernetes' server-side apply: objects field by field unless `map_type` is atomic, lists by item
when they are maps or sets, else as a whole. Without a schema the shape is deduced: objects granular, lists atomic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dure.api.field_sets import EMPTY, SELF, FieldSet, is_member
from dure.api.schemas import Schema
from dure.core.errors import BadRequest
from dure.core.json import dumps, dumps_sorted


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()
"""No value, as opposed to null."""
GONE: Final = _Absent()
"""What is left of something emptied or removed; it counts as null until `settled` takes it away."""


class FieldsError(BadRequest):
    """An applied object whose fields cannot be told apart or are unknown; `path` says where."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")


def child_schema(schema: Schema | None, name: str) -> Schema | None:
    """Of the member `name`; None when the schema says nothing about it."""
    if schema is None:
        return None
    return schema.properties.get(name) or schema.additional


def _is_atomic_map(schema: Schema | None) -> bool:
    return schema is not None and schema.map_type == "atomic"


def list_keys(schema: Schema | None) -> tuple[str, ...] | None:
    """Names of the keys that tell items apart, () for a set, None for an atomic list."""
    if schema is None:
        return None
    if schema.list_type:
        return {"map": schema.list_map_keys, "set": ()}.get(schema.list_type)
    if "merge" in schema.patch_strategy:
        return (schema.patch_merge_key,) if schema.patch_merge_key else ()
    return None


def item_step(item: Any, keys: tuple[str, ...], items: Schema | None, path: str = "") -> str:
    """The step that names a list item. Raises FieldsError."""
    if not keys:
        if isinstance(item, dict | list) or item is None:
            raise FieldsError(path, "a set may hold only plain values")
        return "v:" + dumps(item).decode()
    if not isinstance(item, dict):
        raise FieldsError(path, "associative list with keys may not have non-map elements")
    values = {key: item[key] if key in item else _default(key, items) for key in keys}
    named = {key: value for key, value in values.items() if value is not ABSENT}
    if not named:
        raise FieldsError(
            path, f"associative list with keys has an element that omits all key fields {dumps(list(keys)).decode()}"
        )
    return "k:" + dumps_sorted(named).decode()


def _default(key: str, items: Schema | None) -> Any:
    """What a list key is taken to be when an item leaves it out."""
    if items is None:
        return ABSENT
    node = items.properties.get(key)
    if node is not None and "default" in node.raw:
        return node.raw["default"]
    if key == "protocol" and items.ref:
        return "TCP"
    if key in items.required:
        return "" if node is None or node.type == "string" else 0
    return ABSENT


def index_items(value: Any, schema: Schema, keys: tuple[str, ...], path: str = "") -> dict[str, list[Any]]:
    """Items by step; more than one under a step are duplicates."""
    found: dict[str, list[Any]] = {}
    for item in value or ():
        found.setdefault(item_step(item, keys, schema.items, path), []).append(item)
    return found


def fields_of(value: Any, schema: Schema | None, *, strict: bool = False, path: str = "") -> FieldSet:
    """The set of leaves that `value` sets, and the list items and map entries on the way.

    `strict` refuses unknown fields and duplicate items (FieldsError), as fits an applied configuration.
    """
    if isinstance(value, dict) and not _is_atomic_map(schema):
        return _fields_of_map(value, schema, strict, path)
    keys = list_keys(schema)
    if isinstance(value, list) and keys is not None and schema is not None:
        return _fields_of_list(value, schema, keys, strict, path)
    return EMPTY


def _fields_of_map(value: Mapping[str, Any], schema: Schema | None, strict: bool, path: str) -> FieldSet:
    fields: FieldSet = {}
    named: Mapping[str, Schema] = schema.properties if schema is not None else EMPTY
    for name, member in value.items():
        below = child_schema(schema, name)
        if strict and below is None and named and schema is not None and not schema.preserve_unknown:
            raise FieldsError(f"{path}.{name}", "field not declared in schema")
        node = fields_of(member, below, strict=strict, path=f"{path}.{name}")
        if node and name not in named:
            node = {SELF: {}, **node}
        if node or is_leaf(member, below):
            fields["f:" + name] = node
    return fields


def is_leaf(value: Any, schema: Schema | None) -> bool:
    """Whether `value` is owned as a whole; an empty object is, an empty list of items is not."""
    if isinstance(value, dict):
        return not value or _is_atomic_map(schema)
    return not isinstance(value, list) or list_keys(schema) is None


def _fields_of_list(value: list[Any], schema: Schema, keys: tuple[str, ...], strict: bool, path: str) -> FieldSet:
    fields: FieldSet = {}
    for step, same in index_items(value, schema, keys, path).items():
        if len(same) > 1 and strict:
            raise FieldsError(path, f"duplicate entries for key {step[2:]}")
        node = fields_of(same[0], schema.items, strict=strict, path=path) if len(same) == 1 else EMPTY
        fields[step] = {SELF: {}, **node} if node else {}
    return fields


@dataclass(slots=True)
class Changes:
    """How one object differs from another: three disjoint sets."""

    added: FieldSet = field(default_factory=dict)
    modified: FieldSet = field(default_factory=dict)
    removed: FieldSet = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.modified or self.removed)

    def merge_below(self, step: str, inner: Changes) -> None:
        """Hang what changed below `step` into this."""
        if inner.added:
            self.added[step] = inner.added
        if inner.modified:
            self.modified[step] = inner.modified
        if inner.removed:
            self.removed[step] = inner.removed


def compare(old: Any, new: Any, schema: Schema | None) -> Changes:
    """Between two objects (or what stands at the same place in them)."""
    changes = Changes()
    if isinstance(old, dict) and isinstance(new, dict):
        _compare_maps(old, new, schema, changes)
    return changes


def _compare_maps(old: Mapping[str, Any], new: Mapping[str, Any], schema: Schema | None, changes: Changes) -> None:
    for name, value in new.items():
        before = old.get(name, ABSENT)
        if before is not value and before != value:
            _compare_at("f:" + name, before, value, child_schema(schema, name), changes)
    for name, value in old.items():
        if name not in new:
            changes.removed["f:" + name] = whole(value, child_schema(schema, name))


def _compare_at(step: str, old: Any, new: Any, schema: Schema | None, changes: Changes) -> None:
    """Two different values under one step; either may be ABSENT, not both."""
    if old is ABSENT:
        changes.added[step] = whole(new, schema)
    elif new is ABSENT:
        changes.removed[step] = whole(old, schema)
    elif _both(dict, old, new) and not _is_atomic_map(schema):
        inner = Changes()
        _compare_maps(_or_empty(old), _or_empty(new), schema, inner)
        changes.merge_below(step, inner)
    elif _both(list, old, new) and schema is not None and (keys := list_keys(schema)) is not None:
        inner = Changes()
        _compare_lists(_or_empty(old), _or_empty(new), schema, keys, inner)
        changes.merge_below(step, inner)
    else:
        changes.modified[step] = {}


def _or_empty(value: Any) -> Any:
    return EMPTY if value is None or value is GONE else value


def _both(shape: type, old: Any, new: Any) -> bool:
    """Both of the shape, null standing for an empty one."""
    blank = (None, GONE)
    one, other = old in blank, new in blank
    return (isinstance(old, shape) or one) and (isinstance(new, shape) or other) and not (one and other)


def _compare_lists(old: Any, new: Any, schema: Schema, keys: tuple[str, ...], changes: Changes) -> None:
    before, after = index_items(old, schema, keys), index_items(new, schema, keys)
    for step in before | after:
        left, right = before.get(step, []), after.get(step, [])
        if left == right:
            continue
        if len(left) > 1 and len(right) > 1:
            changes.modified[step] = {}
        elif len(left) > 1 or len(right) > 1:
            _compare_duplicates(step, left, right, schema.items, changes)
        else:
            one, other = left[0] if left else ABSENT, right[0] if right else ABSENT
            _compare_at(step, one, other, schema.items, changes)


def _compare_duplicates(step: str, left: list[Any], right: list[Any], items: Schema | None, changes: Changes) -> None:
    """An item became, or is no longer, one of several under the same step: those are owned as a whole."""
    if len(left) > 1:
        changes.removed[step] = {}
        if right:
            changes.added[step] = whole(right[0], items)
    else:
        changes.added[step] = {}
        if left:
            changes.removed[step] = whole(left[0], items)


def whole(value: Any, schema: Schema | None) -> FieldSet:
    """The node for a value that appears or goes as a whole: itself and every field below it."""
    below: FieldSet = {}
    if isinstance(value, dict) and not _is_atomic_map(schema):
        for name, member in value.items():
            below["f:" + name] = whole(member, child_schema(schema, name))
    elif isinstance(value, list) and schema is not None and (keys := list_keys(schema)) is not None:
        for step, same in index_items(value, schema, keys).items():
            below[step] = whole(same[0], schema.items) if len(same) == 1 else {}
    return {SELF: {}, **below} if below else {}


def merge(live: Any, applied: Any, schema: Schema | None) -> Any:
    """`live` with `applied` laid over it; either may be ABSENT. Null in `applied` leaves GONE."""
    if applied is ABSENT:
        return live
    if applied is None and not (schema is not None and schema.nullable):
        return GONE
    if isinstance(applied, dict) and isinstance(live, dict) and not _is_atomic_map(schema):
        return _merge_maps(live, applied, schema)
    keys = list_keys(schema)
    if isinstance(applied, list) and isinstance(live, list) and schema is not None and keys is not None:
        return _merge_lists(live, applied, schema, keys)
    return applied


def _merge_maps(live: Mapping[str, Any], applied: Mapping[str, Any], schema: Schema | None) -> dict[str, Any]:
    merged = dict(live)
    for name, value in applied.items():
        merged[name] = merge(live.get(name, ABSENT), value, child_schema(schema, name))
    return merged


def _merge_lists(live: list[Any], applied: list[Any], schema: Schema, keys: tuple[str, ...]) -> list[Any]:
    """Applied items in their order; items only the live list has stay next to where they stood."""
    theirs = [item_step(item, keys, schema.items) for item in live]
    ours = [item_step(item, keys, schema.items) for item in applied]
    first = {step: live[index] for index, step in reversed(list(enumerate(theirs)))}
    wanted = set(ours)
    shared = iter([step for step in ours if step in first])
    next_shared = next(shared, None)
    merged: list[Any] = []
    done: set[str] = set()
    left = 0

    def take(index: int) -> None:
        nonlocal next_shared
        step = ours[index]
        done.add(step)
        merged.append(merge(first.get(step, ABSENT), applied[index], schema.items))
        if step == next_shared:
            next_shared = next(shared, None)

    for right, step in enumerate(ours):
        while left < len(theirs) and theirs[left] != step:
            other = theirs[left]
            if other not in wanted:
                merged.append(live[left])
            elif other == next_shared and other not in done:
                break
            left += 1
        take(right)
        if left < len(theirs) and theirs[left] == step:
            left += 1
    merged += [live[index] for index in range(left, len(theirs)) if theirs[index] not in wanted]
    return merged


def settled(value: Any) -> Any:
    """A copy without what is GONE."""
    if isinstance(value, dict):
        return {name: settled(member) for name, member in value.items() if member is not GONE}
    if isinstance(value, list):
        return [settled(item) for item in value if item is not GONE]
    return value


def without(value: Any, fields: FieldSet, schema: Schema | None) -> Any:
    """`value` without the members of `fields`; GONE when nothing but an empty shell is left."""
    if isinstance(value, dict) and value and not _is_atomic_map(schema):
        return _without_in_map(value, fields, schema)
    keys = list_keys(schema)
    if isinstance(value, list) and value and keys is not None and schema is not None:
        return _without_in_list(value, fields, schema, keys)
    return GONE if isinstance(value, dict | list) else value


def _without_in_map(value: Mapping[str, Any], fields: FieldSet, schema: Schema | None) -> Any:
    rest: dict[str, Any] = {}
    for name, member in value.items():
        node = fields.get("f:" + name)
        if node is None:
            rest[name] = member
        elif not is_member(node):
            rest[name] = without(member, node, child_schema(schema, name))
    return rest or GONE


def _without_in_list(value: list[Any], fields: FieldSet, schema: Schema, keys: tuple[str, ...]) -> Any:
    rest = []
    for item in value:
        node = fields.get(item_step(item, keys, schema.items))
        if node is None:
            rest.append(item)
        elif not is_member(node):
            rest.append(without(item, node, schema.items))
    return rest or GONE


def with_named_fields(fields: FieldSet, schema: Schema | None) -> FieldSet:
    """`fields` and every struct field on the way to a member, so that a whole struct may be given up."""
    full: FieldSet = {}
    for step, node in fields.items():
        if step == SELF:
            full[SELF] = {}
            continue
        name = step[2:]
        is_field = step.startswith("f:")
        below = child_schema(schema, name) if is_field else (schema.items if schema is not None else None)
        inner = with_named_fields(node, below) if node else node
        if inner and is_field and schema is not None and name in schema.properties:
            inner = {SELF: {}, **inner}
        full[step] = inner
    return full
