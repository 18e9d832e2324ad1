"""Garbage collection: dependents follow their owners, at once, before them, or not at all.

Semantics of `propagationPolicy` Background, Foreground and Orphan as in Kubernetes; an owner that the
graph does not show is asked for at the API before anything is deleted on its account.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

from dure.api.kind import Kind, Kinds
from dure.api.meta import GroupVersionKind, ObjectKey, parse_api_version, uid_of
from dure.client.client import Client
from dure.control.controller import Controller, Result
from dure.control.informer import Informer
from dure.controllers.ownership import FOREGROUND, ORPHAN, Graph, Member, Owner, blocking, member_of
from dure.core.errors import Conflict, NotFound
from dure.core.json import Obj, thaw

_SKIPPED = {"events", "events.events.k8s.io", "componentstatuses"}
"""They own nothing, belong to nobody that matters, and change all the time."""
_GONE_REMEMBERED = 5000
_LOOK_AGAIN_SECONDS = 1.0


class GarbageCollector:
    """Keyed by uid (in the name part of the key)."""

    def __init__(self, client: Client, kinds: Kinds) -> None:
        self._client = client
        self._kinds = kinds
        self._graph = Graph()
        self._controller = Controller("garbage", self, workers=8)
        self._changed = asyncio.Event()
        self._informers: dict[str, Informer] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        """Uids seen to go, which never come back: nobody needs to ask the API for them."""

    def build(self) -> Controller:
        return self._controller

    def kinds_changed(self) -> None:
        """Custom kinds came or went."""
        self._changed.set()

    async def watch_everything(self) -> None:
        """One informer for each resource that can be deleted, following custom kinds as they come and go."""
        tasks: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                wanted = {kind.resource for kind in self._kinds if {"list", "watch", "delete"} <= kind.verbs}
                wanted -= _SKIPPED
                for resource in wanted - tasks.keys():
                    informer = self._informers[resource] = self._informer(resource)
                    tasks[resource] = group.create_task(informer.run())
                for resource in tasks.keys() - wanted:
                    tasks.pop(resource).cancel()
                    del self._informers[resource]
                    for member in self._graph.of_resource(resource):  # its kind is served no more
                        self._has_gone(member.uid)
                await self._changed.wait()

    def _informer(self, resource: str) -> Informer:
        informer = Informer(self._client, resource)
        informer.on_change(lambda old, new: self._seen(resource, old, new))
        return informer

    @property
    def _sees_everything(self) -> bool:
        return bool(self._informers) and all(informer.is_synced for informer in self._informers.values())

    def _seen(self, resource: str, old: Obj | None, new: Obj | None) -> None:
        if old is not None and (new is None or uid_of(new) != uid_of(old)):
            self._has_gone(uid_of(old))
        if new is None:
            return
        member = member_of(resource, new)
        before = self._graph.get(member.uid)
        if before == member:
            return
        self._graph.put(member)
        self._enqueue(member.uid)
        if member.deleting:
            for dependent in self._graph.dependents(member.uid):
                self._enqueue(dependent.uid)
        for owner in before.owners if before else ():  # one that waits for its dependents may wait no more
            if owner not in member.owners:
                self._enqueue(owner.uid)

    def _has_gone(self, uid: str) -> None:
        self._gone[uid] = None
        if len(self._gone) > _GONE_REMEMBERED:
            self._gone.popitem(last=False)
        member = self._graph.get(uid)
        dependents = self._graph.dependents(uid)
        self._graph.remove(uid)
        for item in dependents:
            self._enqueue(item.uid)
        for owner in member.owners if member else ():
            self._enqueue(owner.uid)

    def _enqueue(self, uid: str) -> None:
        self._controller.queue.add(ObjectKey("", uid))

    async def reconcile(self, key: ObjectKey) -> Result:
        member = self._graph.get(key.name)
        if member is None:
            return Result()
        if member.orphans_dependents or member.awaits_dependents:
            if not self._sees_everything:  # a dependent not yet seen would be forgotten
                return Result(requeue_after=_LOOK_AGAIN_SECONDS)
            await (self._orphan if member.orphans_dependents else self._delete_before)(member)
        elif member.owners and not member.deleting:
            await self._judge(member)
        return Result()

    async def _orphan(self, owner: Member) -> None:
        for dependent in self._graph.dependents(owner.uid):
            await self._drop_owners(dependent, {owner.uid})
        await self._drop_finalizer(owner, ORPHAN)

    async def _delete_before(self, owner: Member) -> None:
        dependents = self._graph.dependents(owner.uid)
        for dependent in dependents:
            if not dependent.deleting:
                await self._judge(dependent)
        if not blocking(dependents, owner.uid):
            await self._drop_finalizer(owner, FOREGROUND)

    async def _judge(self, member: Member) -> None:
        """Delete a member none of whose owners stands; else only drop the references that hold nothing."""
        solid: list[Owner] = []
        waiting: list[Owner] = []
        dangling: list[Owner] = []
        for owner in member.owners:
            known = self._graph.get(owner.uid)
            if known is not None and not known.is_named_by(owner, member.key):
                known = None
            if known is not None and known.awaits_dependents:
                waiting.append(owner)
            elif known is not None or await self._exists(member, owner):
                solid.append(owner)
            else:
                dangling.append(owner)
        if solid:
            if waiting or dangling:
                await self._drop_owners(member, {owner.uid for owner in (*waiting, *dangling)})
        elif waiting:
            await self._delete_in_turn(member)
        else:
            await self._delete(member, _own_policy(member))

    async def _delete_in_turn(self, member: Member) -> None:
        """An owner waits for this one, which lets its own dependents go first; in a ring somebody must not wait."""
        dependents = self._graph.dependents(member.uid)
        if any(item.awaits_dependents for item in dependents):
            await self._change(member, _without_blocking)
        await self._delete(member, "Foreground" if dependents else _own_policy(member))

    async def _exists(self, member: Member, owner: Owner) -> bool:
        if owner.uid in self._gone:
            return False
        kind = self._kind_of(owner)
        if kind is None:
            return True  # of a kind nobody serves (yet): never delete on its account
        namespace = member.key.namespace if kind.namespaced else ""
        if kind.namespaced and not namespace:
            return True  # a cluster-scoped object cannot have a namespaced owner; leave it alone
        try:
            found = await self._client.get(kind.resource, owner.name, namespace)
        except NotFound:
            return False
        return uid_of(found) == owner.uid

    def _kind_of(self, owner: Owner) -> Kind | None:
        group, version = parse_api_version(owner.api_version)
        exact = self._kinds.of(GroupVersionKind(group, version, owner.kind))
        if exact is not None:
            return exact
        return next((kind for kind in self._kinds if kind.group == group and kind.kind == owner.kind), None)

    async def _delete(self, member: Member, propagation: str) -> None:
        namespace, name = member.key
        try:
            await self._client.delete(member.resource, name, namespace, propagation=propagation, uid=member.uid)
        except (NotFound, Conflict):
            return  # gone, or another object under that name by now

    async def _drop_owners(self, member: Member, uids: set[str]) -> None:
        def without(obj: Obj) -> Obj:
            refs = [ref for ref in obj["metadata"].get("ownerReferences") or [] if ref["uid"] not in uids]
            obj["metadata"]["ownerReferences"] = refs
            return obj

        await self._change(member, without)

    async def _drop_finalizer(self, member: Member, finalizer: str) -> None:
        def without(obj: Obj) -> Obj:
            present: Sequence[str] = obj["metadata"].get("finalizers") or []
            obj["metadata"]["finalizers"] = [name for name in present if name != finalizer]
            return obj

        await self._change(member, without)

    async def _change(self, member: Member, change: Callable[[Obj], Obj]) -> None:
        namespace, name = member.key
        try:
            current = await self._client.get(member.resource, name, namespace)
            if uid_of(current) != member.uid:
                return
            changed = change(thaw(current))
            if changed != current:
                await self._client.update(changed)
        except NotFound:
            return  # gone meanwhile


def _own_policy(member: Member) -> str:
    """What an earlier request asked for, else Background."""
    if ORPHAN in member.finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in member.finalizers else "Background"


def _without_blocking(obj: Obj) -> Obj:
    for reference in obj["metadata"].get("ownerReferences") or []:
        reference["blockOwnerDeletion"] = False
    return obj
