"""ReplicaSet: keep as many pods of one template as asked."""

from __future__ import annotations

import asyncio
from typing import Any

from dure.api.meta import ObjectKey, controller_of, is_deleting, key_of, labels_of, namespace_of, uid_of, with_condition
from dure.api.selectors import LabelSelector, from_label_selector
from dure.control.controller import Controller, Result
from dure.controllers.adoption import claim
from dure.controllers.expectations import Expectations
from dure.controllers.pods import choose_for_deletion, is_active, is_ready, pod_from_template, seconds_to_available
from dure.controllers.shared import Context, its_controller, itself
from dure.core.errors import ApiError, NotFound
from dure.core.json import Obj, thaw

_BURST = 500
"""At most this many pods are created or deleted in one go."""


class ReplicaSetReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._sets = context.informers.of("replicasets.apps")
        self._pods = context.informers.of("pods")
        self._expected = Expectations()

    def build(self) -> Controller:
        controller = Controller("replicaset", self, workers=5)
        controller.watches(self._sets, itself)
        self._pods.on_change(self._pod_seen)
        controller.watches(self._pods, its_controller("ReplicaSet"))
        controller.watches(self._pods, self._sets_wanting)
        return controller

    def _sets_wanting(self, pod: Obj) -> list[ObjectKey]:
        """Sets that may adopt an orphan."""
        if controller_of(pod) is not None:
            return []
        matching = []
        for candidate in self._sets.list(namespace_of(pod)):
            selector = from_label_selector(candidate["spec"].get("selector"))
            if selector and selector.matches(labels_of(pod)):
                matching.append(key_of(candidate))
        return matching

    def _pod_seen(self, old: Obj | None, new: Obj | None) -> None:
        pod = new or old
        assert pod is not None
        for key in its_controller("ReplicaSet")(pod):
            if new is None or is_deleting(new):
                self._expected.gone(key, uid_of(pod))
            else:
                self._expected.seen(key, uid_of(pod))

    async def reconcile(self, key: ObjectKey) -> Result:
        owner = self._sets.get(key)
        if owner is None:
            self._expected.forget(key)
            return Result()
        selector = from_label_selector(owner["spec"].get("selector")) or LabelSelector()
        pods = await claim(self._context.client, self._pods, "pods", owner, selector)
        active = [pod for pod in pods if is_active(pod)]
        failure: ApiError | None = None
        now = self._context.clock.time()
        if self._expected.settled(key, now) and not is_deleting(owner):
            failure = await self._scale(key, owner, active)
        await self._write_status(owner, active, failure)
        if failure is not None:
            raise failure
        return Result(requeue_after=self._next_available(owner, active))

    async def _scale(self, key: ObjectKey, owner: Obj, active: list[Obj]) -> ApiError | None:
        wanted = int(owner["spec"].get("replicas", 1))
        missing = wanted - len(active)
        if missing > 0:
            return await self._create(key, owner, min(missing, _BURST))
        if missing < 0:
            await self._delete(key, owner, choose_for_deletion(active, min(-missing, _BURST)))
        return None

    async def _create(self, key: ObjectKey, owner: Obj, count: int) -> ApiError | None:
        """In batches that double, so that a refusal costs one request and not hundreds."""
        template, batch = pod_from_template(owner["spec"]["template"], owner), 1
        while count:
            size = min(batch, count)
            results = await asyncio.gather(
                *(self._create_one(key, owner, template) for _ in range(size)), return_exceptions=True
            )
            for result in results:
                if isinstance(result, ApiError):
                    return result
                if isinstance(result, BaseException):
                    raise result
            count, batch = count - size, batch * 2
        return None

    async def _create_one(self, key: ObjectKey, owner: Obj, template: Obj) -> None:
        try:
            pod = await self._context.client.create(template)
        except ApiError as error:
            causes = error.details.get("causes") or []
            if not any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
                await self._context.recorder.record(
                    owner, "Warning", "FailedCreate", f"Error creating: {error.message}"
                )
            raise
        if self._pods.get(key_of(pod)) is None:
            self._expected.expect_to_appear(key, uid_of(pod), self._context.clock.time())
        await self._context.recorder.record(
            owner, "Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}"
        )

    async def _delete(self, key: ObjectKey, owner: Obj, victims: list[Obj]) -> None:
        for pod in victims:
            self._expected.expect_to_vanish(key, uid_of(pod), self._context.clock.time())
        await asyncio.gather(*(self._delete_one(key, owner, pod) for pod in victims))

    async def _delete_one(self, key: ObjectKey, owner: Obj, pod: Obj) -> None:
        namespace, name = key_of(pod)
        try:
            await self._context.client.delete("pods", name, namespace, uid=uid_of(pod))
        except NotFound:
            self._expected.gone(key, uid_of(pod))
            return
        except BaseException:
            self._expected.gone(key, uid_of(pod))
            raise
        await self._context.recorder.record(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")

    def _next_available(self, owner: Obj, active: list[Obj]) -> float | None:
        min_ready = int(owner["spec"].get("minReadySeconds") or 0)
        if not min_ready:
            return None
        now = self._context.clock.time()
        waits = [seconds_to_available(pod, min_ready, now) for pod in active]
        return min((wait for wait in waits if wait), default=None)

    async def _write_status(self, owner: Obj, active: list[Obj], failure: ApiError | None) -> None:
        status = self._status(owner, active, failure)
        if status == (owner.get("status") or {}):
            return
        changed = thaw(owner)
        changed["status"] = status
        await self._context.client.update(changed, subresource="status")

    def _status(self, owner: Obj, active: list[Obj], failure: ApiError | None) -> dict[str, Any]:
        labels = (owner["spec"].get("template") or {}).get("metadata", {}).get("labels") or {}
        min_ready, now = int(owner["spec"].get("minReadySeconds") or 0), self._context.clock.time()
        counts = {
            "fullyLabeledReplicas": sum(labels.items() <= labels_of(pod).items() for pod in active),
            "readyReplicas": sum(is_ready(pod) for pod in active),
            "availableReplicas": sum(seconds_to_available(pod, min_ready, now) == 0 for pod in active),
        }
        status: dict[str, Any] = {
            "replicas": len(active),
            **{name: count for name, count in counts.items() if count},
            "observedGeneration": owner["metadata"].get("generation", 0),
        }
        conditions = [c for c in (owner.get("status") or {}).get("conditions") or [] if c["type"] != "ReplicaFailure"]
        if failure is not None:
            entry = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failure.message}
            before = (owner.get("status") or {}).get("conditions") or []
            conditions = with_condition(before, entry, self._context.now())
        if conditions:
            status["conditions"] = conditions
        return status
