"""What a Job's pods mean for it: how many more to start, whether it has ended, and how: pure.

Counting follows Kubernetes' finalizer-based tracking, so that a finished pod counts once even when it is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dure.api.meta import annotations_of, condition, is_deleting, uid_of
from dure.controllers.pods import choose_for_deletion, is_finished, phase_of, restarts_of
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
    ignored: list[str] = field(default_factory=list)
    """Finished pods that count for nothing: their index was done already."""
    completed: set[int] = field(default_factory=set)
    """Indexes that are done, for an Indexed job."""

    @property
    def successes(self) -> int:
        return self.succeeded + len(self.uncounted_succeeded)

    @property
    def failures(self) -> int:
        return self.failed + len(self.uncounted_failed)

    @property
    def settled(self) -> set[str]:
        """The pods to let go of once the counts are written."""
        return {*self.uncounted_succeeded, *self.uncounted_failed, *self.ignored}


def is_tracked(pod: Obj) -> bool:
    return TRACKING in (pod["metadata"].get("finalizers") or [])


def is_running(pod: Obj) -> bool:
    """Neither finished nor on its way out."""
    return not is_finished(pod) and not is_deleting(pod)


def is_terminating(pod: Obj) -> bool:
    return is_deleting(pod) and not is_finished(pod)


def has_failed(job: Obj, pod: Obj) -> bool:
    """A pod deleted before it could finish counts as failed, at once or (by the policy Failed) when it has stopped."""
    return phase_of(pod) == "Failed" or (is_terminating(pod) and not _replaces_only_failed(job))


def _replaces_only_failed(job: Obj) -> bool:
    return bool(job["spec"].get("podReplacementPolicy") == "Failed")


def index_of(pod: Obj) -> int | None:
    text = annotations_of(pod).get(INDEX)
    return int(text) if text and text.isdigit() else None


def is_indexed(job: Obj) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def tally(job: Obj, pods: Sequence[Obj]) -> Tally:
    """From the last status and what the pods say now."""
    status = job.get("status") or {}
    waiting = status.get("uncountedTerminatedPods") or {}
    tracked = {uid_of(pod): pod for pod in pods if is_tracked(pod)}
    result = Tally(int(status.get("succeeded") or 0), int(status.get("failed") or 0))
    result.completed = parse_indexes(status.get("completedIndexes") or "")
    for uid in waiting.get("succeeded") or []:
        if tracked.pop(uid, None):
            result.uncounted_succeeded.append(uid)
        else:
            result.succeeded += 1
    for uid in waiting.get("failed") or []:
        if tracked.pop(uid, None):
            result.uncounted_failed.append(uid)
        else:
            result.failed += 1
    for uid, pod in tracked.items():
        if phase_of(pod) == "Succeeded":
            _count_success(job, pod, result)
        elif has_failed(job, pod):
            result.uncounted_failed.append(uid)
    return result


def _count_success(job: Obj, pod: Obj, result: Tally) -> None:
    if is_indexed(job):
        index = index_of(pod)
        if index is None or index in result.completed or index >= int(job["spec"].get("completions") or 0):
            result.ignored.append(uid_of(pod))
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
    """{1, 3, 4, 5} → `1,3-5`; two neighbours are still written one by one."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(f"{first}" if first == last else f"{first}{_between(first, last)}{last}" for first, last in runs)


def _between(first: int, last: int) -> str:
    return "," if last == first + 1 else "-"


@dataclass(frozen=True, slots=True)
class Ending:
    """How the job ended: `type` is Complete or Failed."""

    type: str
    reason: str
    message: str


def ending(job: Obj, pods: Sequence[Obj], count: Tally, now: float) -> Ending | None:
    """None while it goes on. What was once decided stays."""
    for decided, type_ in (("FailureTarget", "Failed"), ("SuccessCriteriaMet", "Complete")):
        found = condition(job, decided)
        if found and found["status"] == "True":
            return Ending(type_, found.get("reason", ""), found.get("message", ""))
    running = [pod for pod in pods if is_running(pod)]
    limit = int(job["spec"].get("backoffLimit", 6))
    if count.failures > limit or _restarts_exceed(job, running, limit):
        return Ending("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    deadline = seconds_to_deadline(job, now)
    if deadline is not None and deadline <= 0:
        return Ending("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    if is_complete(job, running, count):
        return Ending("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def _restarts_exceed(job: Obj, running: Sequence[Obj], limit: int) -> bool:
    """Containers restarted in place count as failures too."""
    if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(restarts_of(pod) for pod in running)
    return restarts >= limit if limit else restarts > 0


def is_complete(job: Obj, running: Sequence[Obj], count: Tally) -> bool:
    completions = job["spec"].get("completions")
    if completions is None:
        return count.successes > 0 and not running
    done = len(count.completed) if is_indexed(job) else count.successes
    return done >= int(completions)


def seconds_to_deadline(job: Obj, now: float) -> float | None:
    limit, started = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
    if limit is None or not started or job["spec"].get("suspend"):
        return None
    return parse_rfc3339(started) + float(limit) - now


def missing(job: Obj, pods: Sequence[Obj], count: Tally) -> int:
    """How many pods to start now; negative when there are too many."""
    running = sum(is_running(pod) for pod in pods)
    if job["spec"].get("suspend"):
        return -running
    parallelism = int(job["spec"].get("parallelism", 1))
    completions = job["spec"].get("completions")
    if completions is None:
        wanted = running if count.successes else parallelism
    else:
        wanted = min(parallelism, int(completions) - count.successes)
    if max(0, wanted) < running:
        return max(0, wanted) - running
    held = sum(is_terminating(pod) for pod in pods) if _replaces_only_failed(job) else 0
    return max(0, wanted - running - held)


def free_indexes(job: Obj, pods: Sequence[Obj], count: Tally, number: int) -> list[int]:
    """The lowest indexes that are neither done nor under way."""
    taken = count.completed | {index for pod in pods if is_running(pod) and (index := index_of(pod)) is not None}
    completions = int(job["spec"].get("completions") or 0)
    return [index for index in range(completions) if index not in taken][:number]


def superfluous(job: Obj, pods: Sequence[Obj], number: int) -> list[Obj]:
    """The pods to stop when there are too many: the highest indexes, or those that are missed least."""
    running = [pod for pod in pods if is_running(pod)]
    if is_indexed(job):
        return sorted(running, key=lambda pod: index_of(pod) or 0, reverse=True)[:number]
    return choose_for_deletion(running, number)


def seconds_to_retry(pods: Sequence[Obj], count: Tally, now: float) -> float:
    """Back-off after failures: 10 s, doubled each time, at most 10 min, since the last one ended."""
    ends = [end for pod in pods if phase_of(pod) == "Failed" and (end := finished_at(pod))]
    if not count.failures or not ends:
        return 0.0
    delay = min(_FIRST_DELAY * float(1 << min(count.failures - 1, 30)), _LONGEST_DELAY)
    return max(0.0, max(ends) + delay - now)


def finished_at(pod: Obj) -> float:
    """When its last container ended; a pod that never ran ended when it was last heard of."""
    status = pod.get("status") or {}
    stamps = [
        terminated["finishedAt"]
        for entry in status.get("containerStatuses") or []
        if (terminated := (entry.get("state") or {}).get("terminated")) and terminated.get("finishedAt")
    ]
    if not stamps:
        stamps = [
            entry["lastTransitionTime"] for entry in status.get("conditions") or [] if "lastTransitionTime" in entry
        ]
    return max(map(parse_rfc3339, stamps), default=0.0)
