"""Works out everything one container start needs: environment, user, mounts, files, limits."""

from __future__ import annotations

from collections.abc import Iterator

from dure.core.json import Obj
from dure.node.pods.accounts import Accounts, resolve_user
from dure.node.pods.container_files import ContainerFiles
from dure.node.pods.container_spec import Prepared, make_container_spec
from dure.node.pods.downward import Downward
from dure.node.pods.environment import Sources, expand, make_environment, referenced, service_environment
from dure.node.pods.model import PodState
from dure.node.pods.ports import NodeRooms, PodVolumes
from dure.node.pods.resources import container_resources
from dure.node.ports import ContainerSpec, Image, Mount
from dure.node.references import References


class Preparation:
    """For one pod. `stop_signals` remembers each started container's own signal by id."""

    def __init__(self, rooms: NodeRooms, files: ContainerFiles, volumes: PodVolumes, references: References) -> None:
        self._rooms = rooms
        self._files = files
        self._volumes = volumes
        self._references = references
        self.stop_signals: dict[str, str] = {}

    async def container_spec(
        self, pod: Obj, container: Obj, attempt: int, run_id: str, image: Image, state: PodState
    ) -> ContainerSpec:
        """Raises ConfigFailure, VolumeFailure, ImageFailure."""
        rooms, name = self._rooms, container["name"]
        sources = await self._sources(pod, container)
        rootfs = await rooms.images.mount(image, run_id)
        downward = Downward.on_node(rooms.config, pod, state.ip)
        services = service_environment(pod, rooms.services(pod["metadata"].get("namespace", "")))
        environment = make_environment(container, sources, downward, services, image.env)
        user = resolve_user(pod, container, image.user, Accounts.of_rootfs(rootfs) if rootfs else Accounts())
        self._files.prepare(name, attempt)
        mounts = [
            *self._volumes.mounts(container, lambda text: expand(text, environment)),
            *self._files.mounts(pod, container, attempt, state.ip),
        ]
        self.stop_signals[run_id] = image.stop_signal or "SIGTERM"
        prepared = Prepared(
            id=run_id,
            attempt=attempt,
            rootfs=rootfs,
            log_path=str(self._files.log_path(name, attempt)),
            environment=environment,
            user=user,
            mounts=list(_without_doubles(mounts)),
            resources=container_resources(pod, container, rooms.config.memory_bytes),
            target_container=_target(container, state),
        )
        return make_container_spec(pod, container, image, prepared)

    async def _sources(self, pod: Obj, container: Obj) -> Sources:
        namespace = pod["metadata"].get("namespace", "")
        found: dict[str, dict[str, Obj]] = {"configmaps": {}, "secrets": {}}
        for resource, name in sorted(referenced(container)):
            obj = await self._references.get(resource, namespace, name)
            if obj is not None:
                found[resource][name] = obj
        return Sources(found["configmaps"], found["secrets"])


def _target(container: Obj, state: PodState) -> str:
    target = container.get("targetContainerName")
    run = state.newest(target) if target else None
    return run.id if run is not None else ""


def _without_doubles(mounts: list[Mount]) -> Iterator[Mount]:
    """The first to claim a target has it."""
    seen: set[str] = set()
    for mount in mounts:
        if mount.target not in seen:
            seen.add(mount.target)
            yield mount
