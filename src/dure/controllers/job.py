"""Job: run pods until enough of them have succeeded."""

from __future__ import annotations

import asyncio
from typing import Any

from dure.api.meta import ObjectKey, condition, is_deleting, key_of, uid_of, with_condition
from dure.api.selectors import LabelSelector, from_label_selector
from dure.control.controller import Controller, Result
from dure.controllers.adoption import claim
from dure.controllers.expectations import Expectations
from dure.controllers.job_rules import (
    INDEX,
    TRACKING,
    Ending,
    Tally,
    ending,
    free_indexes,
    has_ended,
    is_indexed,
    is_tracked,
    make_status,
    missing,
    seconds_to_deadline,
    seconds_to_retry,
    tally,
)
from dure.controllers.pods import pod_from_template
from dure.controllers.shared import Context, its_controller, itself
from dure.core.clock import parse_rfc3339
from dure.core.errors import ApiError, NotFound
from dure.core.ids import random_suffix
from dure.core.json import Obj, thaw


class JobReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._client = context.client
        self._jobs = context.informers.of("jobs.batch")
        self._pods = context.informers.of("pods")
        self._expected = Expectations()

    def build(self) -> Controller:
        controller = Controller("job", self, workers=5)
        controller.watches(self._jobs, itself)
        self._pods.on_change(self._pod_seen)
        controller.watches(self._pods, its_controller("Job"))
        return controller

    def _pod_seen(self, old: Obj | None, new: Obj | None) -> None:
        pod = new or old
        assert pod is not None
        for key in its_controller("Job")(pod):
            if new is None or is_deleting(new):
                self._expected.gone(key, uid_of(pod))
            else:
                self._expected.seen(key, uid_of(pod))

    async def reconcile(self, key: ObjectKey) -> Result:
        job = self._jobs.get(key)
        if job is None:
            self._expected.forget(key)
            await self._release_orphans(key)
            return Result()
        selector = from_label_selector(job["spec"].get("selector")) or LabelSelector()
        pods = await claim(self._client, self._pods, "pods", job, selector)
        if _finished(job):
            await self._untrack(pods)
            return await self._expire(job)
        count, now = tally(job, pods), self._context.clock.time()
        end = None if is_deleting(job) else ending(job, pods, count, now)
        failure: ApiError | None = None
        wait: float | None = None
        if end is not None:
            await self._delete(key, [pod for pod in pods if not has_ended(pod)])
        elif self._expected.settled(key, now) and not is_deleting(job):
            wait, failure = await self._adjust(key, job, pods, count)
        await self._write(job, pods, count, end)
        await self._untrack(
            [pod for pod in pods if uid_of(pod) in {*count.uncounted_succeeded, *count.uncounted_failed}]
        )
        if failure is not None:
            raise failure
        waits = [time for time in (wait, seconds_to_deadline(job, now)) if time is not None and time > 0]
        return Result(requeue_after=min(waits, default=None))

    async def _adjust(
        self, key: ObjectKey, job: Obj, pods: list[Obj], count: Tally
    ) -> tuple[float | None, ApiError | None]:
        """Start or stop pods; how long to wait before trying again, and why creating failed."""
        running = [pod for pod in pods if not has_ended(pod)]
        number = missing(job, running, count)
        if number < 0:
            await self._delete(key, running[number:])
            return None, None
        if number == 0:
            return None, None
        wait = seconds_to_retry(pods, count, self._context.clock.time())
        if wait > 0:
            return wait, None
        indexes = free_indexes(job, running, count, number) if is_indexed(job) else [None] * number
        results = await asyncio.gather(*(self._create(key, job, index) for index in indexes), return_exceptions=True)
        for result in results:
            if isinstance(result, ApiError):
                return None, result
            if isinstance(result, BaseException):
                raise result
        return None, None

    async def _create(self, key: ObjectKey, job: Obj, index: int | None) -> None:
        body = pod_from_template(job["spec"]["template"], job)
        meta = body["metadata"]
        meta.setdefault("finalizers", []).append(TRACKING)
        if index is not None:
            meta.setdefault("annotations", {})[INDEX] = str(index)
            meta.setdefault("labels", {})[INDEX] = str(index)
            meta["name"] = f"{key.name}-{index}-{random_suffix()}"
            meta.pop("generateName", None)
            body["spec"].setdefault("hostname", f"{key.name}-{index}")
            source = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
            for container in [*body["spec"]["containers"], *body["spec"].get("initContainers", [])]:
                container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "valueFrom": source})
        pod = await self._client.create(body)
        if self._pods.get(key_of(pod)) is None:
            self._expected.expect_to_appear(key, uid_of(pod), self._context.clock.time())
        await self._context.recorder.record(
            job, "Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}"
        )

    async def _delete(self, key: ObjectKey, victims: list[Obj]) -> None:
        for pod in victims:
            namespace, name = key_of(pod)
            try:
                await self._client.delete("pods", name, namespace, uid=uid_of(pod))
            except NotFound:
                continue  # gone already
            await self._untrack([pod])

    async def _untrack(self, pods: list[Obj]) -> None:
        """Let go of pods that are written into the counts or count no more."""
        for pod in pods:
            if not is_tracked(pod):
                continue
            finalizers = [name for name in pod["metadata"]["finalizers"] if name != TRACKING]
            namespace, name = key_of(pod)
            patch = {"metadata": {"uid": uid_of(pod), "finalizers": finalizers or None}}
            try:
                await self._client.patch("pods", name, namespace, patch)
            except NotFound:
                continue  # gone already

    async def _release_orphans(self, key: ObjectKey) -> None:
        """The job was deleted: its pods must not be held back by our finalizer."""
        left = [pod for pod in self._pods.list(key.namespace) if key in its_controller("Job")(pod)]
        await self._untrack(left)

    async def _write(self, job: Obj, pods: list[Obj], count: Tally, end: Ending | None) -> None:
        now = self._context.now()
        status = make_status(job, pods, count, now)
        self._suspend_condition(job, status, now)
        running = any(not has_ended(pod) for pod in pods)
        if end is not None:
            self._end_conditions(status, end, now, settled=not running and not status["uncountedTerminatedPods"])
        if status == (job.get("status") or {}):
            return
        changed = thaw(job)
        changed["status"] = status
        await self._client.update(changed, subresource="status")
        if end is not None and _finished(changed):
            done = end.type == "Complete"
            text = "Job completed" if done else end.message
            await self._context.recorder.record(
                job, "Normal" if done else "Warning", "Completed" if done else end.reason, text
            )

    @staticmethod
    def _suspend_condition(job: Obj, status: dict[str, Any], now: str) -> None:
        suspended = bool(job["spec"].get("suspend"))
        before = condition(job, "Suspended")
        if suspended == bool(before and before["status"] == "True"):
            return
        entry = {
            "type": "Suspended",
            "status": "True" if suspended else "False",
            "reason": "JobSuspended" if suspended else "JobResumed",
            "message": "Job suspended" if suspended else "Job resumed",
            "lastProbeTime": now,
        }
        status["conditions"] = with_condition(status.get("conditions") or [], entry, now)
        if suspended:
            status.pop("startTime", None)
        else:
            status["startTime"] = now

    @staticmethod
    def _end_conditions(status: dict[str, Any], end: Ending, now: str, *, settled: bool) -> None:
        """First that it is decided, then, when no pod is left, that it is so."""
        decided = "SuccessCriteriaMet" if end.type == "Complete" else "FailureTarget"
        for type_ in (decided, end.type) if settled else (decided,):
            entry = {
                "type": type_,
                "status": "True",
                "reason": end.reason,
                "message": end.message,
                "lastProbeTime": now,
            }
            present = status.get("conditions") or []
            if not any(item["type"] == type_ for item in present):
                status["conditions"] = with_condition(present, entry, now)
        if settled and end.type == "Complete":
            status["completionTime"] = now

    async def _expire(self, job: Obj) -> Result:
        """`ttlSecondsAfterFinished`."""
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None or is_deleting(job):
            return Result()
        ended = condition(job, "Complete") or condition(job, "Failed") or {}
        left = parse_rfc3339(ended["lastTransitionTime"]) + float(ttl) - self._context.clock.time()
        if left > 0:
            return Result(requeue_after=left)
        namespace, name = key_of(job)
        try:
            await self._client.delete("jobs.batch", name, namespace, propagation="Foreground", uid=uid_of(job))
        except NotFound:
            return Result()
        return Result()


def _finished(job: Obj) -> bool:
    return any((found := condition(job, type_)) and found["status"] == "True" for type_ in ("Complete", "Failed"))
