"""The answers other than success, worded and detailed as the Kubernetes API server words them."""

from __future__ import annotations

from typing import Any

from dure.api.kind import Kind
from dure.core.errors import AlreadyExists, ApiError, Conflict, Forbidden, MethodNotAllowed, NotFound

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def resource_details(kind: Kind, name: str) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name} if name else {}
    if kind.group:
        details["group"] = kind.group
    details["kind"] = kind.plural
    return details


def not_found(kind: Kind, name: str) -> NotFound:
    return NotFound(f'{kind.resource} "{name}" not found', details=resource_details(kind, name))


def already_exists(kind: Kind, name: str, *, deleting: bool = False) -> AlreadyExists:
    prefix = "object is being deleted: " if deleting else ""
    return AlreadyExists(f'{prefix}{kind.resource} "{name}" already exists', details=resource_details(kind, name))


def conflict(kind: Kind, name: str, why: str = MODIFIED) -> Conflict:
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return Conflict(message, details=resource_details(kind, name))


def forbidden(kind: Kind, name: str, why: str) -> Forbidden:
    shown = f' "{name}"' if name else ""
    return Forbidden(f"{kind.resource}{shown} is forbidden: {why}", details=resource_details(kind, name))


def unknown_path() -> NotFound:
    """For a resource or path nobody serves."""
    return NotFound("the server could not find the requested resource", details={})


def method_not_allowed(kind: Kind | None = None) -> MethodNotAllowed:
    message = "the server does not allow this method on the requested resource"
    return MethodNotAllowed(message, details=resource_details(kind, "") if kind else {})


def revision_on_create() -> ApiError:
    return ApiError("resourceVersion should not be set on objects to be created", code=500, reason="")


def future_revision(asked: int, current: int) -> ApiError:
    """A client that asks for what has not happened; it retries or lists anew."""
    message = f"Too large resource version: {asked}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return ApiError(message, code=504, reason="Timeout", details={"causes": [cause]}, retry_after=1)
