"""Makes a `v1.PodStatus` as a kubelet makes it, from the pod and what the node knows. Pure.

Phase, conditions and container statuses follow kubelet's `generateAPIPodStatus`. Conditions that belong to others
(PodScheduled, readiness gates, disruption) are kept as they are.
"""

from __future__ import annotations

from typing import Any

from dure.api.meta import with_condition
from dure.core.clock import rfc3339
from dure.core.json import Obj
from dure.node.pods import plan
from dure.node.pods.container_status import container_status
from dure.node.pods.model import (
    PodState,
    ephemeral_containers,
    init_containers,
    is_sidecar,
    main_containers,
    pod_phase,
)
from dure.node.pods.qos import qos_class

OWN_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
"""In the order kubelet gives them; PodScheduled is the scheduler's and only made here when it is missing."""

Status = dict[str, Any]


def pod_status(pod: Obj, state: PodState, host_ip: str, now: float) -> Status:
    """The status the pod should have now. A terminal phase, once reported, stays."""
    old = pod.get("status") or {}
    if pod_phase(pod) in ("Succeeded", "Failed") and not state.containers:
        return dict(old)
    statuses = {
        "initContainerStatuses": [container_status(pod, item, state, now) for item in init_containers(pod)],
        "containerStatuses": [container_status(pod, item, state, now) for item in main_containers(pod)],
        "ephemeralContainerStatuses": [container_status(pod, item, state, now) for item in ephemeral_containers(pod)],
    }
    phase = _phase(pod, state, statuses)
    status: Status = {
        **old,
        "phase": _held_back(phase, old, state),
        "qosClass": qos_class(pod),
        "startTime": old.get("startTime") or rfc3339(now),
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        **{name: value for name, value in statuses.items() if value},
    }
    if generation := pod["metadata"].get("generation"):
        status["observedGeneration"] = generation
    if state.verdict is not None:
        status |= {"reason": state.verdict.reason, "message": state.verdict.message}
    if state.ip:
        status |= {"podIP": state.ip, "podIPs": [{"ip": state.ip}]}
    status["conditions"] = _conditions(pod, state, status, phase, rfc3339(now))
    return status


# --- phase -----------------------------------------------------------------------------------


def _phase(pod: Obj, state: PodState, statuses: dict[str, list[Status]]) -> str:
    known = pod_phase(pod)
    if known in ("Succeeded", "Failed"):
        return known
    if state.verdict is not None or plan.failed_init(pod, state):
        return "Failed"
    main = [status["state"] for status in statuses["containerStatuses"]]
    stopped = [status for status in statuses["containerStatuses"] if _has_stopped(status)]
    running = sum("running" in entry for entry in main)
    if state.deletion is not None and not running and not state.running() and stopped:
        return "Failed" if any(_exit_code(status) for status in statuses["containerStatuses"]) else "Succeeded"
    if not plan.is_initialized(pod, state) or len(stopped) + running < len(main):
        return "Pending"
    if running or not plan.has_finished(pod, state):
        return "Running"
    return "Failed" if any(_exit_code(status) for status in statuses["containerStatuses"]) else "Succeeded"


def _has_stopped(status: Status) -> bool:
    if "terminated" in status["state"]:
        return True
    return "waiting" in status["state"] and "terminated" in status.get("lastState", {})


def _exit_code(status: Status) -> int:
    ended = status["state"].get("terminated") or status.get("lastState", {}).get("terminated")
    return int(ended["exitCode"]) if ended else 1


def _held_back(phase: str, old: Status, state: PodState) -> str:
    """A pod is not over while anything of it runs: sidecars, or what is being stopped."""
    if phase in ("Succeeded", "Failed") and state.running() and old.get("phase") not in ("Succeeded", "Failed"):
        return str(old.get("phase") or "Running")
    return phase


# --- conditions ------------------------------------------------------------------------------


def _conditions(pod: Obj, state: PodState, status: Status, phase: str, now: str) -> list[Status]:
    conditions: list[Status] = list((pod.get("status") or {}).get("conditions") or [])
    ready = _containers_ready(pod, status, phase)
    wanted = {
        "PodReadyToStartContainers": _flag(state.sandbox_ready and state.volumes_ready and not state.torn_down),
        "Initialized": _initialized(pod, state, status, phase),
        "Ready": _ready(pod, ready, conditions),
        "ContainersReady": ready,
    }
    if not any(entry["type"] == "PodScheduled" for entry in conditions):
        wanted["PodScheduled"] = _flag(True)
    generation = pod["metadata"].get("generation")
    for kind, entry in wanted.items():
        extra = {"observedGeneration": generation} if generation else {}
        conditions = with_condition(conditions, {"type": kind, **entry, **extra}, now)
    return sorted(conditions, key=_condition_rank)


def _condition_rank(entry: Status) -> int:
    kind = entry["type"]
    return OWN_CONDITIONS.index(kind) if kind in OWN_CONDITIONS else -1


def _flag(value: bool, reason: str = "", message: str = "") -> Status:
    entry: Status = {"status": "True" if value else "False"}
    if reason:
        entry["reason"] = reason
    if message:
        entry["message"] = message
    return entry


def _initialized(pod: Obj, state: PodState, status: Status, phase: str) -> Status:
    if plan.is_initialized(pod, state):
        return _flag(True, "PodCompleted" if phase == "Succeeded" else "")
    incomplete = [
        entry["name"]
        for container, entry in zip(init_containers(pod), status.get("initContainerStatuses") or [], strict=False)
        if not (entry.get("started") if is_sidecar(container) else entry.get("ready"))
    ]
    return _flag(False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]")


def _containers_ready(pod: Obj, status: Status, phase: str) -> Status:
    if phase == "Succeeded":
        return _flag(False, "PodCompleted")
    if phase == "Failed":
        return _flag(False, "PodFailed")
    sidecars = [container["name"] for container in init_containers(pod) if is_sidecar(container)]
    considered = [
        *(entry for entry in status.get("initContainerStatuses") or [] if entry["name"] in sidecars),
        *(status.get("containerStatuses") or []),
    ]
    unready = [entry["name"] for entry in considered if not entry["ready"]]
    if not unready:
        return _flag(True)
    return _flag(False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")


def _ready(pod: Obj, containers_ready: Status, conditions: list[Status]) -> Status:
    if containers_ready["status"] != "True":
        return containers_ready
    known = {entry["type"]: entry["status"] for entry in conditions}
    complaints = []
    for gate in pod["spec"].get("readinessGates") or []:
        kind = gate["conditionType"]
        if kind not in known:
            complaints.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif known[kind] != "True":
            complaints.append(f'the status of pod readiness gate "{kind}" is not "True", but {known[kind]}')
    if complaints:
        return _flag(False, "ReadinessGatesNotReady", ", ".join(complaints))
    return _flag(True)
