"""What a Job's pods mean for it: how many more to start, whether it has ended, and how: pure.

Counting follows Kubernetes' finalizer-based tracking, so that a finished pod counts once even when it is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dure.api.meta import annotations_of, is_deleting, uid_of
from dure.controllers.pods import is_finished, is_ready, phase_of, restarts_of
from dure.core.clock import parse_rfc3339
from dure.core.json import Obj

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
_FIRST_DELAY, _LONGEST_DELAY = 10.0, 600.0


@dataclass(slots=True)
class Tally:
    """Counts with the pods that are not yet written into them."""

    succeeded: int = 0
    failed: int = 0
    uncounted_succeeded: list[str] = field(default_factory=list)
    uncounted_failed: list[str] = field(default_factory=list)
    completed: set[int] = field(default_factory=set)
    """Indexes that are done, for an Indexed job."""

    @property
    def successes(self) -> int:
        return self.succeeded + len(self.uncounted_succeeded)

    @property
    def failures(self) -> int:
        return self.failed + len(self.uncounted_failed)


def is_tracked(pod: Obj) -> bool:
    return TRACKING in (pod["metadata"].get("finalizers") or [])


def has_ended(pod: Obj) -> bool:
    """Finished, or deleted before it could."""
    return is_finished(pod) or is_deleting(pod)


def index_of(pod: Obj) -> int | None:
    text = annotations_of(pod).get(INDEX)
    return int(text) if text and text.isdigit() else None


def is_indexed(job: Obj) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def tally(job: Obj, pods: Sequence[Obj]) -> Tally:
    """From the last status and what the pods say now."""
    status = job.get("status") or {}
    waiting = status.get("uncountedTerminatedPods") or {}
    tracked = {uid_of(pod) for pod in pods if is_tracked(pod)}
    result = Tally(int(status.get("succeeded") or 0), int(status.get("failed") or 0))
    result.completed = parse_indexes(status.get("completedIndexes") or "")
    for uid in waiting.get("succeeded") or []:
        if uid in tracked:
            result.uncounted_succeeded.append(uid)
        else:
            result.succeeded += 1
    for uid in waiting.get("failed") or []:
        if uid in tracked:
            result.uncounted_failed.append(uid)
        else:
            result.failed += 1
    known = {*result.uncounted_succeeded, *result.uncounted_failed}
    for pod in pods:
        if uid_of(pod) in known or not is_tracked(pod):
            continue
        if phase_of(pod) == "Succeeded":
            _count_success(job, pod, result)
        elif phase_of(pod) == "Failed":
            result.uncounted_failed.append(uid_of(pod))
    return result


def _count_success(job: Obj, pod: Obj, result: Tally) -> None:
    if is_indexed(job):
        index = index_of(pod)
        if index is None or index in result.completed:
            return
        result.completed.add(index)
    result.uncounted_succeeded.append(uid_of(pod))


def parse_indexes(text: str) -> set[int]:
    """`1,3-5` → {1, 3, 4, 5}."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def format_indexes(indexes: Iterable[int]) -> str:
    """{1, 3, 4, 5} → `1,3-5`."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


@dataclass(frozen=True, slots=True)
class Ending:
    """How the job ended: `type` is Complete or Failed."""

    type: str
    reason: str
    message: str


def ending(job: Obj, pods: Sequence[Obj], count: Tally, now: float) -> Ending | None:
    """None while it goes on."""
    spec = job["spec"]
    limit = int(spec.get("backoffLimit", 6))
    running = [pod for pod in pods if not has_ended(pod)]
    on_failure = spec["template"]["spec"].get("restartPolicy") == "OnFailure"
    restarts = sum(restarts_of(pod) for pod in running) if on_failure else 0
    if count.failures + restarts > limit:
        return Ending("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    deadline = seconds_to_deadline(job, now)
    if deadline is not None and deadline <= 0:
        return Ending("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    if is_complete(job, running, count):
        return Ending("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def is_complete(job: Obj, running: Sequence[Obj], count: Tally) -> bool:
    completions = job["spec"].get("completions")
    if completions is None:
        return count.successes > 0 and not running
    return count.successes >= int(completions)


def seconds_to_deadline(job: Obj, now: float) -> float | None:
    limit, started = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
    if limit is None or not started or job["spec"].get("suspend"):
        return None
    return parse_rfc3339(started) + float(limit) - now


def missing(job: Obj, running: Sequence[Obj], count: Tally) -> int:
    """How many pods to start now; negative when there are too many."""
    if job["spec"].get("suspend"):
        return -len(running)
    parallelism = int(job["spec"].get("parallelism", 1))
    completions = job["spec"].get("completions")
    if completions is None:
        if count.successes:
            return 0
        wanted = parallelism
    else:
        wanted = min(parallelism, int(completions) - count.successes)
    return max(0, wanted) - len(running)


def free_indexes(job: Obj, running: Sequence[Obj], count: Tally, number: int) -> list[int]:
    """The lowest indexes that are neither done nor under way."""
    taken = count.completed | {index for pod in running if (index := index_of(pod)) is not None}
    completions = int(job["spec"].get("completions") or 0)
    return [index for index in range(completions) if index not in taken][:number]


def seconds_to_retry(pods: Sequence[Obj], count: Tally, now: float) -> float:
    """Back-off after failures: 10 s, doubled each time, at most 10 min, since the last one ended."""
    if not count.failures:
        return 0.0
    ends = [end for pod in pods if phase_of(pod) == "Failed" and (end := finished_at(pod))]
    if not ends:
        return 0.0
    delay = min(_FIRST_DELAY * float(1 << min(count.failures - 1, 30)), _LONGEST_DELAY)
    return max(0.0, max(ends) + delay - now)


def finished_at(pod: Obj) -> float:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    stamps = [
        terminated["finishedAt"]
        for status in statuses
        if (terminated := (status.get("state") or {}).get("terminated")) and terminated.get("finishedAt")
    ]
    return max((parse_rfc3339(stamp) for stamp in stamps), default=0.0)


def make_status(job: Obj, pods: Sequence[Obj], count: Tally, now: str) -> dict[str, Any]:
    """Counts and lists; conditions are carried over."""
    running = [pod for pod in pods if not has_ended(pod)]
    ending_now = [pod for pod in pods if is_deleting(pod) and not is_finished(pod)]
    old = job.get("status") or {}
    status: dict[str, Any] = {key: old[key] for key in ("conditions", "startTime", "completionTime") if key in old}
    if "startTime" not in status and not job["spec"].get("suspend"):
        status["startTime"] = now
    numbers = {
        "active": len(running),
        "succeeded": count.succeeded,
        "failed": count.failed,
    }
    status.update({name: number for name, number in numbers.items() if number})
    status["ready"] = sum(is_ready(pod) for pod in running)
    status["terminating"] = len(ending_now)
    uncounted = {"succeeded": count.uncounted_succeeded, "failed": count.uncounted_failed}
    status["uncountedTerminatedPods"] = {name: uids for name, uids in uncounted.items() if uids}
    if is_indexed(job) and count.completed:
        status["completedIndexes"] = format_indexes(count.completed)
    return status
