"""What a Deployment's status says: counts and the Available, Progressing and ReplicaFailure conditions: pure.

Reasons and times as `kubectl rollout status` and `kubectl wait` read them: `lastUpdateTime` of Progressing moves
with every step forward, and the progress deadline counts from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dure.api.meta import condition, name_of
from dure.controllers.rollout import bounds, replicas, status_count
from dure.core.clock import parse_rfc3339, rfc3339
from dure.core.json import Obj

_COMPLETE, _TIMED_OUT, _PAUSED = "NewReplicaSetAvailable", "ProgressDeadlineExceeded", "DeploymentPaused"

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rollout:
    """What a look at a deployment found and did."""

    deployment: Obj
    new: Obj | None
    sets: Sequence[Obj]
    now: float
    was_created: bool = False
    """The new set was made just now."""
    failure: str = ""
    """Why the new set could not be made."""


def make_status(rollout: Rollout) -> dict[str, Any]:
    """The whole status."""
    deployment, sets = rollout.deployment, rollout.sets
    counts = {
        "replicas": _sum(sets, "replicas"),
        "updatedReplicas": _sum([rollout.new] if rollout.new else [], "replicas"),
        "readyReplicas": _sum(sets, "readyReplicas"),
        "availableReplicas": _sum(sets, "availableReplicas"),
    }
    counts["unavailableReplicas"] = max(0, sum(replicas(item) for item in sets) - counts["availableReplicas"])
    status: dict[str, Any] = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        **{name: count for name, count in counts.items() if count},
    }
    if "collisionCount" in (deployment.get("status") or {}):
        status["collisionCount"] = deployment["status"]["collisionCount"]
    entries = [_availability(rollout, counts), _progress(rollout, counts), _pod_failure(rollout)]
    status["conditions"] = [entry for entry in entries if entry]
    return status


def _sum(sets: Sequence[Obj], field: str) -> int:
    return sum(status_count(item, field) for item in sets)


def is_complete(deployment: Obj, counts: dict[str, Any]) -> bool:
    """Every pod is of the present template, and available."""
    wanted = replicas(deployment)
    return all(counts.get(name, 0) == wanted for name in ("updatedReplicas", "replicas", "availableReplicas"))


def _entry(rollout: Rollout, type_: str, status: str, reason: str, message: str, *, renew: bool = False) -> Entry:
    """With times: transition when the status changes, update when anything does, or always with `renew`."""
    entry = {"type": type_, "status": status, "reason": reason, "message": message}
    before = condition(rollout.deployment, type_) or {}
    if not renew and all(before.get(field) == value for field, value in entry.items()):
        return before
    stamp = rfc3339(rollout.now)
    moved = before.get("lastTransitionTime", stamp) if before.get("status") == status else stamp
    return {**entry, "lastUpdateTime": stamp, "lastTransitionTime": moved}


def _availability(rollout: Rollout, counts: dict[str, int]) -> Entry:
    _, away = bounds(rollout.deployment)
    if counts["availableReplicas"] >= replicas(rollout.deployment) - away:
        text = "Deployment has minimum availability."
        return _entry(rollout, "Available", "True", "MinimumReplicasAvailable", text)
    text = "Deployment does not have minimum availability."
    return _entry(rollout, "Available", "False", "MinimumReplicasUnavailable", text)


def _pod_failure(rollout: Rollout) -> Entry | None:
    """Of the new set, else of any."""
    for item in filter(None, (rollout.new, *rollout.sets)):
        found = condition(item, "ReplicaFailure")
        if found and found["status"] == "True":
            return _entry(rollout, "ReplicaFailure", "True", found["reason"], found["message"])
    return None


def _progress(rollout: Rollout, counts: dict[str, int]) -> Entry | None:
    deployment, name = rollout.deployment, name_of(rollout.new) if rollout.new else ""
    before = condition(deployment, "Progressing")
    reason = (before or {}).get("reason")
    if deployment["spec"].get("progressDeadlineSeconds") is None:
        return None
    if rollout.failure:
        return _entry(rollout, "Progressing", "False", "ReplicaSetCreateError", rollout.failure)
    if deployment["spec"].get("paused"):
        paused = _entry(rollout, "Progressing", "Unknown", _PAUSED, "Deployment is paused")
        return before if reason == _TIMED_OUT else paused
    if rollout.was_created:
        text = f'Created new replica set "{name}"'
        return _entry(rollout, "Progressing", "True", "NewReplicaSetCreated", text, renew=True)
    if reason == _COMPLETE and counts["replicas"] == counts["updatedReplicas"]:
        return before  # a pod that breaks later does not undo the rollout
    if is_complete(deployment, counts):
        text = f'ReplicaSet "{name}" has successfully progressed.'
        return _entry(rollout, "Progressing", "True", _COMPLETE, text)
    if _has_moved(deployment, counts):
        text = f'ReplicaSet "{name}" is progressing.'
        return _entry(rollout, "Progressing", "True", "ReplicaSetUpdated", text, renew=True)
    return _standstill(rollout, before, name)


def _standstill(rollout: Rollout, before: Entry | None, name: str) -> Entry | None:
    """Nothing has moved since the last look."""
    if before is None:
        found = _entry(rollout, "Progressing", "True", "FoundNewReplicaSet", f'Found new replica set "{name}"')
        return found if name else None
    if before.get("reason") == _PAUSED:
        return _entry(rollout, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed")
    if seconds_to_deadline(rollout.deployment, rollout.now) == 0:
        text = f'ReplicaSet "{name}" has timed out progressing.'
        return _entry(rollout, "Progressing", "False", _TIMED_OUT, text)
    return before


def _has_moved(deployment: Obj, counts: dict[str, int]) -> bool:
    """Whether the rollout advanced since the last status."""
    updated, ready = status_count(deployment, "updatedReplicas"), status_count(deployment, "readyReplicas")
    return (
        counts["updatedReplicas"] > updated
        or counts["replicas"] - counts["updatedReplicas"] < status_count(deployment, "replicas") - updated
        or counts["readyReplicas"] > ready
        or counts["availableReplicas"] > status_count(deployment, "availableReplicas")
    )


def seconds_to_deadline(deployment: Obj, now: float) -> float | None:
    """Until a rollout that does not move counts as failed; None when nothing is under way or it has failed."""
    limit, before = deployment["spec"].get("progressDeadlineSeconds"), condition(deployment, "Progressing")
    if limit is None or before is None or before.get("reason") in (_COMPLETE, _TIMED_OUT, _PAUSED):
        return None
    since = before.get("lastUpdateTime") or before.get("lastTransitionTime")
    return max(0.0, parse_rfc3339(since) + int(limit) - now) if since else None
