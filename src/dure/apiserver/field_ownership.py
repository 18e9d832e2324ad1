"""Who set which field: the glue between writes and `dure.api.apply`."""

from __future__ import annotations

from dure.api.apply import apply, track_update
from dure.api.kind import Kind
from dure.api.schemas import Schema, Schemas
from dure.api.validation import custom_schema
from dure.core.json import Obj


def schema_of(kind: Kind) -> Schema | None:
    """The structure of a kind's objects; None when nothing is known of it."""
    if kind.custom is not None:
        return custom_schema(kind)
    return Schemas.load().definition(kind.schema) if kind.schema else None


def reset_fields(kind: Kind, subresource: str) -> tuple[str, ...] | None:
    """Top-level fields an endpoint of a custom kind cannot write; built-in kinds know theirs."""
    if kind.custom is None or kind.subresource("status") is None:
        return None
    return ("spec",) if subresource == "status" else ("status",)


def track(manager: str, obj: Obj, old: Obj | None, kind: Kind, subresource: str, now: str) -> None:
    """Record in `obj`, in place, that `manager` made the difference to `old`."""
    tracked = track_update(
        old,
        obj,
        manager=manager,
        schema=schema_of(kind),
        now=now,
        api_version=kind.api_version,
        subresource=subresource,
        reset=reset_fields(kind, subresource),
    )
    obj["metadata"] = tracked["metadata"]


def apply_configuration(
    live: Obj | None, applied: Obj, *, manager: str, force: bool, kind: Kind, subresource: str, now: str
) -> Obj:
    """Server-side apply; the result's managers are recorded. Raises Conflict, BadRequest."""
    return apply(
        live,
        applied,
        manager=manager,
        force=force,
        schema=schema_of(kind),
        now=now,
        api_version=kind.api_version,
        subresource=subresource,
        reset=reset_fields(kind, subresource),
    )
