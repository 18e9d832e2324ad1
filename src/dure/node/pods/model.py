"""What a node knows of one pod beyond its object, and the steps it may take for it.

The worker writes `PodState`; `plan` and `status` only read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dure.core.json import Obj
from dure.node.ports import ContainerState, Image

SETTLING_SECONDS = 2.0
"""How long a failure is shown by its own reason before the reason says that the next try waits."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential waiting: `delay` seconds, last grown at `updated_at`."""

    delay: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a container or sandbox cannot be started; tried again at `retry_at` (seconds since the epoch)."""

    reason: str
    message: str
    since: float
    retry_at: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The node failed the pod: phase Failed with this reason."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """The pod is to end: `deadline` is when what still runs is killed, in seconds since the epoch."""

    since: float
    deadline: float


@dataclass(frozen=True, slots=True)
class PrepareVolumes:
    key: str = "volumes"


@dataclass(frozen=True, slots=True)
class PrepareSandbox:
    key: str = "sandbox"


@dataclass(frozen=True, slots=True)
class PullImage:
    container: str

    @property
    def key(self) -> str:
        return f"image:{self.container}"


@dataclass(frozen=True, slots=True)
class StartContainer:
    container: str
    attempt: int
    backoff: Backoff | None = None
    """What the container's back-off becomes with this start."""
    key: str = "start"


@dataclass(frozen=True, slots=True)
class StopContainer:
    """`deadline` is in seconds since the epoch; the preStop hook runs first when `hook`."""

    id: str
    container: str
    deadline: float
    message: str
    hook: bool = True

    @property
    def key(self) -> str:
        return f"stop:{self.id}"


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    id: str

    @property
    def key(self) -> str:
        return f"remove:{self.id}"


@dataclass(frozen=True, slots=True)
class ResizeContainer:
    """The live container gets the limits its spec now has."""

    id: str
    container: str

    @property
    def key(self) -> str:
        return f"resize:{self.id}"


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give up the operation of that key."""

    key: str


@dataclass(frozen=True, slots=True)
class FailPod:
    verdict: Verdict
    key: str = "fail"


@dataclass(frozen=True, slots=True)
class TearDown:
    """Drop sandbox, network and volumes; every container has ended."""

    key: str = "teardown"


@dataclass(frozen=True, slots=True)
class Forget:
    """The last step: finish the deletion in the API and drop what is left on disk."""

    key: str = "forget"


Step = (
    PrepareVolumes
    | PrepareSandbox
    | PullImage
    | StartContainer
    | StopContainer
    | RemoveContainer
    | ResizeContainer
    | Cancel
    | FailPod
    | TearDown
    | Forget
)


@dataclass(slots=True)
class PodState:
    """Everything by container name unless said otherwise."""

    containers: dict[str, ContainerState] = field(default_factory=dict)
    """By container id: the last run of each name and the one before, as the runtime (or after a loss the API) has."""
    sandbox_ready: bool = False
    sandbox_since: int = 0
    """Nanoseconds since the epoch; init containers made before it must run again. 0 when adopted."""
    volumes_ready: bool = False
    ip: str = ""
    sandbox_trouble: Trouble | None = None
    volume_trouble: Trouble | None = None
    images: dict[str, Image] = field(default_factory=dict)
    """Ready for the next start."""
    troubles: dict[str, Trouble] = field(default_factory=dict)
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    pull_backoffs: dict[str, Backoff] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)
    """Ids whose startup probe (if any) has passed and whose postStart hook is done."""
    ready: set[str] = field(default_factory=set)
    """Ids whose readiness probe says yes."""
    unhealthy: dict[str, str] = field(default_factory=dict)
    """Ids to be killed, by which probe failed: `liveness` or `startup`."""
    failed_starts: dict[str, str] = field(default_factory=dict)
    """Ids the runtime could not start, with its message."""
    messages: dict[str, str] = field(default_factory=dict)
    """Termination messages by id."""
    applied: dict[str, Obj] = field(default_factory=dict)
    """Container resources in force, by id."""
    busy: dict[str, Step] = field(default_factory=dict)
    """Operations under way, by key."""
    verdict: Verdict | None = None
    deletion: Deletion | None = None
    torn_down: bool = False
    forgotten: bool = False

    def of(self, name: str) -> list[ContainerState]:
        """The container's runs, newest first."""
        runs = [run for run in self.containers.values() if run.name == name]
        return sorted(runs, key=lambda run: (run.attempt, run.created_at), reverse=True)

    def newest(self, name: str) -> ContainerState | None:
        runs = self.of(name)
        return runs[0] if runs else None

    def running(self) -> list[ContainerState]:
        return [run for run in self.containers.values() if is_alive(run)]


def is_alive(run: ContainerState | None) -> bool:
    return run is not None and run.state == "running"


def has_ended(run: ContainerState | None) -> bool:
    return run is not None and run.state in ("exited", "unknown")


def is_sidecar(container: Obj) -> bool:
    """A restartable init container."""
    return container.get("restartPolicy") == "Always"


def init_containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("initContainers") or []


def main_containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("containers") or []


def ephemeral_containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("ephemeralContainers") or []


def all_containers(pod: Obj) -> Iterator[Obj]:
    yield from init_containers(pod)
    yield from main_containers(pod)
    yield from ephemeral_containers(pod)


def container_named(pod: Obj, name: str) -> Obj | None:
    return next((item for item in all_containers(pod) if item["name"] == name), None)


def restart_policy(pod: Obj) -> str:
    return pod["spec"].get("restartPolicy") or "Always"


def pod_phase(pod: Obj) -> str:
    return (pod.get("status") or {}).get("phase") or ""


def reported_statuses(pod: Obj) -> Iterator[Any]:
    """Every container status the API has of the pod."""
    status = pod.get("status") or {}
    for field_name in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        yield from status.get(field_name) or []


def pod_label(pod: Obj) -> str:
    """`name_namespace(uid)`, as messages name a pod."""
    meta = pod["metadata"]
    return f"{meta['name']}_{meta.get('namespace', '')}({meta.get('uid', '')})"
