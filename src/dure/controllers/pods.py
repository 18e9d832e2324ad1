"""What controllers ask of pods: active, ready, available, and which to delete first.

Order of deletion: upstream's `ActivePodsWithRanks`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from dure.api.meta import annotations_of, condition, is_deleting, key_of, owner_reference, with_condition
from dure.client.client import Client
from dure.core.clock import parse_rfc3339
from dure.core.json import Obj, dumps_sorted, thaw

_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def phase_of(pod: Obj) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def is_finished(pod: Obj) -> bool:
    return phase_of(pod) in ("Succeeded", "Failed")


def is_active(pod: Obj) -> bool:
    return not is_finished(pod) and not is_deleting(pod)


def is_ready(pod: Obj) -> bool:
    found = condition(pod, "Ready")
    return found is not None and found["status"] == "True"


def ready_since(pod: Obj) -> float:
    """When the pod became ready, 0 when it is not."""
    found = condition(pod, "Ready")
    if found is None or found["status"] != "True":
        return 0.0
    return parse_rfc3339(found["lastTransitionTime"]) if found.get("lastTransitionTime") else 0.0


def seconds_to_available(pod: Obj, min_ready: int, now: float) -> float | None:
    """0 when available, how long still when ready, None when not ready."""
    if not is_ready(pod):
        return None
    return max(0.0, ready_since(pod) + min_ready - now) if min_ready else 0.0


async def mark_disrupted(
    client: Client, pod: Obj, reason: str, message: str, now: str, *, phase: str | None = None
) -> None:
    """Say on the pod that it is taken away and why, so that a Job's policy may judge. Raises NotFound."""
    entry = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    conditions = with_condition((pod.get("status") or {}).get("conditions") or [], entry, now)
    status: Obj = {"conditions": conditions} | ({"phase": phase} if phase else {})
    namespace, name = key_of(pod)
    await client.patch("pods", name, namespace, {"status": status}, subresource="status")


def restarts_of(pod: Obj) -> int:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return max((int(status.get("restartCount") or 0) for status in statuses), default=0)


def _rank(pod: Obj, crowd: dict[str, int]) -> tuple[Any, ...]:
    """Smaller goes first."""
    node = pod["spec"].get("nodeName") or ""
    try:
        cost = int(annotations_of(pod).get(_DELETION_COST, "0"))
    except ValueError:
        cost = 0
    order = {"Pending": 0, "Unknown": 1, "Running": 2}.get(phase_of(pod), 0)
    created = pod["metadata"].get("creationTimestamp") or ""
    youth = -parse_rfc3339(created) if created else 0.0
    return (bool(node), order, is_ready(pod), cost, -crowd.get(node, 0), -ready_since(pod), -restarts_of(pod), youth)


def choose_for_deletion(pods: Sequence[Obj], count: int, related: Iterable[Obj] = ()) -> list[Obj]:
    """The `count` pods that are missed least; `related` pods of sibling sets count as company on a node."""
    crowd: dict[str, int] = {}
    for pod in [*related] or pods:
        node = pod["spec"].get("nodeName") or ""
        crowd[node] = crowd.get(node, 0) + 1
    return sorted(pods, key=lambda pod: _rank(pod, crowd))[:count]


def pod_from_template(template: Obj, owner: Obj, *, name: str = "") -> Obj:
    """A pod to be created, owned by `owner`; named by the server unless `name` is given."""
    meta = template.get("metadata") or {}
    pod_meta: Obj = {
        "namespace": owner["metadata"]["namespace"],
        "labels": dict(meta.get("labels") or {}),
        "annotations": dict(meta.get("annotations") or {}),
        "finalizers": list(meta.get("finalizers") or []),
        "ownerReferences": [owner_reference(owner)],
    }
    pod_meta = {key: value for key, value in pod_meta.items() if value}
    if name:
        pod_meta["name"] = name
    else:
        pod_meta["generateName"] = f"{owner['metadata']['name']}-"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": pod_meta, "spec": thaw(template["spec"])}


def template_hash(template: Obj, collisions: int = 0) -> str:
    """A short name for a pod template: equal templates, equal names; `collisions` gives another."""
    digest = hashlib.sha256(dumps_sorted(template) + str(collisions or "").encode()).digest()
    number = int.from_bytes(digest[:5], "big")
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    letters = []
    for _ in range(10):
        number, index = divmod(number, len(alphabet))
        letters.append(alphabet[index])
        if not number:
            break
    return "".join(letters)
