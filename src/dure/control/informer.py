"""A read-only copy of one resource that follows the server: list, then watch, and list anew when that breaks.

Objects are frozen and shared. Callbacks run in the order of events, also for what changed while the watch was down:
a listener that compares `old` and `new` misses no difference, though it may miss what came and went in between.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping

from dure.api.meta import ObjectKey, key_of, uid_of
from dure.client.client import Client, WatchEvent
from dure.core.errors import ApiError, Expired, TransportError
from dure.core.json import Obj

log = logging.getLogger(__name__)

Listener = Callable[[Obj | None, Obj | None], object]
"""Called with (None, new), (old, new) or (old, None); must not wait."""

Objects = list[Obj]

_FIRST_SECONDS = 0.2
_LOST_SECONDS = 5.0
"""The longest wait for a server that does not answer; it is usually just being restarted."""
_REFUSED_SECONDS = 30.0
"""The longest wait after a server has said no."""
_SHORT_WATCH_SECONDS = 1.0


class Informer:
    """`run()` keeps it true; reading is allowed at any time, complete once `wait_synced()` has returned.

    `indexes` give for an object the values it is to be found under.
    """

    def __init__(
        self,
        client: Client,
        resource: str,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        indexes: Mapping[str, Callable[[Obj], Iterable[str]]] | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._labels = labels
        self._fields = fields
        self._cache = _Cache(indexes or {})
        self._listeners: list[Listener] = []
        self._synced = asyncio.Event()
        self._revision = ""
        self._failures = 0

    @property
    def resource(self) -> str:
        return self._resource

    @property
    def is_synced(self) -> bool:
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Until the first list has arrived."""
        await self._synced.wait()

    def get(self, key: ObjectKey) -> Obj | None:
        return self._cache.objects.get(key)

    def list(self, namespace: str = "") -> Objects:
        """All objects, of one namespace when given, in no particular order."""
        return self._cache.in_namespace(namespace) if namespace else [*self._cache.objects.values()]

    def by_index(self, name: str, value: str) -> Objects:
        """Objects whose index function `name` gave `value`. Raises KeyError for an index never asked for."""
        return self._cache.by_index(name, value)

    def on_change(self, listener: Listener) -> None:
        """Call `listener` for every change from now on, and at once for each object already known."""
        self._listeners.append(listener)
        for obj in self.list():
            self._tell(listener, None, obj)

    async def run(self) -> None:
        """Follow the server until cancelled; outlives its failures."""
        while True:
            try:
                if not self._revision:
                    await self._relist()
                await self._follow()
            except Expired:
                log.info("watch expired, listing anew", extra={"resource": self._resource})
                await self._wait_before_retry(relist=True)
            except TransportError as error:
                log.info("lost the server", extra={"resource": self._resource, "error": error})
                await self._wait_before_retry(relist=False)
            except ApiError as error:
                log.warning("cannot follow resource", extra={"resource": self._resource, "error": error})
                await self._wait_before_retry(relist=True)

    async def _relist(self) -> None:
        page = await self._client.list(self._resource, self._namespace, labels=self._labels, fields=self._fields)
        for old, new in self._cache.replace(page.items):
            self._announce(old, new)
        self._revision = page.revision
        self._synced.set()

    async def _follow(self) -> None:
        """One watch, from its beginning to its end."""
        loop = asyncio.get_running_loop()
        began, seen = loop.time(), self._revision
        try:
            async with self._client.watch(
                self._resource, self._namespace, since=seen, labels=self._labels, fields=self._fields
            ) as events:
                async for event in events:
                    self._take(event)
        finally:
            if seen != self._revision or loop.time() - began > _REFUSED_SECONDS:
                self._failures = 0
        if seen == self._revision and loop.time() - began < _SHORT_WATCH_SECONDS:
            raise TransportError("the watch ended at once without an event")

    def _take(self, event: WatchEvent) -> None:
        obj = event.object
        if event.type == "DELETED":
            old = self._cache.remove(key_of(obj))
            if old is not None:
                self._announce(old, None)
        elif event.type != "BOOKMARK":
            for before, after in self._cache.put(obj):
                self._announce(before, after)
        self._revision = obj["metadata"]["resourceVersion"]

    async def _wait_before_retry(self, *, relist: bool) -> None:
        """The first retry comes soon; many informers that failed together do not come back together."""
        if relist:
            self._revision = ""
        longest = min(_REFUSED_SECONDS if relist else _LOST_SECONDS, _FIRST_SECONDS * 2**self._failures)
        self._failures = min(self._failures + 1, 20)
        await asyncio.sleep(longest * random.uniform(0.5, 1))

    def _announce(self, old: Obj | None, new: Obj | None) -> None:
        for listener in self._listeners:
            self._tell(listener, old, new)

    def _tell(self, listener: Listener, old: Obj | None, new: Obj | None) -> None:
        try:
            listener(old, new)
        except Exception:  # a listener's bug must not stop the others from hearing
            log.exception("informer listener failed", extra={"resource": self._resource})


Change = tuple[Obj | None, Obj | None]


class _Cache:
    """Objects by key, by namespace and by every index."""

    def __init__(self, indexes: Mapping[str, Callable[[Obj], Iterable[str]]]) -> None:
        self.objects: dict[ObjectKey, Obj] = {}
        self._namespaces: dict[str, dict[ObjectKey, Obj]] = {}
        self._functions = dict(indexes)
        self._indexes: dict[str, dict[str, dict[ObjectKey, Obj]]] = {name: {} for name in indexes}

    def in_namespace(self, namespace: str) -> list[Obj]:
        return [*self._namespaces.get(namespace, {}).values()]

    def by_index(self, name: str, value: str) -> list[Obj]:
        return [*self._indexes[name].get(value, {}).values()]

    def put(self, obj: Obj) -> list[Change]:
        """Take in one object; what changed by it. A name reused by another object is a deletion and a creation."""
        key = key_of(obj)
        old = self.objects.get(key)
        if old is not None:
            if old["metadata"].get("resourceVersion") == obj["metadata"].get("resourceVersion"):
                return []
            self._unlink(key, old)
        self._link(key, obj)
        if old is not None and uid_of(old) != uid_of(obj):
            return [(old, None), (None, obj)]
        return [(old, obj)]

    def remove(self, key: ObjectKey) -> Obj | None:
        old = self.objects.get(key)
        if old is not None:
            self._unlink(key, old)
        return old

    def replace(self, objects: Iterable[Obj]) -> Iterable[Change]:
        """Become exactly `objects`; what changed, deletions first."""
        fresh = {key_of(obj): obj for obj in objects}
        for key in [key for key in self.objects if key not in fresh]:
            yield self.remove(key), None
        for obj in fresh.values():
            yield from self.put(obj)

    def _link(self, key: ObjectKey, obj: Obj) -> None:
        self.objects[key] = obj
        self._namespaces.setdefault(key.namespace, {})[key] = obj
        for name, function in self._functions.items():
            for value in function(obj):
                self._indexes[name].setdefault(value, {})[key] = obj

    def _unlink(self, key: ObjectKey, obj: Obj) -> None:
        del self.objects[key]
        _discard(self._namespaces, key.namespace, key)
        for name, function in self._functions.items():
            for value in function(obj):
                _discard(self._indexes[name], value, key)


def _discard(index: dict[str, dict[ObjectKey, Obj]], value: str, key: ObjectKey) -> None:
    found = index.get(value)
    if found is not None:
        found.pop(key, None)
        if not found:
            del index[value]
