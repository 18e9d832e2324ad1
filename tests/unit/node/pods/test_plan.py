"""Single decisions of `plan` and `status`, by plain calls."""

from __future__ import annotations

from typing import Any

from dure.node.pods import backoff
from dure.node.pods.model import (
    Backoff,
    Cancel,
    Deletion,
    Forget,
    PodState,
    PrepareSandbox,
    PrepareVolumes,
    PullImage,
    ResizeContainer,
    StartContainer,
    StopContainer,
    TearDown,
)
from dure.node.pods.plan import plan
from dure.node.pods.status import pod_status
from dure.node.pods.status_writer import status_changes
from dure.node.ports import ContainerState, Image
from tests.support.node import pod_of

NOW = 1_700_000_000.0
IMAGE = Image("sha256:1", "app:1")


def run(name: str = "app", state: Any = "running", attempt: int = 0, **more: Any) -> ContainerState:
    times = {"created_at": int(NOW * 1e9), "started_at": int(NOW * 1e9), "finished_at": int(NOW * 1e9)}
    run_id = more.pop("id", f"{name}-{attempt}")
    return ContainerState(run_id, "u", name, attempt, "app:1", "sha256:1", state, **{**times, **more})


def state_of(*runs: ContainerState, **more: Any) -> PodState:
    started = {item.id for item in runs if item.state == "running"}
    ready: dict[str, Any] = {"sandbox_ready": True, "volumes_ready": True, "started": started}
    return PodState(containers={item.id: item for item in runs}, **{**ready, **more})


def pod(**spec: Any) -> dict[str, Any]:
    made = pod_of(**spec)
    made["metadata"]["uid"] = "u"
    return made


def test_everything_a_new_pod_needs_begins_at_once() -> None:
    steps = plan(pod(), PodState(), NOW).steps
    assert steps == [PrepareVolumes(), PrepareSandbox(), PullImage("app")]


def test_a_container_starts_when_all_is_there() -> None:
    assert plan(pod(), state_of(images={"app": IMAGE}), NOW).steps == [StartContainer("app", 0)]


def test_nothing_is_done_twice() -> None:
    busy = {"start": StartContainer("app", 0)}
    assert plan(pod(), state_of(run(state="created"), busy=busy), NOW).steps == []


def test_a_running_pod_needs_nothing_and_wakes_nobody() -> None:
    decided = plan(pod(), state_of(run()), NOW)
    assert (decided.steps, decided.wake_at) == ([], None)


def test_a_slow_pull_holds_back_later_containers() -> None:
    spec = pod(containers=[{"name": "a", "image": "a"}, {"name": "b", "image": "b"}])
    state = state_of(images={"b": IMAGE}, busy={"image:a": PullImage("a")})
    assert plan(spec, state, NOW).steps == []


def test_the_first_restart_is_at_once_the_second_waits() -> None:
    first = plan(pod(), state_of(run(state="exited", exit_code=1), images={"app": IMAGE}), NOW)
    assert first.steps == [StartContainer("app", 1, Backoff(10.0, NOW))]
    held = {"app": Backoff(10.0, NOW)}
    second = plan(pod(), state_of(run(state="exited", exit_code=1, attempt=1), backoffs=held), NOW)
    assert (second.steps, second.wake_at) == ([], NOW + 2)
    later = plan(pod(), state_of(run(state="exited", exit_code=1, attempt=1), backoffs=held), NOW + 3)
    assert later.wake_at == NOW + 10


def test_back_off_doubles_to_five_minutes_and_is_forgotten_after_ten() -> None:
    held = None
    delays = []
    for step in range(7):
        held = backoff.grown(held, NOW + step, NOW + step)
        delays.append(held.delay)
    assert delays == [10, 20, 40, 80, 160, 300, 300]
    assert backoff.due_at(held, NOW + 700) == NOW + 700
    assert backoff.grown(held, NOW + 700, NOW + 700).delay == 10


def test_deletion_cancels_what_begins_and_then_ends_everything() -> None:
    deletion = Deletion(NOW, NOW + 30)
    state = state_of(busy={"image:app": PullImage("app")}, deletion=deletion)
    assert plan(pod(), state, NOW).steps == [Cancel("image:app")]
    state = state_of(run(), deletion=deletion)
    assert plan(pod(), state, NOW).steps == [StopContainer("app-0", "app", NOW + 30, "Stopping container app")]
    assert plan(pod(), state_of(run(state="exited"), deletion=deletion), NOW).steps == [TearDown()]
    assert plan(pod(), state_of(deletion=deletion, torn_down=True), NOW).steps == [Forget()]


def test_changed_limits_are_applied_to_the_running_container() -> None:
    limits = {"limits": {"cpu": "1"}}
    spec = pod(containers=[{"name": "app", "image": "app:1", "resources": limits}])
    assert plan(spec, state_of(run(), applied={"app-0": {}}), NOW).steps == [ResizeContainer("app-0", "app")]
    assert plan(spec, state_of(run(), applied={"app-0": limits}), NOW).steps == []


def test_a_lost_start_is_made_again_with_its_number() -> None:
    state = state_of(run(state="created", attempt=2), images={"app": IMAGE})
    assert plan(pod(), state, NOW).steps == [StartContainer("app", 2)]


def test_status_of_a_running_pod() -> None:
    status = pod_status(pod(), state_of(run(), ip="10.244.1.2"), "10.243.0.11", NOW)
    stamp = "2023-11-14T22:13:20Z"
    ready = {"status": "True", "lastTransitionTime": stamp}
    assert status == {
        "phase": "Running",
        "qosClass": "BestEffort",
        "startTime": stamp,
        "hostIP": "10.243.0.11",
        "hostIPs": [{"ip": "10.243.0.11"}],
        "podIP": "10.244.1.2",
        "podIPs": [{"ip": "10.244.1.2"}],
        "containerStatuses": [
            {
                "name": "app",
                "image": "app:1",
                "imageID": "sha256:1",
                "containerID": "dure://app-0",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "lastState": {},
                "state": {"running": {"startedAt": stamp}},
            }
        ],
        "conditions": [
            {"type": kind, **ready}
            for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
        ],
    }


def test_conditions_of_others_are_kept() -> None:
    foreign = {"type": "example.org/gate", "status": "False"}
    made = {**pod(), "status": {"conditions": [foreign]}}
    assert foreign in pod_status(made, state_of(run()), "10.243.0.11", NOW)["conditions"]


def test_a_status_patch_names_only_what_changed() -> None:
    old = {"phase": "Pending", "reason": "x", "conditions": [{"type": "A", "status": "1"}], "podIPs": [{"ip": "1"}]}
    new = {"phase": "Pending", "conditions": [{"type": "A", "status": "2"}], "podIPs": [{"ip": "2"}]}
    assert status_changes(old, new) == {
        "reason": None,
        "conditions": [{"type": "A", "status": "2"}],
        "podIPs": [{"ip": "2"}, {"$patch": "replace"}],
    }


def test_a_condition_that_recovers_loses_its_reason() -> None:
    """A ready pod went on saying `containers with unready status`: the patch left out fields as they were."""
    old = {"conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "[c]"}]}
    new = {"conditions": [{"type": "Ready", "status": "True"}]}
    assert status_changes(old, new) == {
        "conditions": [{"type": "Ready", "status": "True", "reason": None, "message": None}]
    }
