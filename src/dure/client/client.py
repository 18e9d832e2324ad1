"""The Kubernetes API as calls on objects: the only way anything above the API server reaches it.

Objects that come back are frozen: `core.json.thaw` one before changing it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from dure.api.kind import Kind, Kinds
from dure.api.meta import gvk_of, name_of, namespace_of
from dure.client.transport import Call, Transport
from dure.core.aio import Scope, closing
from dure.core.errors import NotFound, error_from_status
from dure.core.json import Obj

PatchType = Literal["merge", "json", "strategic"]

_PATCH_MEDIA: dict[str, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}
_APPLY_MEDIA = "application/apply-patch+yaml"

Query = dict[str, list[str]]


@dataclass(slots=True)
class ObjList:
    """One page of a list. `revision` is where a watch goes on; `continue_` asks for the next page, empty at the end."""

    items: list[Obj]
    revision: str
    continue_: str = ""


class WatchEvent(NamedTuple):
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Obj


def _query(**values: str | bool | int) -> Query:
    """Query parameters by their names (a trailing underscore dropped); empty ones are left out."""
    shown = {name.rstrip("_"): str(value).lower() if value is True else str(value) for name, value in values.items()}
    return {name: [value] for name, value in shown.items() if value not in ("", "0", "False")}


class Client:
    """Raises the `ApiError` the server answered, TransportError when there was no answer."""

    def __init__(self, transport: Transport, kinds: Kinds) -> None:
        self._transport = transport
        self._kinds = kinds

    @property
    def kinds(self) -> Kinds:
        return self._kinds

    async def get(self, resource: str, name: str, namespace: str = "", *, subresource: str = "") -> Obj:
        return await self._ask("GET", self._kind(resource).path(namespace, name, subresource))

    async def list(
        self,
        resource: str,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        continue_: str = "",
        revision: str = "",
    ) -> ObjList:
        """All objects, or the first `limit`; without a namespace, of all namespaces."""
        kind = self._kind(resource)
        query = _query(labelSelector=labels, fieldSelector=fields, limit=limit, continue_=continue_)
        if revision:
            query["resourceVersion"] = [revision]  # "0" has a meaning of its own
        answer = await self._ask("GET", kind.path(namespace), query)
        meta = answer.get("metadata") or {}
        items = [_typed(item, kind) for item in answer.get("items") or ()]
        return ObjList(items, str(meta.get("resourceVersion") or ""), str(meta.get("continue") or ""))

    async def create(self, obj: Obj, *, subresource: str = "", name: str = "", dry_run: bool = False) -> Obj:
        """Kind and namespace are read from the object; `name` says whose subresource it goes to."""
        path = self._kind_of(obj).path(namespace_of(obj), name, subresource)
        return await self._ask("POST", path, _query(dryRun="All" if dry_run else ""), obj)

    async def create_at(self, resource: str, name: str, namespace: str, subresource: str, body: Obj) -> Obj:
        """Post to a subresource that speaks a kind of its own: binding, eviction, token."""
        return await self._ask("POST", self._kind(resource).path(namespace, name, subresource), None, body)

    async def update(self, obj: Obj, *, subresource: str = "") -> Obj:
        """Replace; a `resourceVersion` in the object is the precondition, Conflict when it has moved on."""
        path = self._kind_of(obj).path(namespace_of(obj), name_of(obj), subresource)
        return await self._ask("PUT", path, None, obj)

    async def patch(
        self,
        resource: str,
        name: str,
        namespace: str,
        patch: Any,
        *,
        type: PatchType = "merge",
        subresource: str = "",
    ) -> Obj:
        path = self._kind(resource).path(namespace, name, subresource)
        return await self._ask("PATCH", path, None, patch, _PATCH_MEDIA[type])

    async def apply(
        self,
        obj: Obj,
        *,
        manager: str,
        force: bool = False,
        subresource: str = "",
        dry_run: bool = False,
        strict: bool = False,
    ) -> Obj:
        """Server-side apply: this manager's whole wish. Conflict unless `force` when others own a field.

        A field that the kind does not have is left out, or with `strict` refused.
        """
        path = self._kind_of(obj).path(namespace_of(obj), name_of(obj), subresource)
        query = _query(fieldManager=manager, force=force, dryRun="All" if dry_run else "")
        query |= _query(fieldValidation="Strict" if strict else "")
        return await self._ask("PATCH", path, query, obj, _APPLY_MEDIA)

    async def delete(
        self,
        resource: str,
        name: str,
        namespace: str = "",
        *,
        propagation: str = "",
        grace_seconds: int | None = None,
        uid: str = "",
        revision: str = "",
    ) -> None:
        """Ask for deletion; finalizers and a grace period may keep the object for a while."""
        options: Obj = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if propagation:
            options["propagationPolicy"] = propagation
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        asked = {"uid": uid, "resourceVersion": revision}
        if preconditions := {name: value for name, value in asked.items() if value}:
            options["preconditions"] = preconditions
        await self._ask("DELETE", self._kind(resource).path(namespace, name), None, options)

    async def delete_collection(
        self, resource: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> None:
        query = _query(labelSelector=labels, fieldSelector=fields)
        await self._ask("DELETE", self._kind(resource).path(namespace), query)

    def watch(
        self, resource: str, namespace: str = "", *, since: str, labels: str = "", fields: str = ""
    ) -> Scope[AsyncIterator[WatchEvent]]:
        """Events after revision `since`, bookmarks among them; ends when the server ends it.

        Raises Expired when `since` is too old, TransportError when the stream breaks.
        """
        query = _query(watch=True, allowWatchBookmarks=True, labelSelector=labels, fieldSelector=fields)
        query["resourceVersion"] = [since]
        return self._watch(Call("GET", self._kind(resource).path(namespace), query), self._kind(resource))

    async def raw(self, method: str, path: str, **query: str) -> str:
        """Any path, its body as text: logs, `/version`, `/readyz`."""
        async with self._transport.send(Call(method, path, _query(**query))) as answer:
            return await answer.text()

    @asynccontextmanager
    async def _watch(self, call: Call, kind: Kind) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        async with (
            self._transport.send(call) as answer,
            closing(answer.values()) as values,
            closing(_events(values, kind)) as events,
        ):
            yield events

    async def _ask(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        value: Any = None,
        content_type: str = "application/json",
    ) -> Obj:
        call = Call(method, path, query or {}, value, content_type)
        async with self._transport.send(call) as answer:
            found: Obj = await answer.value()
            return found

    def _kind(self, resource: str) -> Kind:
        try:
            return self._kinds.resource(resource)
        except KeyError:
            raise NotFound(f"no resource {resource!r} is served") from None

    def _kind_of(self, obj: Obj) -> Kind:
        gvk = gvk_of(obj)
        kind = self._kinds.of(gvk)
        if kind is None:
            raise NotFound(f"no kind {gvk.kind!r} in version {gvk.api_version!r} is served")
        return kind


async def _events(values: AsyncIterator[Any], kind: Kind) -> AsyncIterator[WatchEvent]:
    async for value in values:
        if value["type"] == "ERROR":
            raise error_from_status(value["object"])
        yield WatchEvent(value["type"], _typed(value["object"], kind))


def _typed(item: Obj, kind: Kind) -> Obj:
    """Servers leave `apiVersion` and `kind` out of the items of a list."""
    if "kind" in item and "apiVersion" in item:
        return item
    return {"apiVersion": kind.api_version, "kind": kind.kind, **item}
