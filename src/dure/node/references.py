"""Config maps, secrets and claims that pods refer to: one watch an object, shared, dropped with its last user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from dure.api.meta import ObjectKey
from dure.client.client import Client
from dure.control.informer import Informer
from dure.core.json import Obj


class Reference(NamedTuple):
    resource: str
    namespace: str
    name: str


@dataclass(slots=True, eq=False)
class _Watched:
    informer: Informer
    task: asyncio.Task[None]
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def tell(self) -> None:
        for listener in list(self.listeners):
            listener()


class ObjectCache:
    """Shared by everything on a machine that reads referenced objects; `run()` must be under way to use it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._watched: dict[Reference, _Watched] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None
                for watched in self._watched.values():
                    watched.task.cancel()
                self._watched.clear()

    def references(self, on_change: Callable[[], None]) -> References:
        """A set of references that belong together; `on_change` is called when any of their objects changes."""
        return References(self, on_change)

    def acquire(self, reference: Reference, listener: Callable[[], None]) -> Informer:
        watched = self._watched.get(reference)
        if watched is None:
            watched = self._watch(reference)
            self._watched[reference] = watched
        watched.listeners.append(listener)
        return watched.informer

    def release(self, reference: Reference, listener: Callable[[], None]) -> None:
        watched = self._watched.get(reference)
        if watched is None:
            return
        watched.listeners.remove(listener)
        if not watched.listeners:
            del self._watched[reference]
            watched.task.cancel()

    def _watch(self, reference: Reference) -> _Watched:
        if self._tasks is None:
            raise RuntimeError("the object cache is not running")
        informer = Informer(
            self._client,
            reference.resource,
            namespace=reference.namespace,
            fields=f"metadata.name={reference.name}",
        )
        watched = _Watched(informer, self._tasks.create_task(informer.run()))
        informer.on_change(lambda old, new: watched.tell())
        return watched


class References:
    """What one pod refers to. `close()` lets all of it go."""

    def __init__(self, cache: ObjectCache, on_change: Callable[[], None]) -> None:
        self._cache = cache
        self._on_change = on_change
        self._held: dict[Reference, Informer] = {}

    async def get(self, resource: str, namespace: str, name: str) -> Obj | None:
        """The object as last seen, None when there is none; watched from now on. Frozen."""
        reference = Reference(resource, namespace, name)
        informer = self._held.get(reference)
        if informer is None:
            informer = self._cache.acquire(reference, self._on_change)
            self._held[reference] = informer
        await informer.wait_synced()
        return informer.get(ObjectKey(namespace, name))

    def close(self) -> None:
        for reference in self._held:
            self._cache.release(reference, self._on_change)
        self._held.clear()
