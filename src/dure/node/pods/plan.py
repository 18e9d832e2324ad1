"""Decides what a node does next for a pod: (object, what is known, now) → steps and when to look again. Pure.

Follows kubelet's `computePodActions`: init containers in order, restartable ones (sidecars) started in their turn and
kept up, main containers started in order, each after the postStart hook of the one before; then restarts by policy
with back-off, the active deadline, and the end: main containers first, sidecars in reverse order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dure.core.clock import parse_rfc3339
from dure.core.json import Obj
from dure.node.pods import backoff
from dure.node.pods.model import (
    SETTLING_SECONDS,
    Backoff,
    Cancel,
    FailPod,
    Forget,
    PodState,
    PrepareSandbox,
    PrepareVolumes,
    PullImage,
    RemoveContainer,
    ResizeContainer,
    StartContainer,
    Step,
    StopContainer,
    TearDown,
    Verdict,
    all_containers,
    ephemeral_containers,
    has_ended,
    init_containers,
    is_alive,
    is_sidecar,
    main_containers,
    pod_phase,
    reported_statuses,
    restart_policy,
)
from dure.node.ports import ContainerState

DEADLINE_EXCEEDED = Verdict("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
DEFAULT_GRACE_SECONDS = 30.0


@dataclass(slots=True)
class Plan:
    """Steps to take now, and the time (seconds since the epoch) at which to plan again even if nothing happens."""

    steps: list[Step] = field(default_factory=list)
    wake_at: float | None = None

    def wake(self, when: float) -> None:
        self.wake_at = when if self.wake_at is None else min(self.wake_at, when)


@dataclass(frozen=True, slots=True)
class Want:
    """A container that should be started, not before `due`."""

    container: Obj
    attempt: int
    due: float = 0.0
    backoff: Backoff | None = None


def plan(pod: Obj, state: PodState, now: float) -> Plan:
    """What to do now. Steps already under way are not repeated."""
    result = Plan()
    if state.deletion is not None or is_terminal(pod, state):
        _plan_end(pod, state, now, result)
        return result
    if _is_past_deadline(pod, now, result):
        result.steps.append(FailPod(DEADLINE_EXCEEDED))
        return result
    if not state.volumes_ready:
        _prepare(PrepareVolumes(), state.volume_trouble, state, now, result)
    if not state.sandbox_ready:
        _prepare(PrepareSandbox(), state.sandbox_trouble, state, now, result)
    _plan_kills(pod, state, now, result)
    _plan_starts(wanted(pod, state), state, now, result)
    _plan_resizes(pod, state, result)
    _plan_removals(pod, state, result)
    return result


def is_terminal(pod: Obj, state: PodState) -> bool:
    """The pod has run its course: nothing of it will be started again."""
    return state.verdict is not None or pod_phase(pod) in ("Succeeded", "Failed") or has_finished(pod, state)


def has_finished(pod: Obj, state: PodState) -> bool:
    """Every main container has ended for good, or an init container failed for good."""
    if failed_init(pod, state):
        return True
    for container in main_containers(pod):
        run = state.newest(container["name"])
        if run is None or not has_ended(run) or _restarts(restart_policy(pod), run):
            return False
    return True


def failed_init(pod: Obj, state: PodState) -> bool:
    """An init container failed and the pod's policy gives it no second try."""
    if restart_policy(pod) != "Never":
        return False
    for container in init_containers(pod):
        run = _current(container, state)
        if run is not None and not is_sidecar(container) and has_ended(run) and exit_code(run) != 0:
            return True
    return False


def is_initialized(pod: Obj, state: PodState) -> bool:
    """All init containers have completed, or (sidecars) have started."""
    if _any_main_made(pod, state):
        return True
    return all(_is_init_done(container, state) for container in init_containers(pod))


def exit_code(run: ContainerState) -> int:
    """What the container ended with; one whose end nobody saw counts as killed."""
    if run.state == "unknown":
        return 137
    return run.exit_code if run.exit_code else (128 + run.signal if run.signal else 0)


def _restarts(policy: str, run: ContainerState) -> bool:
    return policy == "Always" or (policy == "OnFailure" and exit_code(run) != 0)


