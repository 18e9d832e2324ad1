"""What pod workers need from the rest of the node; the agent passes these in."""

from __future__ import annotations

from asyncio import Task
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dure.client.client import Client
from dure.core.clock import Clock
from dure.core.errors import DureError
from dure.core.json import Obj
from dure.node.model import NodeConfig
from dure.node.ports import ImageService, Mount, PodNetwork, Runtime
from dure.node.references import ObjectCache


class VolumeFailure(DureError):
    """A volume cannot be set up now; the message is what the FailedMount event says."""


class PodVolumes(Protocol):
    """The volumes of one pod, from set-up to tear-down."""

    async def set_up(self) -> None:
        """Make everything and keep live contents current from then on. Safe to repeat. Raises VolumeFailure."""
        ...

    def mounts(self, container: Obj, expand: Callable[[str], str]) -> Sequence[Mount]:
        """The container's volumeMounts as bind mounts; `expand` resolves subPathExpr. Raises VolumeFailure."""
        ...

    def changed(self) -> None:
        """The pod's object has changed."""
        ...

    async def tear_down(self) -> None:
        """Unmount and remove everything. Safe to repeat, also after a restart of the agent."""
        ...

    def close(self) -> None:
        """Stop keeping contents current; nothing on disk changes."""
        ...


class Volumes(Protocol):
    def of(self, pod: Callable[[], Obj], tasks: TaskStarter, changed: Callable[[], None]) -> PodVolumes:
        """The volumes of a pod; `pod` gives its newest object, `changed` is called when a source has changed."""
        ...

    async def remove(self, pod_uid: str) -> None:
        """Whatever is left of a pod nobody knows any more."""
        ...


class TaskStarter(Protocol):
    """Where a helper's tasks are born: the worker's own group."""

    def create_task(self, coro: Coroutine[Any, Any, None], /) -> Task[None]: ...


class Events(Protocol):
    """Tells the user; never waits."""

    def emit(
        self, obj: Obj, kind: Literal["Normal", "Warning"], reason: str, message: str, field_path: str = ""
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class NodeRooms:
    """Everything the pod workers of one node share."""

    config: NodeConfig
    client: Client
    runtime: Runtime
    network: PodNetwork
    images: ImageService
    volumes: Volumes
    objects: ObjectCache
    services: Callable[[str], Sequence[Obj]]
    """The services a pod of that namespace sees in its environment."""
    events: Events
    clock: Clock
