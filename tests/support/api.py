"""A small working API server: the verbs of Kubernetes over a MemoryStore, without rules, roles or defaults."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from dure.api.kind import Kind, Kinds
from dure.api.meta import labels_of, name_of
from dure.api.selectors import parse_field_selector, parse_label_selector
from dure.client.client import Client
from dure.client.in_process import InProcessTransport
from dure.client.transport import Transport
from dure.core.errors import AlreadyExists, ApiError, BadRequest, Conflict, Expired, NotFound
from dure.core.json import Obj, dumps, loads, thaw
from dure.store.memory import MemoryStore
from dure.store.model import Compacted, Event, KeyNotFound, Record, RevisionMismatch, Store
from dure.wire.http import Request, Response
from tests.support.kinds import plain_kinds

Matches = Callable[[Obj], bool]


class FakeApi:
    """`handle` answers; `calls` notes what was asked."""

    def __init__(self, kinds: Kinds | None = None, store: Store | None = None) -> None:
        self.kinds = kinds or plain_kinds()
        self.store = store or MemoryStore()
        self.calls: list[str] = []
        self.bodies: list[Any] = []
        self.requests: list[Request] = []

    def client(self, wrap: Callable[[Transport], Transport] = lambda transport: transport) -> Client:
        return Client(wrap(InProcessTransport(self.handle, user="test")), self.kinds)

    async def handle(self, request: Request) -> Response:
        self.calls.append(f"{request.method} {request.path}")
        self.requests.append(request)
        try:
            value = request.value if request.value is not None else (loads(request.body) if request.body else None)
            self.bodies.append(value)
            return await self._answer(request, value)
        except ApiError as error:
            return Response(error.code, {"Content-Type": "application/json"}, dumps(error.to_status()))

    async def _answer(self, request: Request, value: Any) -> Response:
        kind, namespace, name, subresource = self._resolve(request.path)
        match request.method:
            case "GET" if name:
                return _answer(_decode(await self._record(kind.key(namespace, name))))
            case "GET" if request.param("watch") == "true":
                return Response(stream=_Watch(self.store, kind, kind.prefix(namespace), request))
            case "GET":
                return await self._list(kind, namespace, request)
            case "POST":
                return _answer(await self._create(kind, namespace, name, subresource, value, request))
            case "PUT" | "PATCH":
                return _answer(await self._change(kind.key(namespace, name), request.method, value))
            case "DELETE" if name:
                return _answer(await self._delete(kind.key(namespace, name), value))
            case "DELETE":
                for record in (await self.store.list(kind.prefix(namespace))).records:
                    await self.store.delete(record.key, expect=None)
                return _answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        raise BadRequest(request.method)

    def _resolve(self, path: str) -> tuple[Kind, str, str, str]:
        parts = path.strip("/").split("/")
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        kind = self.kinds.at(group, version, rest[0])
        if kind is None:
            raise NotFound("the server could not find the requested resource")
        return kind, namespace, rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""

    async def _record(self, key: str) -> Record:
        try:
            return await self.store.get(key)
        except KeyNotFound:
            raise NotFound(f"{key} not found") from None

    async def _list(self, kind: Kind, namespace: str, request: Request) -> Response:
        limit = int(request.param("limit", "0"))
        page = await self.store.list(kind.prefix(namespace), limit=limit, after=request.param("continue"))
        matches = _selection(kind, request)
        items = [obj for obj in map(_decode, page.records) if matches(obj)]
        meta = {"resourceVersion": str(page.revision), "continue": page.after}
        return _answer({"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta, "items": items})

    async def _create(
        self, kind: Kind, namespace: str, name: str, subresource: str, value: Obj, request: Request
    ) -> Obj:
        if subresource:
            await self._record(kind.key(namespace, name))
            return value
        obj: Obj = thaw(value)
        obj["metadata"] |= {"uid": str(uuid.uuid4())} | ({"namespace": namespace} if kind.namespaced else {})
        if request.param("dryRun"):
            return obj
        try:
            return _decode(await self.store.put(kind.key(namespace, name_of(obj)), dumps(obj), expect=0))
        except RevisionMismatch:
            raise AlreadyExists(f'{kind.resource} "{name_of(obj)}" already exists') from None

    async def _change(self, key: str, method: str, value: Any) -> Obj:
        record = await self._record(key)
        obj = value if method == "PUT" else _merge(_decode(record), value)
        wanted = obj["metadata"].get("resourceVersion")
        try:
            return _decode(await self.store.put(key, dumps(obj), expect=int(wanted) if wanted else record.revision))
        except RevisionMismatch as error:
            raise Conflict(str(error)) from None

    async def _delete(self, key: str, options: Obj | None) -> Obj:
        record = await self._record(key)
        wanted = ((options or {}).get("preconditions") or {}).get("uid")
        if wanted and wanted != _decode(record)["metadata"]["uid"]:
            raise Conflict("the uid is another")
        return _decode(await self.store.delete(key, expect=None))


class _Watch:
    def __init__(self, store: Store, kind: Kind, prefix: str, request: Request) -> None:
        self._store, self._kind, self._prefix, self._request = store, kind, prefix, request

    async def values(self) -> AsyncIterator[Any]:
        matches = _selection(self._kind, self._request)
        try:
            async with self._store.watch(self._prefix, since=int(self._request.param("resourceVersion"))) as watch:
                async for event in watch:
                    if (value := _shown(event, matches)) is not None:
                        yield value
        except Compacted as error:
            yield {"type": "ERROR", "object": Expired(str(error)).to_status()}

    async def chunks(self) -> AsyncIterator[bytes]:
        async for value in self.values():
            yield dumps(value) + b"\n"


def _shown(event: Event, matches: Matches) -> Obj | None:
    had = event.previous is not None and matches(_decode(event.previous))
    has = event.type == "PUT" and matches(_decode(event.record))
    if not had and not has:
        return None
    return {"type": "DELETED" if not has else "MODIFIED" if had else "ADDED", "object": _decode(event.record)}


def _selection(kind: Kind, request: Request) -> Matches:
    labels = parse_label_selector(request.param("labelSelector"))
    fields = parse_field_selector(request.param("fieldSelector"))

    def matches(obj: Obj) -> bool:
        values = kind.strategy.selectable_fields(obj) | {"metadata.name": name_of(obj)}
        return labels.matches(labels_of(obj)) and fields.matches(lambda name: values.get(name, ""))

    return matches


def _decode(record: Record) -> Obj:
    obj: Obj = loads(record.value)
    obj["metadata"]["resourceVersion"] = str(record.revision)
    return obj


def _answer(value: Any) -> Response:
    return Response(200, {"Content-Type": "application/json"}, dumps(value), value=value)


def _merge(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged
