"""Pods that nobody will ever finish or wants to see any more are deleted.

Follows upstream's pod garbage collector: pods of a node that has been absent for 40 seconds, and the oldest
finished pods beyond a number.
"""

from __future__ import annotations

from dure.api.meta import ObjectKey, key_of, uid_of
from dure.control.controller import Controller, Result
from dure.controllers.pods import is_finished, mark_disrupted
from dure.controllers.shared import Context, itself
from dure.core.errors import NotFound
from dure.core.json import Obj

_QUARANTINE_SECONDS = 40.0
_MOST_FINISHED = 12_500
_AT_ONCE = 100
_ALL = ObjectKey("", "finished pods")


class LostPodReconciler:
    """Keyed by Node: a node that is no more cannot stop its pods."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._client = context.client
        self._nodes = context.informers.of("nodes")
        self._pods = context.informers.of("pods")
        self._absent_since: dict[ObjectKey, float] = {}

    def build(self) -> Controller:
        controller = Controller("lost-pods", self)
        controller.watches(self._nodes, itself)
        controller.watches(self._pods, self._absent_node_of)
        return controller

    def _absent_node_of(self, pod: Obj) -> list[ObjectKey]:
        key = ObjectKey("", pod["spec"].get("nodeName") or "")
        return [key] if key.name and self._nodes.get(key) is None else []

    async def reconcile(self, key: ObjectKey) -> Result:
        pods = [pod for pod in self._pods.list() if pod["spec"].get("nodeName") == key.name]
        if self._nodes.get(key) is not None or not pods or await self._exists(key.name):
            self._absent_since.pop(key, None)
            return Result()
        now = self._context.clock.time()
        left = self._absent_since.setdefault(key, now) + _QUARANTINE_SECONDS - now
        if left > 0:
            return Result(requeue_after=left)
        for pod in pods:
            await self._remove(pod)
        return Result()

    async def _exists(self, node: str) -> bool:
        """The cache may lag behind: ask before anything is thrown away."""
        try:
            await self._client.get("nodes", node)
        except NotFound:
            return False
        return True

    async def _remove(self, pod: Obj) -> None:
        namespace, name = key_of(pod)
        why = "PodGC: node no longer exists"
        try:
            if not is_finished(pod):
                now = self._context.now()
                await mark_disrupted(self._client, pod, "DeletionByPodGC", why, now, phase="Failed")
            await self._client.delete("pods", name, namespace, grace_seconds=0, uid=uid_of(pod))
        except NotFound:
            return  # gone meanwhile


class FinishedPodReconciler:
    """One key for the whole cluster."""

    def __init__(self, context: Context, most: int = _MOST_FINISHED) -> None:
        self._client = context.client
        self._pods = context.informers.of("pods")
        self._most = most
        self._finished: dict[ObjectKey, str] = {}
        """When each finished pod was made."""

    def build(self) -> Controller:
        controller = Controller("finished-pods", self)
        controller.watches(self._pods, self._note)
        return controller

    def _note(self, pod: Obj) -> list[ObjectKey]:
        key = key_of(pod)
        there = self._pods.get(key)
        if there is None or not is_finished(there):
            self._finished.pop(key, None)
        else:
            self._finished[key] = there["metadata"]["creationTimestamp"]
        return [_ALL] if len(self._finished) > self._most else []

    async def reconcile(self, key: ObjectKey) -> Result:
        surplus = len(self._finished) - self._most
        if surplus <= 0:
            return Result()
        oldest = sorted(self._finished.items(), key=lambda item: item[1])[: min(surplus, _AT_ONCE)]
        for (namespace, name), _ in oldest:
            self._finished.pop(ObjectKey(namespace, name), None)
            try:
                await self._client.delete("pods", name, namespace, grace_seconds=0)
            except NotFound:
                continue  # gone meanwhile
        return Result(requeue_after=0.0 if surplus > len(oldest) else None)
