"""What a Deployment's status says: counts and the Available and Progressing conditions: pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dure.api.meta import condition, name_of
from dure.controllers.rollout import available, bounds, replicas
from dure.core.clock import parse_rfc3339
from dure.core.json import Obj


def _sum(sets: Sequence[Obj], field: str) -> int:
    return sum(int((item.get("status") or {}).get(field) or 0) for item in sets)


def is_complete(deployment: Obj, status: dict[str, Any]) -> bool:
    wanted = replicas(deployment)
    return all(status.get(name, 0) == wanted for name in ("updatedReplicas", "replicas", "availableReplicas"))


def make_status(
    deployment: Obj, new: Obj | None, sets: Sequence[Obj], now: float, stamp: str, failure: str = ""
) -> dict[str, Any]:
    """The whole status. `failure` is why pods cannot be made, if they cannot."""
    counts = {
        "replicas": _sum(sets, "replicas"),
        "updatedReplicas": _sum([new] if new else [], "replicas"),
        "readyReplicas": _sum(sets, "readyReplicas"),
        "availableReplicas": sum(available(item) for item in sets),
    }
    counts["unavailableReplicas"] = max(0, sum(replicas(item) for item in sets) - counts["availableReplicas"])
    status: dict[str, Any] = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        **{name: count for name, count in counts.items() if count},
    }
    old = deployment.get("status") or {}
    if "collisionCount" in old:
        status["collisionCount"] = old["collisionCount"]
    conditions = [_available_condition(deployment, counts)]
    if progressing := _progressing_condition(deployment, new, counts, status, now):
        conditions.append(progressing)
    if failure:
        conditions.append({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failure})
    status["conditions"] = [_stamped(deployment, entry, stamp) for entry in conditions]
    return status


def _stamped(deployment: Obj, entry: dict[str, Any], stamp: str) -> dict[str, Any]:
    """With times: transition when the status changes, update when anything does."""
    before = condition(deployment, entry["type"])
    if before is None:
        return {**entry, "lastUpdateTime": stamp, "lastTransitionTime": stamp}
    if all(before.get(field) == entry[field] for field in ("status", "reason", "message")):
        return before
    moved = stamp if before["status"] != entry["status"] else before.get("lastTransitionTime", stamp)
    return {**entry, "lastUpdateTime": stamp, "lastTransitionTime": moved}


def _available_condition(deployment: Obj, counts: dict[str, int]) -> dict[str, Any]:
    _, away = bounds(deployment)
    if counts["availableReplicas"] >= replicas(deployment) - away:
        text = "Deployment has minimum availability."
        return {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "message": text}
    text = "Deployment does not have minimum availability."
    return {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "message": text}


def _progressing_condition(
    deployment: Obj, new: Obj | None, counts: dict[str, int], status: dict[str, Any], now: float
) -> dict[str, Any] | None:
    before = condition(deployment, "Progressing")
    if deployment["spec"].get("paused"):
        text = "Deployment is paused"
        return {"type": "Progressing", "status": "Unknown", "reason": "DeploymentPaused", "message": text}
    name = name_of(new) if new else ""
    if is_complete(deployment, status):
        text = f'ReplicaSet "{name}" has successfully progressed.'
        return {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": text}
    if before is None or before.get("reason") == "DeploymentPaused" or _moved(deployment, counts):
        known = before is not None and new is not None
        reason = "ReplicaSetUpdated" if known else "NewReplicaSetCreated"
        text = f'ReplicaSet "{name}" is progressing.' if known else f'Created new replica set "{name}"'
        return {"type": "Progressing", "status": "True", "reason": reason, "message": text}
    if seconds_to_deadline(deployment, now) == 0:
        text = f'ReplicaSet "{name}" has timed out progressing.'
        return {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": text}
    if before.get("reason") == "NewReplicaSetAvailable" and before["status"] == "True":
        text = f'ReplicaSet "{name}" is progressing.'
        return {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": text}
    return {key: before[key] for key in ("type", "status", "reason", "message")}


def _moved(deployment: Obj, counts: dict[str, int]) -> bool:
    """Whether the rollout advanced since the last status."""
    old = deployment.get("status") or {}
    old_of_old = int(old.get("replicas") or 0) - int(old.get("updatedReplicas") or 0)
    now_of_old = counts["replicas"] - counts["updatedReplicas"]
    return (
        counts["updatedReplicas"] > int(old.get("updatedReplicas") or 0)
        or now_of_old < old_of_old
        or counts["readyReplicas"] > int(old.get("readyReplicas") or 0)
        or counts["availableReplicas"] > int(old.get("availableReplicas") or 0)
    )


def seconds_to_deadline(deployment: Obj, now: float) -> float | None:
    """Until a rollout that does not move counts as failed; None when nothing is under way."""
    limit = deployment["spec"].get("progressDeadlineSeconds")
    before = condition(deployment, "Progressing")
    if limit is None or before is None or before.get("reason") == "NewReplicaSetAvailable":
        return None
    if before["status"] == "False":
        return 0
    since = before.get("lastUpdateTime") or before.get("lastTransitionTime")
    return max(0.0, parse_rfc3339(since) + int(limit) - now) if since else None
