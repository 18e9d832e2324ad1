"""What every reconciler is given: a client, informers shared by resource, a recorder, a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dure.api.meta import ObjectKey, controller_of, key_of, namespace_of, uid_of
from dure.client.client import Client
from dure.client.events import EventRecorder
from dure.control.informer import Informer
from dure.core.clock import Clock, rfc3339
from dure.core.errors import ApiError, NotFound
from dure.core.json import Obj, thaw

_BY_CONTROLLER = "controller"
"""Index of every informer: the uid of the controlling owner; those without one by their namespace."""


def _controller_uid(obj: Obj) -> Iterable[str]:
    owner = controller_of(obj)
    return (owner["uid"] if owner else _orphans_of(namespace_of(obj)),)


def _orphans_of(namespace: str) -> str:
    return f"none in {namespace}"


class Informers:
    """One informer a resource, made when first asked for, all run together."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._made: dict[str, Informer] = {}

    def of(self, resource: str) -> Informer:
        """Call while building, before `run`."""
        if resource not in self._made:
            self._made[resource] = Informer(self._client, resource, indexes={_BY_CONTROLLER: _controller_uid})
        return self._made[resource]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for informer in self._made.values():
                group.create_task(informer.run())

    async def wait_synced(self) -> None:
        for informer in self._made.values():
            await informer.wait_synced()


@dataclass(frozen=True, slots=True)
class Context:
    """Handed to every reconciler."""

    client: Client
    informers: Informers
    recorder: EventRecorder
    clock: Clock

    def now(self) -> str:
        """`meta/v1.Time`."""
        return rfc3339(self.clock.time())


def itself(obj: Obj) -> list[ObjectKey]:
    """For `watches`: the object's own key."""
    return [key_of(obj)]


def its_controller(kind: str) -> Callable[[Obj], list[ObjectKey]]:
    """For `watches`: the key of the controlling owner, if it is of that kind."""

    def keys(obj: Obj) -> list[ObjectKey]:
        owner = controller_of(obj)
        return [ObjectKey(namespace_of(obj), owner["name"])] if owner and owner["kind"] == kind else []

    return keys


def owned_by(informer: Informer, uid: str) -> list[Obj]:
    """The objects that owner controls."""
    return informer.by_index(_BY_CONTROLLER, uid)


def orphans_in(informer: Informer, namespace: str) -> list[Obj]:
    """The objects of a namespace that nobody controls."""
    return informer.by_index(_BY_CONTROLLER, _orphans_of(namespace))


class OwnWrites:
    """Reading one's own writes: whether the cache already shows what this reconciler last wrote.

    A decision made on older counts would be made twice. Revisions are numbers that only grow.
    """

    def __init__(self) -> None:
        self._written: dict[ObjectKey, tuple[str, int]] = {}

    def note(self, obj: Obj) -> Obj:
        self._written[key_of(obj)] = (uid_of(obj), _revision(obj))
        return obj

    def are_shown_by(self, obj: Obj) -> bool:
        """When not, the event that is on its way brings the key back."""
        uid, revision = self._written.get(key_of(obj), ("", 0))
        return uid != uid_of(obj) or revision <= _revision(obj)

    def forget(self, key: ObjectKey) -> None:
        self._written.pop(key, None)


def _revision(obj: Obj) -> int:
    return int(obj["metadata"]["resourceVersion"])


async def write_status(client: Client, obj: Obj, status: dict[str, Any]) -> Obj | None:
    """Replace the status of `obj` as it was read; Conflict when it has changed since, None when it has gone."""
    changed: Obj = thaw(obj)
    changed["status"] = status
    try:
        return await client.update(changed, subresource="status")
    except NotFound:
        return None


def namespace_is_ending(error: ApiError) -> bool:
    """Whether a creation was refused because everything there is about to go: no failure, and no use trying again."""
    return any(cause.get("reason") == "NamespaceTerminating" for cause in error.details.get("causes") or [])
