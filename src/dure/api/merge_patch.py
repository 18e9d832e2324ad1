"""JSON Merge Patch over API objects: RFC 7386."""

from __future__ import annotations

from typing import Any

from dure.core.errors import BadRequest
from dure.core.json import Obj, thaw


def apply_merge_patch(obj: Obj, patch: Any) -> Obj:
    """A patched copy: objects are merged, null removes, all else replaces. Raises BadRequest."""
    if not isinstance(patch, dict):
        raise BadRequest("invalid JSON Patch: a merge patch must be an object")
    return _merge(thaw(obj), thaw(patch))


def _merge(target: Any, patch: Obj) -> Obj:
    merged: Obj = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = _merge(merged.get(key), value)
        else:
            merged[key] = value
    return merged
