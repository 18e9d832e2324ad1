"""The acts of a pod worker: each does one step of a plan against runtime, network, images and volumes.

Every act may be repeated; what it learns goes into `PodState`, where the next plan sees it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Literal

from dure.core.aio import finish
from dure.core.clock import Clock
from dure.core.errors import ApiError, DureError, NotFound
from dure.core.json import Obj
from dure.node.pods import backoff, etc_files, pulling
from dure.node.pods.contact import Contact
from dure.node.pods.container_files import ContainerFiles
from dure.node.pods.credentials import pull_credentials
from dure.node.pods.environment import ConfigFailure
from dure.node.pods.model import (
    PodState,
    PullImage,
    RemoveContainer,
    ResizeContainer,
    StartContainer,
    StopContainer,
    Trouble,
    all_containers,
    container_named,
    has_ended,
    is_alive,
)
from dure.node.pods.ports import NodeRooms, PodVolumes, VolumeFailure
from dure.node.pods.preparation import Preparation
from dure.node.pods.qos import qos_class
from dure.node.pods.resources import container_resources, pod_resources
from dure.node.ports import ContainerState, HostPort, ImageFailure, RuntimeFailure, SandboxSpec
from dure.node.references import References

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
"""Failures that nothing will announce the end of are tried again at kubelet's pace."""

MIN_STOP_SECONDS = 2.0
"""kubelet's least time between the stop signal and the kill."""

START_LIMIT_SECONDS = 120.0

CLOCK_SLACK = 1_000_000
"""Nanoseconds by which the runtime's clock and ours may be read apart."""


