"""CustomResourceDefinitions at work: kinds appear and go with them, and a definition takes its objects along.

The definitions in the store are the truth; the registry follows them, at the start and on every change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dure.api.crd import is_established, kinds_of, settled_status
from dure.api.kind import Kind
from dure.api.meta import with_condition
from dure.apiserver.call import Call
from dure.apiserver.ports import MASTERS, VerifiedUser
from dure.apiserver.requestinfo import RequestInfo
from dure.apiserver.rest.deleting import Deleting
from dure.apiserver.rest.objects import Objects, Write
from dure.apiserver.rest.options import DeleteOptions
from dure.core.aio import running
from dure.core.errors import ApiError, NotFound
from dure.core.json import Obj, thaw
from dure.store.model import Compacted
from dure.wire.http import Request

log = logging.getLogger(__name__)

_RESOURCE = "customresourcedefinitions.apiextensions.k8s.io"
_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_SERVER = VerifiedUser("system:apiserver", (MASTERS,))


class CustomKinds:
    """Keeps `Kinds` and the definitions' status true while its block lasts."""

    def __init__(self, objects: Objects, deleting: Deleting) -> None:
        self._objects, self._deleting = objects, deleting
        self._served: dict[str, list[Kind]] = {}
        self._ending: set[str] = set()

    @property
    def _kind(self) -> Kind:
        return self._objects.kinds.resource(_RESOURCE)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """What is in the store is served before the block begins."""
        revision = await self._load()
        async with running(self._follow(revision)):
            yield

    async def _load(self) -> int:
        page = await self._objects.store.list(self._kind.prefix())
        decode = self._objects.codec(self._kind).decode
        found = {str(crd["metadata"]["name"]): crd for crd in map(decode, page.records)}
        for name in self._served.keys() - found.keys():
            self._drop(name)
        for crd in found.values():
            await self._settle(crd)
        return page.revision

    async def _follow(self, revision: int) -> None:
        async with asyncio.TaskGroup() as cleanups:
            for name in self._served:
                await self._end_if_asked(cleanups, name)
            while True:
                try:
                    await self._read(cleanups, revision)
                except Compacted:
                    log.warning("custom kinds fell behind and are read anew")
                    revision = await self._load()

    async def _read(self, cleanups: asyncio.TaskGroup, revision: int) -> None:
        decode = self._objects.codec(self._kind).decode
        async with self._objects.store.watch(self._kind.prefix(), since=revision) as events:
            while True:
                for event in await events.take():
                    crd = decode(event.record)
                    name = str(crd["metadata"]["name"])
                    if event.type == "DELETED":
                        self._drop(name)
                        continue
                    await self._settle(crd)
                    await self._end_if_asked(cleanups, name)

    async def _settle(self, crd: Obj) -> None:
        """Serve what may be served and write down what was decided."""
        name = str(crd["metadata"]["name"])
        now = self._objects.now()

        def settled(old: Obj) -> Obj:
            new: Obj = thaw(old)
            new["status"] = settled_status(old, self._objects.kinds, now)
            finalizers = new["metadata"].get("finalizers") or []
            if _CLEANUP not in finalizers and not new["metadata"].get("deletionTimestamp"):
                new["metadata"]["finalizers"] = [*finalizers, _CLEANUP]
            return new

        try:
            crd = await self._objects.amend(self._kind, "", name, settled)
        except NotFound:
            self._drop(name)
            return
        if is_established(crd):
            self._serve(name, kinds_of(crd))

    def _serve(self, name: str, kinds: list[Kind]) -> None:
        """Replace what the definition made before; an unchanged definition changes nothing."""
        before = self._served.get(name, [])
        if [(kind.gvk, kind.custom) for kind in before] == [(kind.gvk, kind.custom) for kind in kinds]:
            return
        for kind in before:
            self._objects.kinds.remove(kind)
        for kind in kinds:
            self._objects.kinds.add(kind)
        self._served[name] = kinds

    def _drop(self, name: str) -> None:
        for kind in self._served.pop(name, ()):
            self._objects.kinds.remove(kind)

    # ── the end of a definition ───────────────────────────────────────────────────────────────────────────────────

    async def _end_if_asked(self, cleanups: asyncio.TaskGroup, name: str) -> None:
        crd = await self._objects.find(self._kind, "", name)
        if crd is None or not crd["metadata"].get("deletionTimestamp") or name in self._ending:
            return
        if _CLEANUP in (crd["metadata"].get("finalizers") or []):
            self._ending.add(name)
            cleanups.create_task(self._end(name, crd), name=f"end of {name}")

    async def _end(self, name: str, crd: Obj) -> None:
        """Delete every object of the definition, wait until they are gone, and let it go."""
        try:
            await self._mark_terminating(name)
            kinds = kinds_of(crd)
            if kinds:
                await self._delete_objects(kinds[0])
            await self._release(name)
        except NotFound:
            log.info("a definition went before its objects were gone", extra={"definition": name})
        finally:
            self._ending.discard(name)

    async def _mark_terminating(self, name: str) -> None:
        now = self._objects.now()
        entry = {
            "type": "Terminating",
            "status": "True",
            "reason": "InstanceDeletionInProgress",
            "message": "CustomResource deletion is in progress",
        }

        def marked(old: Obj) -> Obj:
            new: Obj = thaw(old)
            status = new.setdefault("status", {})
            status["conditions"] = with_condition(status.get("conditions") or [], entry, now)
            return new

        await self._objects.amend(self._kind, "", name, marked)

    async def _delete_objects(self, kind: Kind) -> None:
        store = self._objects.store
        while True:
            page = await store.list(kind.prefix())
            if not page.records:
                return
            try:
                async with store.watch(kind.prefix(), since=page.revision) as events:
                    for record in page.records:
                        await self._delete_one(kind, self._objects.codec(kind).decode(record))
                    await events.take()
            except Compacted:
                continue

    async def _delete_one(self, kind: Kind, obj: Obj) -> None:
        meta = obj["metadata"]
        call = Call(Request("DELETE", ""), RequestInfo("", "delete", is_resource=True), _SERVER, kind)
        try:
            await self._deleting.remove(call, meta.get("namespace", ""), meta["name"], DeleteOptions())
        except NotFound:
            return
        except ApiError as error:
            log.warning("an object cannot be deleted", extra={"object": meta["name"], "error": error.message})

    async def _release(self, name: str) -> None:
        """Take off the finalizer; the definition goes with its last one."""

        def released(old: Obj) -> Obj:
            new: Obj = thaw(old)
            finalizers = [item for item in new["metadata"].get("finalizers") or [] if item != _CLEANUP]
            new["metadata"]["finalizers"] = finalizers
            return new

        await self._objects.update(Write(self._kind, "", name, _SERVER), released)
