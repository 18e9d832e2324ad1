"""Strategic merge patch: lists are merged by the keys their schema names, and `$` directives steer the merge.

Semantics: Kubernetes' strategic merge patch with `$patch`, `$retainKeys`, `$setElementOrder/<list>` and
`$deleteFromPrimitiveList/<list>`; the precedence of order is `$setElementOrder`, then the patch, then the live list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dure.api.schemas import Schema
from dure.core.errors import BadRequest, UnsupportedMediaType
from dure.core.json import Obj, thaw

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_DIRECTIVES = (_RETAIN, _ORDER, _DELETE_FROM)
_BAD_ORDER = "invalid patch format of setElementOrder list"
_BAD_RETAIN = "invalid patch format of retainKeys"
_BAD_PRIMITIVES = "invalid patch format of primitive list"

_List = list[Any]


def apply_strategic_patch(obj: Obj, patch: Any, schema: Schema | None) -> Obj:
    """A patched copy. Raises BadRequest, and without a schema (custom kinds) UnsupportedMediaType."""
    if schema is None:
        raise UnsupportedMediaType("strategic merge patch format is not supported")
    if not isinstance(patch, dict):
        raise BadRequest("invalid JSON document")
    return _merge_map(thaw(obj), thaw(patch), schema)


def _child(schema: Schema | None, name: str) -> Schema | None:
    return None if schema is None else schema.properties.get(name) or schema.additional


def _merges(schema: Schema | None) -> bool:
    return schema is not None and "merge" in schema.patch_strategy


def _merge_map(original: Obj, patch: Obj, schema: Schema | None) -> Obj:
    """`original` with `patch` merged in; both are consumed."""
    if _DIRECTIVE in patch:
        return _replaced_map(patch)
    _retain_keys(original, patch)
    for key in [key for key in patch if key.startswith(_DELETE_FROM.rstrip("/"))]:
        _delete_primitives(original, key, patch.pop(key))
    for key in [key for key in patch if key.startswith(_ORDER)]:
        _merge_in_order(original, patch, key, schema)
    for key, value in patch.items():
        if value is None:
            original.pop(key, None)
        else:
            _merge_field(original, key, value, _child(schema, key))
    return original


def _replaced_map(patch: Obj) -> Obj:
    directive = patch.pop(_DIRECTIVE)
    if directive == "replace":
        return patch
    if directive == "delete":
        return {}
    raise BadRequest(f"unknown patch type: {directive} in map: {patch}")


def _merge_field(original: Obj, key: str, value: Any, schema: Schema | None) -> None:
    current = original.get(key)
    replaces = schema is not None and "replace" in schema.patch_strategy
    if isinstance(current, dict) and isinstance(value, dict):
        original[key] = value if replaces else _merge_map(current, value, schema)
    elif isinstance(current, list) and isinstance(value, list):
        original[key] = _merge_list(current, value, schema) if _merges(schema) else value
    elif isinstance(value, dict) and _DIRECTIVE in value:
        original.pop(key, None)
    else:
        original[key] = _plain(value)


def _plain(value: Any) -> Any:
    """A patch value where nothing stood before: without nulls in objects and without what bears a directive."""
    if isinstance(value, dict):
        return {
            key: _plain(member)
            for key, member in value.items()
            if member is not None and not _has_directive(member) and not key.startswith(_DIRECTIVES)
        }
    if isinstance(value, list):
        return [_plain(item) for item in value if not _has_directive(item)]
    return value


def _has_directive(value: Any) -> bool:
    return isinstance(value, dict) and _DIRECTIVE in value


def _retain_keys(original: Obj, patch: Obj) -> None:
    """`$retainKeys`: drop every member of the original that is not in the list."""
    keys = patch.pop(_RETAIN, None)
    if keys is None:
        return
    if not isinstance(keys, list):
        raise BadRequest(_BAD_RETAIN)
    for key, value in patch.items():
        if value is not None and key not in keys and not key.startswith((_DELETE_FROM, _ORDER)):
            raise BadRequest(_BAD_RETAIN)
    for key in [key for key in original if key not in keys]:
        del original[key]


def _delete_primitives(original: Obj, directive: str, values: Any) -> None:
    prefix, slash, key = directive.partition("/")
    if not slash or f"{prefix}/" != _DELETE_FROM or not isinstance(values, list):
        raise BadRequest(_BAD_PRIMITIVES)
    if isinstance(original.get(key), list):
        original[key] = [item for item in original[key] if item not in values]


def _merge_in_order(original: Obj, patch: Obj, directive: str, schema: Schema | None) -> None:
    """`$setElementOrder/<list>`: merge that list now, and put it in the given order."""
    order = patch.pop(directive)
    key = directive.removeprefix(_ORDER)
    live, changes = original.get(key), patch.get(key)
    if not isinstance(order, list) or not all(value is None or isinstance(value, list) for value in (live, changes)):
        raise BadRequest(_BAD_ORDER)
    field = _child(schema, key)
    identity = _identity(field, order)
    _check_order(changes or [], order, identity)
    if live is None and changes is None:
        return
    patch.pop(key, None)
    before = [*live] if live else []
    if live is None:
        merged = _plain(changes)
    elif changes is None:
        merged = live
    else:
        merged = _merge_list(live, changes, field) if _merges(field) else changes
    original[key] = _arrange(merged, order, before, identity)


_Identity = Callable[[Any], Any]


def _identity(schema: Schema | None, *lists: _List) -> _Identity:
    """How items of a list are told apart: by the merge key, or as they are. Raises BadRequest when an item lacks it."""
    merge_key = schema.patch_merge_key if schema is not None else ""

    def of(item: Any) -> Any:
        if isinstance(item, list):
            raise BadRequest("lists of lists are not supported")
        if not merge_key:
            if isinstance(item, dict):
                raise BadRequest(f"cannot merge lists without merge key for {schema.go_name if schema else 'list'}")
            return item
        if not isinstance(item, dict):
            raise BadRequest("list element types are not identical")
        if merge_key not in item:
            raise BadRequest(f"map: {item} does not contain declared merge key: {merge_key}")
        return item[merge_key]

    for items in lists:
        for item in items:
            if not _has_directive(item):
                _check_hashable(of(item))
    return of


def _check_hashable(key: Any) -> None:
    if isinstance(key, dict | list):
        raise BadRequest(f"a merge key must be a plain value, not {key}")


def _check_order(changes: _List, order: _List, identity: _Identity) -> None:
    """Every changed item must stand in the order list, in the same order."""
    if not order:
        return
    wanted = iter([identity(item) for item in order])
    for item in changes:
        if not _has_directive(item) and identity(item) not in wanted:
            raise BadRequest(f"The order in patch list:\n{changes}\n doesn't match $setElementOrder list:\n{order}\n")


def _merge_list(live: _List, changes: _List, schema: Schema | None) -> _List:
    """A list whose strategy is merge; `live` and `changes` are consumed."""
    if not live and not changes:
        return live
    identity = _identity(schema, live, changes)
    item_schema = schema.items if schema is not None else None
    live, changes = _obey_item_directives(live, changes, identity)
    merged = [*live]
    places: dict[Any, int] = {}
    for index, item in enumerate(merged):
        places.setdefault(identity(item), index)
    for item in changes:
        place = places.get(identity(item))
        if place is None:
            places[identity(item)] = len(merged)
            merged.append(item)
        elif isinstance(item, dict):
            merged[place] = _merge_map(merged[place], item, item_schema)
    return _arrange(merged, changes, live, identity)


def _obey_item_directives(live: _List, changes: _List, identity: _Identity) -> tuple[_List, _List]:
    """What `{$patch: delete, <key>}` and `{$patch: replace}` items leave of both lists."""
    plain, replace = [], False
    for item in changes:
        directive = item.get(_DIRECTIVE) if isinstance(item, dict) else None
        if directive is None:
            plain.append(item)
        elif directive == "delete":
            gone = identity(item)
            live = [other for other in live if identity(other) != gone]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise BadRequest("merging lists cannot yet be specified in the patch")
        else:
            raise BadRequest(f"unknown patch type: {directive} in map: {item}")
    return (plain, []) if replace else (live, plain)


def _arrange(merged: _List, order: _List, live: _List, identity: _Identity) -> _List:
    """Items named in `order` in that order; between them, items only the server has, where they stood in `live`."""
    wanted: dict[Any, int] = {}
    for index, item in enumerate(order):
        wanted.setdefault(identity(item), index)
    stood: dict[Any, int] = {}
    for index, item in enumerate(live):
        stood.setdefault(identity(item), index)
    ours = sorted((item for item in merged if identity(item) in wanted), key=lambda item: wanted[identity(item)])
    theirs = [item for item in merged if identity(item) not in wanted]
    arranged: _List = []
    for item in theirs:
        here = stood.get(identity(item), len(live))
        while ours and not here < stood.get(identity(ours[0]), -1):
            arranged.append(ours.pop(0))
        arranged.append(item)
    return arranged + ours