class PodOperations:
    """For one pod. `pod` is replaced by the worker whenever its object changes."""

    def __init__(
        self, rooms: NodeRooms, pod: Obj, state: PodState, volumes: PodVolumes, references: References
    ) -> None:
        self.pod = pod
        self._rooms = rooms
        self._state = state
        self._volumes = volumes
        self._references = references
        self.files = ContainerFiles.of(rooms.config, pod)
        self._ending: set[str] = set()
        """Ids whose end has been announced and whose preStop hook has had its turn."""
        self._preparation = Preparation(rooms, self.files, volumes, references)

    @property
    def _clock(self) -> Clock:
        return self._rooms.clock

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    @property
    def on_host_network(self) -> bool:
        return bool(self.pod["spec"].get("hostNetwork"))

    @property
    def contact(self) -> Contact:
        return Contact(self._rooms.network, self._rooms.runtime, self._state.ip)

    # --- sandbox and volumes ------------------------------------------------------------------

    async def prepare_volumes(self) -> None:
        try:
            await self._volumes.set_up()
        except (VolumeFailure, OSError) as error:
            self._state.volume_trouble = self._trouble("FailedMount", str(error))
            self.announce("Warning", "FailedMount", str(error))
            return
        self._state.volume_trouble = None
        self._state.volumes_ready = True

    async def prepare_sandbox(self) -> None:
        try:
            await self._make_sandbox()
        except (DureError, OSError) as error:
            message = f"Failed to create pod sandbox: {error}"
            self._state.sandbox_trouble = self._trouble("FailedCreatePodSandBox", message)
            self.announce("Warning", "FailedCreatePodSandBox", message)
            return
        self._state.sandbox_trouble = None
        self._state.sandbox_ready = True

    async def _make_sandbox(self) -> None:
        rooms, pod = self._rooms, self.pod
        began = int(self._clock.time() * 1e9)
        if self.on_host_network:
            netns, ip = rooms.network.host_netns, rooms.config.ip
        else:
            address = await rooms.network.attach(self.uid, host_ports=host_ports(pod))
            netns, ip = address.netns, address.ip
        await rooms.runtime.run_sandbox(self._sandbox_spec(netns))
        self._state.ip = ip
        self._state.sandbox_since = began - CLOCK_SLACK

    def _sandbox_spec(self, netns: str) -> SandboxSpec:
        pod, config = self.pod, self._rooms.config
        spec, meta = pod["spec"], pod["metadata"]
        sysctls = (spec.get("securityContext") or {}).get("sysctls") or []
        return SandboxSpec(
            pod_uid=self.uid,
            namespace=meta.get("namespace", ""),
            name=meta["name"],
            node=config.name,
            hostname=config.name if self.on_host_network else etc_files.uts_hostname(pod, config.cluster_domain),
            netns=netns,
            cgroup=config.cgroup(qos_class(pod), self.uid),
            resources=pod_resources(pod),
            share_pid=bool(spec.get("shareProcessNamespace")),
            host_pid=bool(spec.get("hostPID")),
            host_ipc=bool(spec.get("hostIPC")),
            host_network=self.on_host_network,
            sysctls={entry["name"]: str(entry.get("value", "")) for entry in sysctls},
        )

    # --- images -------------------------------------------------------------------------------

    async def pull_image(self, step: PullImage) -> None:
        container = self._container(step.container)
        state, now = self._state, self._clock.time()

        def announce(kind: str, reason: str, message: str) -> None:
            self.announce("Warning" if kind == "Warning" else "Normal", reason, message, container)

        try:
            credentials = await pull_credentials(self.pod, self._references)
            image = await pulling.obtain(self._rooms.images, container, credentials, announce, self._clock)
        except ImageFailure as error:
            now = self._clock.time()
            held = backoff.grown(state.pull_backoffs.get(step.container), now, now)
            state.pull_backoffs[step.container] = held
            state.troubles[step.container] = Trouble(error.reason, str(error), now, now + held.delay)
            return
        state.pull_backoffs.pop(step.container, None)
        state.troubles.pop(step.container, None)
        state.images[step.container] = image

    # --- starting -----------------------------------------------------------------------------

    async def start_container(self, step: StartContainer) -> None:
        container = self._container(step.container)
        if step.backoff is not None:
            self._state.backoffs[step.container] = step.backoff
        started = await finish(self._create_and_start(container, step.attempt), within=START_LIMIT_SECONDS)
        if started is None:
            return
        hook = ((container.get("lifecycle") or {}).get("postStart")) or None
        if hook and not await self._run_post_start(hook, container, started):
            return
        if not container.get("startupProbe"):
            self._state.started.add(started)

    async def _create_and_start(self, container: Obj, attempt: int) -> str | None:
        """The id of what now runs, or None after noting why it does not."""
        name, state, rooms = container["name"], self._state, self._rooms
        image = state.images.pop(name)
        for stale in [run for run in state.of(name) if run.state == "created"]:
            await self.remove_container(RemoveContainer(stale.id))
        run_id = secrets.token_hex(32)
        try:
            spec = await self._preparation.container_spec(self.pod, container, attempt, run_id, image, state)
            await rooms.runtime.create(spec)
        except (DureError, OSError) as error:
            await rooms.images.unmount(run_id)
            configured = not isinstance(error, ConfigFailure | VolumeFailure)
            reason = "CreateContainerError" if configured else "CreateContainerConfigError"
            state.troubles[name] = self._trouble(reason, str(error))
            self.announce("Warning", "Failed", f"Error: {error}", container)
            return None
        self.announce("Normal", "Created", f"Created container: {name}", container)
        state.troubles.pop(name, None)
        state.applied[run_id] = container.get("resources") or {}
        now = int(self._clock.time() * 1e9)
        made = ContainerState(
            run_id,
            self.uid,
            name,
            attempt,
            spec.image,
            spec.image_id,
            "created",
            created_at=now,
            log_path=spec.log_path,
        )
        self.observe(made)
        return await self._start(container, made)

    async def _start(self, container: Obj, made: ContainerState) -> str | None:
        try:
            await self._rooms.runtime.start(made.id)
        except RuntimeFailure as error:
            now = int(self._clock.time() * 1e9)
            self._state.failed_starts[made.id] = str(error)
            self._state.containers[made.id] = replace(made, state="exited", exit_code=128, finished_at=now)
            self.announce("Warning", "Failed", f"Error: {error}", container)
            return None
        self.observe(replace(made, state="running", started_at=int(self._clock.time() * 1e9)))
        self.announce("Normal", "Started", f"Started container {made.name}", container)
        return made.id

    def observe(self, run: ContainerState) -> bool:
        """Take what the runtime says, unless something later is known already. True when it is news."""
        known = self._state.containers.get(run.id)
        if known is not None and (_RANK[known.state] > _RANK[run.state] or known == run):
            return False
        if known is not None and known.state == run.state == "running":
            return False
        self._state.containers[run.id] = run
        return True

    async def _run_post_start(self, hook: Obj, container: Obj, run_id: str) -> bool:
        outcome = await self.contact.perform(hook, container, run_id, START_LIMIT_SECONDS)
        if outcome.ok:
            return True
        self.announce("Warning", "FailedPostStartHook", f"PostStartHook failed: {outcome.message}", container)
        await self._rooms.runtime.stop(run_id, grace_seconds=MIN_STOP_SECONDS)
        self._state.troubles[container["name"]] = self._trouble("PostStartHookError", outcome.message)
        return False

    # --- stopping -----------------------------------------------------------------------------

    async def stop_container(self, step: StopContainer) -> None:
        container = container_named(self.pod, step.container) or {"name": step.container}
        if step.hook and step.id not in self._ending:
            self._ending.add(step.id)
            self.announce("Normal", "Killing", step.message, container)
            await self._run_pre_stop(container, step)
        left = max(MIN_STOP_SECONDS, step.deadline - self._clock.time())
        signal = (container.get("lifecycle") or {}).get("stopSignal") or self._stop_signal(step.id)
        await self._rooms.runtime.stop(step.id, grace_seconds=left, signal=signal)
        await self._wait_ended(step.id)

    async def _run_pre_stop(self, container: Obj, step: StopContainer) -> None:
        hook = (container.get("lifecycle") or {}).get("preStop")
        left = step.deadline - self._clock.time()
        if not hook or left <= 0:
            return
        outcome = await self.contact.perform(hook, container, step.id, left)
        if not outcome.ok:
            self.announce("Warning", "FailedPreStopHook", f"PreStopHook failed: {outcome.message}", container)

    def _stop_signal(self, run_id: str) -> str:
        return self._preparation.stop_signals.get(run_id, "SIGTERM")

    async def _wait_ended(self, run_id: str) -> None:
        """The runtime has stopped it; if its event is not here yet, ask."""
        if has_ended(self._state.containers.get(run_id)):
            return
        for run in await self._rooms.runtime.containers():
            if run.id == run_id:
                self.observe(run)
        known = self._state.containers.get(run_id)
        if is_alive(known) and known is not None:
            self.observe(replace(known, state="unknown", finished_at=int(self._clock.time() * 1e9)))

    async def remove_container(self, step: RemoveContainer) -> None:
        run = self._state.containers.get(step.id)
        await self._rooms.runtime.remove(step.id)
        await self._rooms.images.unmount(step.id)
        if run is not None:
            self.files.remove_message(run.name, run.attempt)
        state = self._state
        state.containers.pop(step.id, None)
        for known in (state.messages, state.failed_starts, state.applied, state.unhealthy):
            known.pop(step.id, None)
        state.started.discard(step.id)
        self._ending.discard(step.id)
        state.ready.discard(step.id)

    async def resize_container(self, step: ResizeContainer) -> None:
        container = self._container(step.container)
        resources = container_resources(self.pod, container, self._rooms.config.memory_bytes)
        await self._rooms.runtime.update(step.id, resources)
        self._state.applied[step.id] = container.get("resources") or {}

    # --- the end ------------------------------------------------------------------------------

    async def tear_down(self, wait_written: Callable[[], Awaitable[None]]) -> None:
        """Drop everything but the logs. Containers are forgotten once their end has been reported."""
        rooms = self._rooms
        await rooms.runtime.stop_sandbox(self.uid)
        self._state.sandbox_ready = False
        if not self.on_host_network:
            await rooms.network.detach(self.uid)
        await self._volumes.tear_down()
        await wait_written()
        for run_id in list(self._state.containers):
            await rooms.runtime.remove(run_id)
            await rooms.images.unmount(run_id)
        self._state.volumes_ready = False
        self._state.torn_down = True

    async def forget(self, *, gone: bool) -> None:
        """Finish the deletion in the API; then the logs go."""
        await asyncio.to_thread(self.files.remove)
        if not gone:
            meta = self.pod["metadata"]
            try:
                await self._rooms.client.delete(
                    "pods", meta["name"], meta.get("namespace", ""), grace_seconds=0, uid=self.uid
                )
            except NotFound:
                log.debug("pod was gone already", extra={"pod": meta["name"]})
            except ApiError as error:
                if error.code != 409:  # a conflict: the name belongs to another pod by now
                    raise
        await asyncio.to_thread(self.files.remove_logs)
        self._state.forgotten = True

    # --- small things -------------------------------------------------------------------------

    def announce(
        self, kind: Literal["Normal", "Warning"], reason: str, message: str, container: Obj | None = None
    ) -> None:
        self._rooms.events.emit(self.pod, kind, reason, message, field_path_of(self.pod, container))

    def note_failure(self, container: str) -> None:
        """A start or pull broke off for a reason already logged; the plan tries again later."""
        self._state.troubles[container] = self._trouble("CreateContainerError", "the node failed, see its log")

    def _container(self, name: str) -> Obj:
        found = container_named(self.pod, name)
        if found is None:
            raise KeyError(name)
        return found

    def _trouble(self, reason: str, message: str) -> Trouble:
        now = self._clock.time()
        return Trouble(reason, message, now, now + RETRY_SECONDS)


_RANK = {"created": 0, "running": 1, "unknown": 2, "exited": 3}


def host_ports(pod: Obj) -> list[HostPort]:
    return [
        HostPort(
            int(port["hostPort"]), int(port["containerPort"]), port.get("protocol") or "TCP", port.get("hostIP") or ""
        )
        for container in all_containers(pod)
        for port in container.get("ports") or []
        if port.get("hostPort")
    ]


def field_path_of(pod: Obj, container: Obj | None) -> str:
    if container is None:
        return ""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        if any(item["name"] == container["name"] for item in pod["spec"].get(field) or []):
            return f"spec.{field}{{{container['name']}}}"
    return ""
