"""Makes one `v1.ContainerStatus` from the runs of a container and what keeps it from running. Pure."""

from __future__ import annotations

from typing import Any

from dure.core.clock import rfc3339
from dure.core.json import Obj
from dure.node.model import CONTAINER_ID_SCHEME
from dure.node.pods import backoff, plan
from dure.node.pods.model import (
    SETTLING_SECONDS,
    PodState,
    Trouble,
    ephemeral_containers,
    has_ended,
    init_containers,
    is_alive,
    is_sidecar,
    pod_label,
    reported_statuses,
)
from dure.node.ports import ContainerState

LOST_MESSAGE = "The container could not be located when the pod was terminated"


def container_status(pod: Obj, container: Obj, state: PodState, now: float) -> dict[str, Any]:
    """The status of one container of any sort."""
    name = container["name"]
    runs = state.of(name)
    newest = runs[0] if runs else None
    reported: dict[str, Any] = next((item for item in reported_statuses(pod) if item.get("name") == name), {})
    status: dict[str, Any] = {
        "name": name,
        "image": container.get("image", ""),
        "imageID": "",
        "ready": is_ready(pod, container, state),
        "restartCount": newest.attempt if newest else int(reported.get("restartCount") or 0),
        "started": newest is not None and is_alive(newest) and newest.id in state.started,
        "lastState": {},
        "state": {},
    }
    if newest is not None:
        status["image"] = newest.image or status["image"]
        status["imageID"] = newest.image_id
        status["containerID"] = CONTAINER_ID_SCHEME + newest.id
        if is_alive(newest) and (resources := state.applied.get(newest.id)) is not None:
            status["resources"] = resources
            if requests := resources.get("requests"):
                status["allocatedResources"] = requests
    current, previous = _states(pod, container, state, runs, now)
    status["state"] = current
    if previous:
        status["lastState"] = previous
    return status


def is_ready(pod: Obj, container: Obj, state: PodState) -> bool:
    """Ready to serve; an ordinary init container is ready once it has completed."""
    run = state.newest(container["name"])
    if run is None or container in ephemeral_containers(pod):
        return False
    if container in init_containers(pod) and not is_sidecar(container):
        return run.state == "exited" and plan.exit_code(run) == 0 and run.created_at >= state.sandbox_since
    if not is_alive(run) or run.id not in state.started:
        return False
    return not container.get("readinessProbe") or run.id in state.ready


def _states(
    pod: Obj, container: Obj, state: PodState, runs: list[ContainerState], now: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(state, lastState)."""
    newest = runs[0] if runs else None
    older = _terminated(runs[1], state) if len(runs) > 1 else {}
    waiting = _waiting(pod, container, state, newest, now)
    if newest is None or newest.state == "created":
        return {"waiting": waiting or _default_waiting(pod)}, older
    if is_alive(newest):
        return {"running": {"startedAt": rfc3339(newest.started_at / 1e9)}}, older
    ended = _terminated(newest, state)
    if waiting is not None and not plan.is_terminal(pod, state) and state.deletion is None:
        return {"waiting": waiting}, ended
    return ended, older


def _default_waiting(pod: Obj) -> dict[str, str]:
    return {"reason": "PodInitializing" if init_containers(pod) else "ContainerCreating"}


def _waiting(
    pod: Obj, container: Obj, state: PodState, newest: ContainerState | None, now: float
) -> dict[str, str] | None:
    """What holds the container back from its next start, if something does."""
    name = container["name"]
    trouble = state.troubles.get(name)
    if trouble is not None and (trouble.retry_at > now or name not in state.images):
        return waiting_for(container, trouble, state, now)
    if newest is None or not has_ended(newest):
        return None
    ended = newest.finished_at / 1e9
    held = state.backoffs.get(name)
    if held is None or backoff.due_at(held, ended) <= now or not _is_wanted(pod, name, state):
        return None
    if newest.id in state.failed_starts and now < ended + SETTLING_SECONDS:
        return {"reason": "RunContainerError", "message": state.failed_starts[newest.id]}
    return {"reason": "CrashLoopBackOff", "message": crash_loop_message(pod, name, held.delay)}


def _is_wanted(pod: Obj, name: str, state: PodState) -> bool:
    return any(want.container["name"] == name for want in plan.wanted(pod, state))


def waiting_for(container: Obj, trouble: Trouble, state: PodState, now: float) -> dict[str, str]:
    """A pull failure shows its own reason first, then that the next try waits."""
    if trouble.reason == "ErrImagePull" and now >= trouble.since + SETTLING_SECONDS:
        return {
            "reason": "ImagePullBackOff",
            "message": f'Back-off pulling image "{container.get("image")}": ErrImagePull: {trouble.message}',
        }
    return {"reason": trouble.reason, "message": trouble.message}


def crash_loop_message(pod: Obj, name: str, delay: float) -> str:
    return f"back-off {backoff.format_delay(delay)} restarting failed container={name} pod={pod_label(pod)}"


def _terminated(run: ContainerState, state: PodState) -> dict[str, Any]:
    if not has_ended(run):
        return {}
    code = plan.exit_code(run)
    entry: dict[str, Any] = {
        "exitCode": code,
        "reason": _reason(run, state, code),
        "containerID": CONTAINER_ID_SCHEME + run.id,
        "startedAt": rfc3339(run.started_at / 1e9) if run.started_at else None,
        "finishedAt": rfc3339(run.finished_at / 1e9) if run.finished_at else None,
    }
    message = state.failed_starts.get(run.id) or state.messages.get(run.id)
    if run.state == "unknown":
        message = message or LOST_MESSAGE
    if message:
        entry["message"] = message
    return {"terminated": entry}


def _reason(run: ContainerState, state: PodState, code: int) -> str:
    if run.state == "unknown":
        return "ContainerStatusUnknown"
    if run.id in state.failed_starts:
        return "StartError"
    if run.oom_killed:
        return "OOMKilled"
    return "Error" if code else "Completed"
