"""What every reconciler is given: a client, informers shared by resource, a recorder, a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dure.api.meta import ObjectKey, controller_of, key_of, namespace_of, uid_of
from dure.client.client import Client
from dure.client.events import EventRecorder
from dure.control.informer import Informer
from dure.core.clock import Clock, rfc3339
from dure.core.json import Obj

BY_CONTROLLER = "controller"
"""Index of every informer: the uid of the controlling owner."""


def _controller_uid(obj: Obj) -> Iterable[str]:
    owner = controller_of(obj)
    return (owner["uid"],) if owner else ()


class Informers:
    """One informer a resource, made when first asked for, all run together."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._made: dict[str, Informer] = {}

    def of(self, resource: str) -> Informer:
        """Call while building, before `run`."""
        if resource not in self._made:
            self._made[resource] = Informer(self._client, resource, indexes={BY_CONTROLLER: _controller_uid})
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


def owned_by(informer: Informer, owner: Obj) -> list[Obj]:
    return informer.by_index(BY_CONTROLLER, uid_of(owner))
