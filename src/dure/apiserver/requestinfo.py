"""What a request is about: verb, resource, namespace, name; read from method and path alone.

Follows Kubernetes' `RequestInfo`: authorization and audit see these words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import unquote

from dure.api.selectors import parse_field_selector
from dure.core.errors import BadRequest
from dure.wire.http import Request

_METHOD_VERB = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OF_NAMESPACE = frozenset({"status", "finalize"})


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
    parts = _segments(request.path)
    plain = RequestInfo(request.path, request.method.lower())
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return plain
    verb = _METHOD_VERB.get(request.method, request.method.lower())
    if rest[0] == "watch" and len(rest) > 1 and verb == "get":
        verb, rest = "watch", rest[1:]
    return _with_verb(request, _resource(plain, group, version, rest), verb)


def _resource(info: RequestInfo, group: str, version: str, rest: list[str]) -> RequestInfo:
    namespace = ""
    if rest[0] == "namespaces" and group == "":
        if len(rest) >= 2:
            namespace = rest[1]
        if len(rest) >= 3 and rest[2] not in _OF_NAMESPACE:
            rest = rest[2:]
    elif rest[0] == "namespaces" and len(rest) >= 3:
        namespace, rest = rest[1], rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    tail = "/" + "/".join(rest[3:]) if len(rest) > 3 else ""
    return replace(
        info,
        is_resource=True,
        group=group,
        version=version,
        resource=rest[0],
        namespace=namespace,
        name=name,
        subresource=subresource,
        rest=tail,
    )


def _with_verb(request: Request, info: RequestInfo, verb: str) -> RequestInfo:
    if not info.name and verb == "delete":
        verb = "deletecollection"
    elif not info.name and verb == "get":
        verb = "watch" if is_watch(request) else "list"
    if verb in ("list", "watch", "deletecollection") and not info.name:
        return replace(info, verb=verb, selected_name=_selected_name(request))
    return replace(info, verb=verb)


def _selected_name(request: Request) -> str:
    """A collection narrowed to one name is authorised by that name."""
    text = request.param("fieldSelector")
    if not text:
        return ""
    try:
        return parse_field_selector(text).exact("metadata.name") or ""
    except BadRequest:
        return ""
