"""OpenAPI v3: an index, and one document a group and version under a hash, so that clients keep it.

Version 2 is answered with a document that describes nothing: clients look there for what v3 does not list, and take
an error for a fault of the server.
"""

from __future__ import annotations

import hashlib

from dure import KUBERNETES_VERSION
from dure.api.kind import Kinds
from dure.api.openapi import document
from dure.api.protobuf_wire import bytes_field
from dure.apiserver.representation import json_response
from dure.apiserver.requestinfo import RequestInfo
from dure.core.json import Obj, dumps
from dure.wire.http import Request, Response

_ROOT = "/openapi/v3"
_OLD = "/openapi/v2"
_OLD_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_FOREVER = "public, immutable"
_EXPIRES = "Fri, 31 Dec 2100 23:59:59 GMT"


class OpenApi:
    """Documents are made when first asked for, and anew when the registry of kinds has changed."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._generation = -1
        self._documents: dict[str, tuple[bytes, str]] = {}
        self._hashes: dict[str, str] = {}

    def answer(self, request: Request, info: RequestInfo) -> Response | None:
        if info.path == _OLD:
            return _old_document(request)
        if info.path.rstrip("/") != _ROOT and not info.path.startswith(_ROOT + "/"):
            return None
        if self._generation != self._kinds.generation:
            self._generation = self._kinds.generation
            self._documents.clear()
            self._hashes = self._make_hashes()
        path = info.path[len(_ROOT) :].strip("/")
        return self._document(request, path) if path else self._index(request)

    def _make_hashes(self) -> dict[str, str]:
        """A group's hash follows its kinds; the document itself need not be made for it."""
        groups: dict[str, list[str]] = {}
        for kind in self._kinds:
            root = f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"
            custom = hashlib.sha256(dumps(kind.custom)).hexdigest() if kind.custom else ""
            subresources = ",".join(sorted(sub.name for sub in kind.subresources))
            groups.setdefault(root, []).append(f"{kind.kind} {kind.plural} {subresources} {custom}")
        return {root: _digest("\n".join(sorted(lines)).encode()) for root, lines in groups.items()}

    def _index(self, request: Request) -> Response:
        urls = {root: f"{_ROOT}/{root}?hash={digest}" for root, digest in sorted(self._hashes.items())}
        value: Obj = {"paths": {root: {"serverRelativeURL": url} for root, url in urls.items()}}
        body = dumps(value)
        tag = f'"{_digest(body)}"'
        headers = {"Content-Type": "application/json", "ETag": tag, "Vary": "Accept"}
        if request.headers.get("if-none-match") == tag:
            return Response(304, headers)
        return Response(200, headers, body, value=value)

    def _document(self, request: Request, path: str) -> Response | None:
        digest = self._hashes.get(path)
        if digest is None:
            return None
        tag = f'"{digest}"'
        headers = {"Content-Type": "application/json", "ETag": tag, "Vary": "Accept"}
        if (asked := request.param("hash")) == digest:
            headers |= {"Cache-Control": _FOREVER, "Expires": _EXPIRES}
        elif asked:
            location = f"{_ROOT}/{path}?hash={digest}"
            return Response(301, {"Location": location})
        else:
            headers["Cache-Control"] = "no-cache, private"
        if request.headers.get("if-none-match") == tag:
            return Response(304, headers)
        made = self._documents.get(path)
        if made is None:
            group, version = _split(path)
            made = self._documents[path] = dumps(document(self._kinds, group, version)), digest
        return Response(200, headers, made[0])


def _old_document(request: Request) -> Response:
    title, version = "Kubernetes", KUBERNETES_VERSION
    if "protobuf" in request.headers.get("accept", ""):
        info = bytes_field(1, title.encode()) + bytes_field(2, version.encode())
        body = bytes_field(1, b"2.0") + bytes_field(2, info) + bytes_field(8, b"")
        return Response(200, {"Content-Type": _OLD_PROTOBUF}, body)
    return json_response({"swagger": "2.0", "info": {"title": title, "version": version}, "paths": {}})


def _digest(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest().upper()


def _split(path: str) -> tuple[str, str]:
    parts = path.split("/")
    return ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
