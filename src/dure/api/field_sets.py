"""Sets of fields of an object, in the form `metadata.managedFields` stores them (FieldsV1), and their algebra.

A set is a tree of dicts whose keys name a step: `f:<field>`, `k:<keys of a list item as JSON>`, `v:<value of a set
item as JSON>`, `i:<index>`. A step is itself a member of the set when its dict is empty or holds the key `.`.
Sets are values: no function here changes its arguments, and results may share parts with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dure.core.json import dumps, loads

FieldSet = dict[str, Any]

EMPTY: FieldSet = {}
SELF = "."


def is_member(node: FieldSet) -> bool:
    """Whether the step that leads to `node` is in the set, not only steps below it."""
    return not node or SELF in node


def _node(member: bool, children: FieldSet) -> FieldSet | None:
    """A node of the two, None when nothing is left."""
    if not children:
        return {} if member else None
    return {SELF: {}, **children} if member else children


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    if not left or not right or left is right:
        return left or right
    joined = {**left}
    for step, node in right.items():
        if step != SELF:
            mine = left.get(step)
            joined[step] = node if mine is None else _union_node(mine, node)
    return joined


def _union_node(left: FieldSet, right: FieldSet) -> FieldSet:
    children = union(_children(left), _children(right))
    return _node(is_member(left) or is_member(right), children) or {}


def _children(node: FieldSet) -> FieldSet:
    if SELF not in node:
        return node
    return {step: child for step, child in node.items() if step != SELF}


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """Members of `left` that are not members of `right`; members below a removed one stay."""
    if not right:
        return left
    rest: FieldSet = {}
    for step, node in left.items():
        if step == SELF:
            continue
        other = right.get(step)
        kept: FieldSet | None = node
        if other is not None:
            kept = _node(is_member(node) and not is_member(other), difference(_children(node), _children(other)))
        if kept is not None:
            rest[step] = kept
    return rest


def recursive_difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """`left` without the members of `right` and all below them."""
    rest: FieldSet = {}
    for step, node in left.items():
        if step == SELF:
            continue
        other = right.get(step)
        if other is None:
            rest[step] = node
        elif not is_member(other):
            kept = _node(is_member(node), recursive_difference(_children(node), other))
            if kept is not None:
                rest[step] = kept
    return rest


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    common: FieldSet = {}
    for step, node in left.items():
        other = right.get(step)
        if other is None or step == SELF:
            continue
        below = intersection(_children(node), _children(other))
        kept = _node(is_member(node) and is_member(other), below)
        if kept is not None:
            common[step] = kept
    return common


def has_common(left: FieldSet, right: FieldSet) -> bool:
    """Whether the intersection has a member."""
    for step, node in left.items():
        other = right.get(step)
        if other is None or step == SELF:
            continue
        if (is_member(node) and is_member(other)) or (node and other and has_common(node, other)):
            return True
    return False


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """Each member as a readable path: `.spec.containers[name="web"].image`."""
    for step, node in sorted(fields.items()):
        if step == SELF:
            continue
        here = prefix + _readable(step)
        if is_member(node):
            yield here
        yield from paths(node, here)


def _readable(step: str) -> str:
    kind, _, rest = step.partition(":")
    if kind == "f":
        return f".{rest}"
    if kind == "k":
        return "[" + ",".join(f"{name}={dumps(value).decode()}" for name, value in loads(rest).items()) + "]"
    return f"[={rest}]" if kind == "v" else f"[{rest}]"


def in_order(fields: FieldSet) -> FieldSet:
    """The same set with its steps sorted, as stored and shown."""
    return {step: in_order(fields[step]) if fields[step] else {} for step in sorted(fields)}
