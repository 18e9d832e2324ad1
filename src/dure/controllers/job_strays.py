"""Pods that a Job tracked: our finalizer must not hold them when that job is no more."""

from __future__ import annotations

from dure.api.meta import ObjectKey, controller_of, key_of, namespace_of, uid_of
from dure.control.controller import Controller, Result
from dure.controllers.job import let_go
from dure.controllers.job_rules import is_tracked
from dure.controllers.shared import Context, owned_by
from dure.core.errors import NotFound
from dure.core.json import Obj


class StrayPodReconciler:
    """Keyed by Pod."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._jobs = context.informers.of("jobs.batch")
        self._pods = context.informers.of("pods")

    def build(self) -> Controller:
        controller = Controller("job-strays", self, workers=2)
        controller.watches(self._pods, lambda pod: [key_of(pod)] if self._is_stray(pod) else [])
        controller.watches(self._jobs, self._left_behind)
        return controller

    def _left_behind(self, job: Obj) -> list[ObjectKey]:
        """The pods of a job that has gone."""
        there = self._jobs.get(key_of(job))
        if there is not None and uid_of(there) == uid_of(job):
            return []
        return [key_of(pod) for pod in owned_by(self._pods, uid_of(job))]

    def _is_stray(self, pod: Obj) -> bool:
        owner = controller_of(pod)
        job = self._jobs.get(ObjectKey(namespace_of(pod), owner["name"])) if owner else None
        return is_tracked(pod) and (owner is None or job is None or uid_of(job) != owner["uid"])

    async def reconcile(self, key: ObjectKey) -> Result:
        pod = self._pods.get(key)
        if pod is not None and self._is_stray(pod) and not await self._has_job(pod):
            await let_go(self._client, [pod])
        return Result()

    async def _has_job(self, pod: Obj) -> bool:
        """The cache may be behind."""
        owner = controller_of(pod)
        if owner is None:
            return False
        try:
            job = await self._client.get("jobs.batch", owner["name"], namespace_of(pod))
        except NotFound:
            return False
        return uid_of(job) == str(owner["uid"])
