"""What a request is about: verb, resource, namespace, name; read from method and path alone.

Follows Kubernetes' `RequestInfo`: authorization and audit see these words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import unquote

from dure.api.selectors import parse_field_selector
from dure.core.errors import BadRequest
from dure.wire.http import Request

_METHOD_VERB = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OF_NAMESPACE = frozenset({"status", "finalize"})
_COLLECTION_VERBS = frozenset({"list", "watch", "deletecollection"})


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """For a resource request every part is set; for others only `verb` (the lower-case method) and `path`."""

    path: str
    verb: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    rest: str = ""
    """What follows the subresource, for proxies, with its leading slash."""

    selected_name: str = ""
    """For a collection narrowed by `metadata.name=`, that name: authorization may allow just it."""


def _segments(path: str) -> list[str]:
    return [unquote(part) for part in path.strip("/").split("/")] if path.strip("/") else []


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "1", "t")


def is_watch(request: Request) -> bool:
    return _is_true(request.param("watch", "false")) if request.method in ("GET", "HEAD") else False


def read_request_info(request: Request) -> RequestInfo:
    """The request's RequestInfo; a path outside /api and /apis is never a resource."""
    info = _read(request.method, request.path, is_watch(request))
    if info.verb in _COLLECTION_VERBS and info.is_resource and not info.name and "fieldSelector" in request.query:
        return replace(info, selected_name=_selected_name(request))
    return info


@lru_cache(maxsize=4096)
def _read(method: str, path: str, watch: bool) -> RequestInfo:
    """What method and path say; many requests are about the same few paths."""
    parts = _segments(path)
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(path, method.lower())
    verb = _METHOD_VERB.get(method, method.lower())
    if rest[0] == "watch" and len(rest) > 1 and verb == "get":
        verb, rest, watch = "watch", rest[1:], True
    namespace, rest = _without_namespace(group, rest)
    name = rest[1] if len(rest) > 1 else ""
    if not name and verb == "delete":
        verb = "deletecollection"
    elif not name and verb in ("get", "watch"):
        verb = "watch" if watch else "list"
    return RequestInfo(
        path,
        verb,
        is_resource=True,
        group=group,
        version=version,
        resource=rest[0],
        subresource=rest[2] if len(rest) > 2 else "",
        namespace=namespace,
        name=name,
        rest="/" + "/".join(rest[3:]) if len(rest) > 3 else "",
    )


def _without_namespace(group: str, rest: list[str]) -> tuple[str, list[str]]:
    """The namespace of a path and what follows it; a namespace is also an object with subresources of its own."""
    if rest[0] != "namespaces" or len(rest) < 2:
        return "", rest
    if len(rest) >= 3 and not (group == "" and rest[2] in _OF_NAMESPACE):
        return rest[1], rest[2:]
    return (rest[1] if group == "" else ""), rest


def _selected_name(request: Request) -> str:
    """A collection narrowed to one name is authorised by that name."""
    text = request.param("fieldSelector")
    if not text:
        return ""
    try:
        return parse_field_selector(text).exact("metadata.name") or ""
    except BadRequest:
        return ""
