"""ReplicaSet: keep as many pods of one template as asked."""

from __future__ import annotations

import asyncio
from typing import Any

from dure.api.meta import ObjectKey, controller_of, is_deleting, key_of, labels_of, uid_of, with_condition
from dure.control.controller import Controller, Result
from dure.controllers.adoption import claim, wanted_by
from dure.controllers.expectations import Expectations
from dure.controllers.pods import choose_for_deletion, is_active, is_ready, pod_from_template, seconds_to_available
from dure.controllers.shared import Context, its_controller, itself, namespace_is_ending, owned_by, write_status
from dure.core.errors import ApiError, NotFound
from dure.core.json import Obj

_BURST = 500
"""At most this many pods are created or deleted in one go; the events of the first bring the key back."""


class ReplicaSetReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._sets = context.informers.of("replicasets.apps")
        self._pods = context.informers.of("pods")
        self._expected = Expectations(self._pods, "ReplicaSet", context.clock)

    def build(self) -> Controller:
        controller = Controller("replicaset", self, workers=5)
        controller.watches(self._sets, itself)
        controller.watches(self._pods, its_controller("ReplicaSet"))
        controller.watches(self._pods, wanted_by(self._sets))
        return controller

    async def reconcile(self, key: ObjectKey) -> Result:
        owner = self._sets.get(key)
        if owner is None:
            self._expected.forget(key)
            return Result()
        pods = await claim(self._context.client, self._pods, owner)
        active = [pod for pod in pods if is_active(pod)]
        failure: ApiError | None = None
        wait = self._expected.seconds_to_wait(key)
        if not wait and not is_deleting(owner):
            failure = await self._scale(key, owner, active)
        await self._write_status(owner, active, failure)
        if failure is not None:
            raise failure
        return Result(requeue_after=min(filter(None, (wait, self._next_available(owner, active))), default=None))

    async def _scale(self, key: ObjectKey, owner: Obj, active: list[Obj]) -> ApiError | None:
        missing = int(owner["spec"].get("replicas", 1)) - len(active)
        if missing > 0:
            return await self._create(key, owner, min(missing, _BURST))
        if missing < 0:
            await self._delete(key, owner, choose_for_deletion(active, min(-missing, _BURST), self._company(owner)))
        return None

    def _company(self, owner: Obj) -> list[Obj]:
        """The active pods of all sets of the same deployment: where they crowd on a node, they are missed least."""
        parent = controller_of(owner)
        family = owned_by(self._sets, parent["uid"]) if parent else [owner]
        return [pod for item in family for pod in owned_by(self._pods, uid_of(item)) if is_active(pod)]

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
                    return None if namespace_is_ending(result) else result
                if isinstance(result, BaseException):
                    raise result
            count, batch = count - size, batch * 2
        return None

    async def _create_one(self, key: ObjectKey, owner: Obj, template: Obj) -> None:
        try:
            pod = await self._context.client.create(template)
        except ApiError as error:
            if not namespace_is_ending(error):
                text = f"Error creating: {error.message}"
                await self._context.recorder.record(owner, "Warning", "FailedCreate", text)
            raise
        self._expected.expect_to_appear(key, pod)
        text = f"Created pod: {pod['metadata']['name']}"
        await self._context.recorder.record(owner, "Normal", "SuccessfulCreate", text)

    async def _delete(self, key: ObjectKey, owner: Obj, victims: list[Obj]) -> None:
        for pod in victims:
            self._expected.expect_to_vanish(key, pod)
        await asyncio.gather(*(self._delete_one(key, owner, pod) for pod in victims))

    async def _delete_one(self, key: ObjectKey, owner: Obj, pod: Obj) -> None:
        namespace, name = key_of(pod)
        try:
            await self._context.client.delete("pods", name, namespace, uid=uid_of(pod))
        except NotFound:
            return  # the cache will show it
        except BaseException:
            self._expected.give_up(key, pod)
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
        if status != (owner.get("status") or {}):
            await write_status(self._context.client, owner, status)

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
        before = (owner.get("status") or {}).get("conditions") or []
        conditions = [entry for entry in before if entry["type"] != "ReplicaFailure"]
        if failure is not None and len(conditions) < len(before):
            conditions = before  # the first reason stays: another name in the message is no news, but would wake us
        elif failure is not None:
            entry = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failure.message}
            conditions = with_condition(before, entry, self._context.now())
        if conditions:
            status["conditions"] = conditions
        return status
