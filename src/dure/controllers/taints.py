"""Which taints a node's condition asks for, and when they drive a pod away: pure.

Keys and effects as upstream's node lifecycle and taint eviction controllers.
"""

from __future__ import annotations

from typing import Any

from dure.api.meta import condition
from dure.core.clock import parse_rfc3339
from dure.core.json import Obj

Taint = dict[str, Any]

_NOT_READY, _UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_BY_CONDITION = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_OURS = {
    *((key, "NoSchedule") for key in (_NOT_READY, _UNREACHABLE, _UNSCHEDULABLE, *_BY_CONDITION.values())),
    (_NOT_READY, "NoExecute"),
    (_UNREACHABLE, "NoExecute"),
}


def wanted_taints(node: Obj, now: str) -> list[Taint]:
    """The node's taints with ours as its conditions say; each NoExecute taint knows when it was added."""
    present = node["spec"].get("taints") or []
    kept = [_stamped(taint, now) for taint in present if _identity(taint) not in _OURS]
    ours = []
    for key, effect in _asked_for(node):
        before = next((taint for taint in present if _identity(taint) == (key, effect)), None)
        ours.append(_stamped(before or {"key": key, "effect": effect}, now))
    return kept + ours


def _asked_for(node: Obj) -> list[tuple[str, str]]:
    found = []
    ready = condition(node, "Ready")
    if ready is not None and ready["status"] != "True":  # without the condition the node is only just registering
        key = _NOT_READY if ready["status"] == "False" else _UNREACHABLE
        found += [(key, "NoSchedule"), (key, "NoExecute")]
    for type_, key in _BY_CONDITION.items():
        pressure = condition(node, type_)
        if pressure is not None and pressure["status"] == "True":
            found.append((key, "NoSchedule"))
    if node["spec"].get("unschedulable"):
        found.append((_UNSCHEDULABLE, "NoSchedule"))
    return found


def _identity(taint: Taint) -> tuple[str, str]:
    return taint["key"], taint["effect"]


def _stamped(taint: Taint, now: str) -> Taint:
    needs_time = taint["effect"] == "NoExecute" and not taint.get("timeAdded")
    return {**taint, "timeAdded": now} if needs_time else taint


def drives_away(node: Obj) -> bool:
    """Whether a pod on the node may have to go."""
    return any(taint["effect"] == "NoExecute" for taint in node["spec"].get("taints") or [])


def seconds_until_eviction(pod: Obj, taints: list[Taint], now: float) -> float | None:
    """When NoExecute taints drive the pod away: None never, 0 now."""
    waits: list[float] = []
    for taint in taints:
        if taint.get("effect") != "NoExecute":
            continue
        tolerations = [item for item in pod["spec"].get("tolerations") or [] if _tolerates(item, taint)]
        if not tolerations:
            return 0
        limits = [float(item["tolerationSeconds"]) for item in tolerations if item.get("tolerationSeconds") is not None]
        if limits:
            since = parse_rfc3339(taint["timeAdded"]) if taint.get("timeAdded") else now
            waits.append(max(0.0, since + min(limits) - now))
    return min(waits, default=None)


def _tolerates(toleration: dict[str, Any], taint: Taint) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")
