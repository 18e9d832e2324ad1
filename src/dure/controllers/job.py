"""Job: run pods until enough of them have succeeded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dure.api.meta import ObjectKey, condition, is_deleting, key_of, uid_of
from dure.client.client import Client
from dure.client.events import EventType
from dure.control.controller import Controller, Result
from dure.controllers.adoption import claim, wanted_by
from dure.controllers.expectations import Expectations
from dure.controllers.job_rules import (
    INDEX,
    TRACKING,
    Tally,
    ending,
    free_indexes,
    is_indexed,
    is_running,
    is_tracked,
    missing,
    seconds_to_deadline,
    seconds_to_retry,
    superfluous,
    tally,
)
from dure.controllers.job_status import has_ended, make_status
from dure.controllers.pods import pod_from_template
from dure.controllers.shared import Context, OwnWrites, its_controller, itself, namespace_is_ending, write_status
from dure.core.clock import parse_rfc3339
from dure.core.errors import ApiError, NotFound
from dure.core.json import Obj

_BURST = 500
"""At most this many pods are started in one go; the events of the first bring the key back."""

_EVENTS = {
    "CompletionsReached": ("Completed", "Job completed"),
    "JobSuspended": ("Suspended", "Job suspended"),
    "JobResumed": ("Resumed", "Job resumed"),
}
"""Reason and message of the event, by the condition's reason where they differ."""


class JobReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._client = context.client
        self._jobs = context.informers.of("jobs.batch")
        self._pods = context.informers.of("pods")
        self._expected = Expectations(self._pods, "Job", context.clock)
        self._written = OwnWrites()

    def build(self) -> Controller:
        controller = Controller("job", self, workers=5)
        controller.watches(self._jobs, itself)
        controller.watches(self._pods, its_controller("Job"))
        controller.watches(self._pods, wanted_by(self._jobs))
        return controller

    async def reconcile(self, key: ObjectKey) -> Result:
        job = self._jobs.get(key)
        if job is None:
            self._expected.forget(key)
            self._written.forget(key)
            return Result()
        if not self._written.are_shown_by(job):
            return Result()
        pods = await claim(self._client, self._pods, job, [TRACKING])
        if has_ended(job):
            await let_go(self._client, pods)
            return await self._expire(job)
        return await self._advance(key, job, pods)

    async def _advance(self, key: ObjectKey, job: Obj, pods: list[Obj]) -> Result:
        count, now = tally(job, pods), self._context.clock.time()
        end = None if is_deleting(job) else ending(job, pods, count, now)
        wait = self._expected.seconds_to_wait(key)
        failure: ApiError | None = None
        if end is not None:
            await self._stop(key, job, [pod for pod in pods if is_running(pod)], counted=end.type == "Failed")
        elif not wait and not is_deleting(job):
            wait, failure = await self._adjust(key, job, pods, count)
        status = make_status(job, pods, count, end, self._context.now())
        if status != (job.get("status") or {}):
            await self._write(job, status)
        await let_go(self._client, [pod for pod in pods if uid_of(pod) in count.settled])
        if failure is not None:
            raise failure
        waits = [seconds for seconds in (wait, seconds_to_deadline(job, now)) if seconds and seconds > 0]
        return Result(requeue_after=min(waits, default=None))

    async def _adjust(self, key: ObjectKey, job: Obj, pods: list[Obj], count: Tally) -> tuple[float, ApiError | None]:
        """Start or stop pods; how long to wait before trying again, and why creating failed."""
        number = missing(job, pods, count)
        if number < 0:
            await self._stop(key, job, superfluous(job, pods, -number), counted=False)
        wait = seconds_to_retry(pods, count, self._context.clock.time()) if number > 0 else 0.0
        if number <= 0 or wait > 0:
            return wait, None
        number = min(number, _BURST)
        indexes = free_indexes(job, pods, count, number) if is_indexed(job) else [None] * number
        results = await asyncio.gather(*(self._start(key, job, index) for index in indexes), return_exceptions=True)
        for result in results:
            if isinstance(result, ApiError):
                return 0.0, result
            if isinstance(result, BaseException):
                raise result
        return 0.0, None

    async def _start(self, key: ObjectKey, job: Obj, index: int | None) -> None:
        try:
            pod = await self._client.create(_pod_of(job, index))
        except ApiError as error:
            if namespace_is_ending(error):
                return
            await self._context.recorder.record(job, "Warning", "FailedCreate", f"Error creating: {error.message}")
            raise
        self._expected.expect_to_appear(key, pod)
        text = f"Created pod: {pod['metadata']['name']}"
        await self._context.recorder.record(job, "Normal", "SuccessfulCreate", text)

    async def _stop(self, key: ObjectKey, job: Obj, victims: Sequence[Obj], *, counted: bool) -> None:
        """Delete pods; those that are not to count as failures are let go of first."""
        if not counted:
            await let_go(self._client, victims)
        for pod in victims:
            namespace, name = key_of(pod)
            self._expected.expect_to_vanish(key, pod)
            try:
                await self._client.delete("pods", name, namespace, uid=uid_of(pod))
            except NotFound:
                continue  # the cache will show it
            except BaseException:
                self._expected.give_up(key, pod)
                raise
            await self._context.recorder.record(job, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")

    async def _write(self, job: Obj, status: Obj) -> None:
        written = await write_status(self._client, job, status)
        if written is None:
            return
        self._written.note(written)
        for type_ in ("Complete", "Failed", "Suspended"):
            before, now = condition(job, type_), condition(written, type_)
            if now is not None and now["status"] != (before or {}).get("status"):
                reason, message = _EVENTS.get(now["reason"], (now["reason"], now["message"]))
                kind: EventType = "Warning" if type_ == "Failed" else "Normal"
                await self._context.recorder.record(job, kind, reason, message)

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


def _pod_of(job: Obj, index: int | None) -> Obj:
    body = pod_from_template(job["spec"]["template"], job)
    meta = body["metadata"]
    meta.setdefault("finalizers", []).append(TRACKING)
    if index is not None:
        name = f"{job['metadata']['name']}-{index}"
        meta["generateName"] = f"{name}-"
        meta.setdefault("annotations", {})[INDEX] = str(index)
        meta.setdefault("labels", {})[INDEX] = str(index)
        body["spec"].setdefault("hostname", name)
        source = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
        for container in [*body["spec"]["containers"], *body["spec"].get("initContainers", [])]:
            container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "valueFrom": source})
    return body


async def let_go(client: Client, pods: Sequence[Obj]) -> None:
    """Take our finalizer off pods that are written into the counts, or count no more."""
    for pod in pods:
        if not is_tracked(pod):
            continue
        namespace, name = key_of(pod)
        patch = {"metadata": {"uid": uid_of(pod), "$deleteFromPrimitiveList/finalizers": [TRACKING]}}
        try:
            await client.patch("pods", name, namespace, patch, type="strategic")
        except NotFound:
            continue  # gone already