def _any_main_made(pod: Obj, state: PodState) -> bool:
    runs = (state.newest(container["name"]) for container in main_containers(pod))
    return any(run is not None and run.created_at >= state.sandbox_since for run in runs)


def _current(container: Obj, state: PodState) -> ContainerState | None:
    """The newest run of an init container within the present sandbox."""
    run = state.newest(container["name"])
    return run if run is not None and run.created_at >= state.sandbox_since else None


def _is_init_done(container: Obj, state: PodState) -> bool:
    run = _current(container, state)
    if run is None:
        return False
    if is_sidecar(container):
        return run.id in state.started
    return run.state == "exited" and exit_code(run) == 0


# --- what should run -------------------------------------------------------------------------


def wanted(pod: Obj, state: PodState) -> list[Want]:
    """The containers to be started, in order; those that wait for a back-off among them."""
    policy = restart_policy(pod)
    wants = _wanted_init(pod, state)
    if is_initialized(pod, state):
        for container in main_containers(pod):
            want = _want(pod, container, state, policy)
            if want is not None:
                wants.append(want)
    for container in ephemeral_containers(pod):
        if state.newest(container["name"]) is None:
            wants.append(Want(container, 0))
    return wants


def _wanted_init(pod: Obj, state: PodState) -> list[Want]:
    containers = init_containers(pod)
    reached = _reached_init(pod, state)
    wants: list[Want] = []
    for index, container in enumerate(containers):
        if is_sidecar(container):
            if index <= reached and (want := _want(pod, container, state, "Always")):
                wants.append(want)
        elif index == reached and (want := _want(pod, container, state, _init_policy(pod))):
            wants.append(want)
    return wants


def _init_policy(pod: Obj) -> str:
    """Init containers run to success: even under Always they are not run again after it."""
    return "Never" if restart_policy(pod) == "Never" else "OnFailure"


def _reached_init(pod: Obj, state: PodState) -> int:
    """The index of the init container whose turn it is; past the end once all are done."""
    containers = init_containers(pod)
    if _any_main_made(pod, state):
        return len(containers)
    made = [index for index, container in enumerate(containers) if _current(container, state) is not None]
    if not made:
        return 0
    last = made[-1]
    return last + 1 if _is_init_done(containers[last], state) else last


def _want(pod: Obj, container: Obj, state: PodState, policy: str) -> Want | None:
    name = container["name"]
    run = state.newest(name)
    if run is None:
        return Want(container, next_attempt(pod, state, name))
    if is_alive(run) or (run.state == "created" and "start" in state.busy):
        return None
    if run.state == "created":
        return Want(container, run.attempt)
    stale = container in init_containers(pod) and run.created_at < state.sandbox_since
    if not stale and not _restarts(policy, run):
        return None
    ended = run.finished_at / 1e9
    held = state.backoffs.get(name)
    return Want(container, run.attempt + 1, backoff.due_at(held, ended), held)


def next_attempt(pod: Obj, state: PodState, name: str) -> int:
    """The number of the next run: one more than the last that anybody knows of."""
    run = state.newest(name)
    if run is not None:
        return run.attempt + 1
    for reported in reported_statuses(pod):
        if reported.get("name") == name and reported.get("containerID"):
            return int(reported.get("restartCount") or 0) + 1
    return 0


# --- steps -----------------------------------------------------------------------------------


def _prepare(step: Step, trouble: object, state: PodState, now: float, result: Plan) -> None:
    retry_at = getattr(trouble, "retry_at", 0.0)
    if step.key in state.busy:
        return
    if retry_at > now:
        result.wake(retry_at)
    else:
        result.steps.append(step)


def _plan_starts(wants: list[Want], state: PodState, now: float, result: Plan) -> None:
    blocked = "start" in state.busy or not (state.sandbox_ready and state.volumes_ready)
    for want in wants:
        name = want.container["name"]
        due = max(want.due, trouble.retry_at if (trouble := state.troubles.get(name)) else 0.0)
        if due > now:
            result.wake(due)
            if (settled := _settled_at(name, state)) > now:
                result.wake(settled)
            continue
        if name not in state.images:
            if f"image:{name}" not in state.busy:
                result.steps.append(PullImage(name))
            blocked = True
        elif not blocked:
            result.steps.append(StartContainer(name, want.attempt, _next_backoff(want, state, now)))
            blocked = True


