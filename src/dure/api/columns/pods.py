"""The columns of pods; the wording of STATUS follows upstream's `printPod`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dure.api.columns.cells import AGE, NAME, NONE, at, column, containers_of, labels_text, text
from dure.api.durations import since
from dure.api.meta import condition
from dure.core.json import Obj


@dataclass(slots=True)
class _Summary:
    reason: str
    ready: int = 0
    total: int = 0
    restarts: int = 0
    last_restart: str = ""

    def restarted(self, status: Obj) -> None:
        self.restarts += status.get("restartCount") or 0
        finished = at(status, "lastState", "terminated", "finishedAt") or ""
        self.last_restart = max(self.last_restart, finished)


def _summary(pod: Obj) -> _Summary:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    summary = _Summary(status.get("reason") or status.get("phase") or "Unknown")
    scheduled = condition(pod, "PodScheduled")
    if scheduled and scheduled.get("reason") == "SchedulingGated":
        summary.reason = "SchedulingGated"
    sidecars = {item["name"] for item in spec.get("initContainers") or [] if item.get("restartPolicy") == "Always"}
    summary.total = len(spec.get("containers") or []) + len(sidecars)
    kept = _Summary(summary.reason)
    initializing = _look_at_init(pod, summary, kept, sidecars)
    if not initializing or _is_true(pod, "Initialized"):
        summary.restarts, summary.last_restart = kept.restarts, kept.last_restart
        _look_at_main(pod, summary)
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            summary.reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            summary.reason = "Terminating"
    return summary


def _is_true(pod: Obj, type_: str) -> bool:
    found = condition(pod, type_)
    return found is not None and found.get("status") == "True"


def _look_at_init(pod: Obj, summary: _Summary, kept: _Summary, sidecars: set[str]) -> bool:
    """Whether an init container is still at work; `kept` counts the restarts of those that stay."""
    statuses = at(pod, "status", "initContainerStatuses") or []
    for index, status in enumerate(statuses):
        summary.restarted(status)
        stays = status.get("name") in sidecars
        if stays:
            kept.restarted(status)
        state = status.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if ended is not None and not ended.get("exitCode"):
            continue
        if stays and status.get("started"):
            summary.ready += bool(status.get("ready"))
            continue
        if ended is not None:
            summary.reason = f"Init:{_ending(ended)}"
        elif waiting and waiting.get("reason") not in (None, "", "PodInitializing"):
            summary.reason = f"Init:{waiting['reason']}"
        else:
            total = len(at(pod, "spec", "initContainers") or [])
            summary.reason = f"Init:{index}/{total}"
        return True
    return False


def _look_at_main(pod: Obj, summary: _Summary) -> None:
    running = False
    for status in reversed(at(pod, "status", "containerStatuses") or []):
        summary.restarted(status)
        state = status.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if waiting and waiting.get("reason"):
            summary.reason = waiting["reason"]
        elif ended is not None:
            summary.reason = _ending(ended)
        elif status.get("ready") and state.get("running") is not None:
            running = True
            summary.ready += 1
    if summary.reason == "Completed" and running:
        summary.reason = "Running" if _is_true(pod, "Ready") else "NotReady"


def _ending(ended: Obj) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"


def _ready(pod: Obj, now: float) -> str:
    summary = _summary(pod)
    return f"{summary.ready}/{summary.total}"


def _restarts(pod: Obj, now: float) -> str:
    summary = _summary(pod)
    if summary.restarts and summary.last_restart:
        return f"{summary.restarts} ({since(summary.last_restart, now)} ago)"
    return str(summary.restarts)


def _address(pod: Obj, now: float) -> Any:
    addresses = at(pod, "status", "podIPs") or []
    return (addresses[0].get("ip") if addresses else at(pod, "status", "podIP")) or NONE


def _gates(pod: Obj, now: float) -> str:
    gates = at(pod, "spec", "readinessGates") or []
    if not gates:
        return NONE
    passed = sum(_is_true(pod, gate.get("conditionType", "")) for gate in gates)
    return f"{passed}/{len(gates)}"


PODS = (
    NAME,
    column("Ready", _ready, text="The aggregate readiness state of this pod for accepting traffic."),
    column("Status", lambda pod, now: _summary(pod).reason, text="The aggregate status of the containers in this pod."),
    column("Restarts", _restarts, text="The number of times the containers in this pod have been restarted."),
    AGE,
    column("IP", _address, wide=True, text="The address of the pod."),
    column("Node", text("spec", "nodeName", default=NONE), wide=True, text="The node the pod is on."),
    column("Nominated Node", text("status", "nominatedNodeName", default=NONE), wide=True),
    column("Readiness Gates", _gates, wide=True, text="Conditions that must hold, beside ready containers."),
)

POD_TEMPLATES = (
    NAME,
    *(column(item.name, item.value, text=item.description) for item in containers_of("template", "spec")),
    column("Pod Labels", lambda obj, now: labels_text(at(obj, "template", "metadata", "labels"))),
)
