"""OpenAPI v3: an index, and one document a group and version under a hash, so that clients keep it."""

from __future__ import annotations

import hashlib

from dure.api.kind import Kinds
from dure.apiserver.requestinfo import RequestInfo
from dure.core.json import Obj, dumps
from dure.wire.http import Request, Response

_ROOT = "/openapi/v3"
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
        return {
            root: hashlib.sha512("\n".join(sorted(lines)).encode()).hexdigest().upper()
            for root, lines in groups.items()
        }

    def _index(self, request: Request) -> Response:
        paths: Obj = {
            root: {"serverRelativeURL": f"{_ROOT}/{root}?hash={digest}"}
            for root, digest in sorted(self._hashes.items())
        }
        value = {"paths": paths}
        body = dumps(value)
        tag = f'"{hashlib.sha512(body).hexdigest().upper()}"'
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
        from dure.api.openapi import document

        made = self._documents.get(path)
        if made is None:
            group, version = _split(path)
            made = self._documents[path] = dumps(document(self._kinds, group, version)), digest
        return Response(200, headers, made[0])


def _digest(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest().upper()


def _split(path: str) -> tuple[str, str]:
    parts = path.split("/")
    return ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
