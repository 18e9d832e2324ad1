"""What a Job's status says: counts, and the conditions Suspended, Complete and Failed: pure.

Ending has two steps, as upstream: first that it is decided (SuccessCriteriaMet, FailureTarget), and when no pod
is left, that it is so (Complete, Failed).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dure.api.meta import condition, with_condition
from dure.controllers.job_rules import Ending, Tally, format_indexes, is_indexed, is_running, is_terminating
from dure.controllers.pods import is_ready
from dure.core.json import Obj

_DECIDED = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}


def has_ended(job: Obj) -> bool:
    return any((found := condition(job, type_)) and found["status"] == "True" for type_ in _DECIDED)


def make_status(job: Obj, pods: Sequence[Obj], count: Tally, end: Ending | None, now: str) -> dict[str, Any]:
    """The whole status."""
    old = job.get("status") or {}
    running = [pod for pod in pods if is_running(pod)]
    status: dict[str, Any] = {key: old[key] for key in ("conditions", "startTime", "completionTime") if key in old}
    if "startTime" not in status and not job["spec"].get("suspend"):
        status["startTime"] = now
    numbers = {"active": len(running), "succeeded": count.succeeded, "failed": count.failed}
    status.update({name: number for name, number in numbers.items() if number})
    status["ready"] = sum(is_ready(pod) for pod in running)
    status["terminating"] = sum(is_terminating(pod) for pod in pods)
    uncounted = {"succeeded": count.uncounted_succeeded, "failed": count.uncounted_failed}
    status["uncountedTerminatedPods"] = {name: uids for name, uids in uncounted.items() if uids}
    if is_indexed(job) and count.completed:
        status["completedIndexes"] = format_indexes(count.completed)
    _suspend(job, status, now)
    if end is not None:
        _end(status, end, now)
    return status


def _suspend(job: Obj, status: dict[str, Any], now: str) -> None:
    """The start time is that of the present stretch of work."""
    suspended = bool(job["spec"].get("suspend"))
    before = condition(job, "Suspended")
    if suspended == bool(before and before["status"] == "True"):
        return
    reason, message = ("JobSuspended", "Job suspended") if suspended else ("JobResumed", "Job resumed")
    _set(status, "Suspended", "True" if suspended else "False", reason, message, now)
    if suspended:
        status.pop("startTime", None)
    else:
        status["startTime"] = now


def _end(status: dict[str, Any], end: Ending, now: str) -> None:
    _decide(status, _DECIDED[end.type], end, now)
    if status.get("active") or status["terminating"] or status["uncountedTerminatedPods"]:
        return
    _decide(status, end.type, end, now)
    if end.type == "Complete":
        status["completionTime"] = now


def _decide(status: dict[str, Any], type_: str, end: Ending, now: str) -> None:
    if not any(entry["type"] == type_ for entry in status.get("conditions") or []):
        _set(status, type_, "True", end.reason, end.message, now)


def _set(status: dict[str, Any], type_: str, value: str, reason: str, message: str, now: str) -> None:
    entry = {"type": type_, "status": value, "reason": reason, "message": message, "lastProbeTime": now}
    status["conditions"] = with_condition(status.get("conditions") or [], entry, now)
