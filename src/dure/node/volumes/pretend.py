"""Volumes of a node that only pretends to run pods: nothing is made, nothing is mounted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dure.core.json import Obj
from dure.node.pods.ports import PodVolumes, TaskStarter
from dure.node.ports import Mount


@dataclass(frozen=True, slots=True)
class PretendVolumes:
    """See `dure.node.pods.ports.Volumes`."""

    def of(self, pod: Callable[[], Obj], tasks: TaskStarter, changed: Callable[[], None]) -> PodVolumes:
        return PretendPodVolumes()

    async def remove(self, pod_uid: str) -> None: ...


@dataclass(frozen=True, slots=True)
class PretendPodVolumes:
    """See `dure.node.pods.ports.PodVolumes`."""

    async def set_up(self) -> None: ...

    def mounts(self, container: Obj, expand: Callable[[str], str]) -> Sequence[Mount]:
        return ()

    def changed(self) -> None: ...

    async def tear_down(self) -> None: ...

    def close(self) -> None: ...
