"""From an authorised resource request to the verb or subresource that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from dure.apiserver.access import Access
from dure.apiserver.call import Call
from dure.apiserver.errors import method_not_allowed, unknown_path
from dure.apiserver.rest.deleting import Deleting
from dure.apiserver.rest.objects import Objects
from dure.apiserver.rest.reading import Reading
from dure.apiserver.rest.scaling import Scaling
from dure.apiserver.rest.watching import Watching
from dure.apiserver.rest.writing import Writing
from dure.apiserver.watch_hub import WatchHub
from dure.wire.http import Response

Answer = Callable[[Call], Awaitable[Response]]

CONNECT = frozenset({"exec", "attach", "portforward", "proxy"})
"""Subresources that are tunnels: every method is theirs."""


class Resources:
    """`special` answers whole kinds or subresources: `pods/binding`, `tokenreviews.authentication.k8s.io`."""

    def __init__(self, objects: Objects, hub: WatchHub, access: Access, special: Mapping[str, Answer]) -> None:
        reading = Reading(objects)
        writing = Writing(objects, reading, access)
        deleting = Deleting(objects, reading)
        scaling = Scaling(objects)
        self._special = special
        self._reading, self._writing = reading, writing
        self._verbs: dict[str, Answer] = {
            "get": reading.get,
            "list": reading.list_objects,
            "watch": Watching(objects, reading, hub).watch,
            "create": writing.create,
            "update": writing.update,
            "patch": writing.patch,
            "delete": deleting.delete,
            "deletecollection": deleting.delete_collection,
        }
        self._scale: dict[str, Answer] = {"get": scaling.get, "update": scaling.update, "patch": scaling.patch}

    async def answer(self, call: Call) -> Response:
        """Raises ApiError."""
        kind, info = call.kind, call.info
        if info.subresource:
            return await self._subresource(call)
        special = self._special.get(kind.resource)
        if special is not None:
            if info.verb not in kind.verbs:
                raise method_not_allowed(kind)
            return await special(call)
        verb = self._verbs.get(info.verb)
        if verb is None or info.verb not in kind.verbs:
            raise method_not_allowed(kind)
        return await verb(call)

    async def _subresource(self, call: Call) -> Response:
        kind, info = call.kind, call.info
        special = self._special.get(f"{kind.resource}/{info.subresource}")
        if special is not None and (info.subresource in CONNECT or not info.rest):
            return await special(call)
        found = kind.subresource(info.subresource)
        if found is None or info.rest:
            raise unknown_path()
        if info.verb not in found.verbs:
            raise method_not_allowed(kind)
        if info.subresource == "scale":
            return await self._scale[info.verb](call)
        if info.verb == "get":
            return await self._reading.get(call)
        if info.verb == "update":
            return await self._writing.update(call, info.subresource)
        return await self._writing.patch(call, info.subresource)
