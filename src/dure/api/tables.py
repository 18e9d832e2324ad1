"""Objects as a `meta.k8s.io/v1.Table`, which is what `kubectl get` prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dure.api.columns.cells import DEFAULT
from dure.api.kind import Column, Kind
from dure.core.json import Obj

_DONE = {
    "Succeeded": ("Completed", "The pod has completed successfully."),
    "Failed": ("Failed", "The pod failed."),
}


def make_table(kind: Kind, objects: Iterable[Obj], now: float, include_object: str = "Metadata") -> dict[str, Any]:
    """`include_object` is Metadata, Object or None; `now` is seconds since the epoch. List metadata is the caller's."""
    columns = kind.columns or DEFAULT
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [_definition(column) for column in columns],
        "rows": [_row(kind, columns, obj, now, include_object) for obj in objects],
    }


def _definition(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def _row(kind: Kind, columns: tuple[Column, ...], obj: Obj, now: float, include_object: str) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": [column.value(obj, now) for column in columns]}
    phase = (obj.get("status") or {}).get("phase") if kind.resource == "pods" else None
    if phase in _DONE:
        reason, message = _DONE[phase]
        row["conditions"] = [{"type": "Completed", "status": "True", "reason": reason, "message": message}]
    if include_object == "Object":
        row["object"] = obj
    elif include_object != "None":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": obj["metadata"],
        }
    return row