def _settled_at(name: str, state: PodState) -> float:
    """When the last failure stops being shown by its own reason."""
    trouble, run = state.troubles.get(name), state.newest(name)
    since = trouble.since if trouble is not None else (run.finished_at / 1e9 if run is not None else 0.0)
    return since + SETTLING_SECONDS


def _next_backoff(want: Want, state: PodState, now: float) -> Backoff | None:
    run = state.newest(want.container["name"])
    if run is None or not has_ended(run):
        return want.backoff
    return backoff.grown(want.backoff, run.finished_at / 1e9, now)


def _plan_kills(pod: Obj, state: PodState, now: float, result: Plan) -> None:
    for run in state.running():
        probe = state.unhealthy.get(run.id)
        if probe is None or f"stop:{run.id}" in state.busy:
            continue
        container = next((item for item in all_containers(pod) if item["name"] == run.name), {})
        grace = (container.get(f"{probe}Probe") or {}).get("terminationGracePeriodSeconds")
        message = f"Container {run.name} failed {probe} probe, will be restarted"
        deadline = now + (float(grace) if grace is not None else pod_grace(pod))
        result.steps.append(StopContainer(run.id, run.name, deadline, message))


def pod_grace(pod: Obj) -> float:
    grace = pod["spec"].get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE_SECONDS if grace is None else float(grace)


def _plan_resizes(pod: Obj, state: PodState, result: Plan) -> None:
    for container in main_containers(pod):
        run = state.newest(container["name"])
        if run is None or not is_alive(run) or f"resize:{run.id}" in state.busy:
            continue
        applied = state.applied.get(run.id)
        if applied is not None and applied != (container.get("resources") or {}):
            result.steps.append(ResizeContainer(run.id, run.name))


def _plan_removals(pod: Obj, state: PodState, result: Plan) -> None:
    """One ended run of each container is kept for `lastState` and `logs --previous`."""
    for container in all_containers(pod):
        for run in state.of(container["name"])[2:]:
            if not is_alive(run) and f"remove:{run.id}" not in state.busy:
                result.steps.append(RemoveContainer(run.id))


def _is_past_deadline(pod: Obj, now: float, result: Plan) -> bool:
    seconds = pod["spec"].get("activeDeadlineSeconds")
    start = (pod.get("status") or {}).get("startTime")
    if seconds is None or not start:
        return False
    deadline = parse_rfc3339(start) + float(seconds)
    if now >= deadline:
        return True
    result.wake(deadline)
    return False


# --- the end ---------------------------------------------------------------------------------


def _plan_end(pod: Obj, state: PodState, now: float, result: Plan) -> None:
    beginnings = [key for key in state.busy if key in ("start", "sandbox", "volumes") or key.startswith("image:")]
    result.steps.extend(Cancel(key) for key in beginnings)
    deadline = state.deletion.deadline if state.deletion is not None else now + pod_grace(pod)
    _plan_stops(pod, state, deadline, result)
    if state.running() or beginnings or any(key.startswith("stop:") for key in state.busy):
        return
    if not state.torn_down:
        if "teardown" not in state.busy:
            result.steps.append(TearDown())
    elif state.deletion is not None and not state.forgotten and "forget" not in state.busy:
        result.steps.append(Forget())


def _plan_stops(pod: Obj, state: PodState, deadline: float, result: Plan) -> None:
    sidecars = [container["name"] for container in init_containers(pod) if is_sidecar(container)]
    running = state.running()
    first = [run for run in running if run.name not in sidecars]
    if not first:
        order = {name: index for index, name in enumerate(sidecars)}
        first = sorted(running, key=lambda run: order[run.name])[-1:]
    for run in first:
        under_way = state.busy.get(f"stop:{run.id}")
        message = f"Stopping container {run.name}"
        if under_way is None:
            result.steps.append(StopContainer(run.id, run.name, deadline, message))
        elif isinstance(under_way, StopContainer) and state.deletion and under_way.deadline > deadline + 0.5:
            result.steps.append(StopContainer(run.id, run.name, deadline, message, hook=False))
