"""One pod's worker: waits for news, asks `plan` what to do, does it, and reports `status`; one task a pod.

News are a changed object, a container that changed state, a probe's verdict, a finished operation, a time that has
come. Operations run as tasks of their own, so that a slow pull never keeps a deletion waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from dure.api.meta import annotations_of, is_deleting, labels_of
from dure.core.errors import DureError
from dure.core.json import Obj
from dure.node.model import CONTAINER_ID_SCHEME
from dure.node.pods import plan, probes
from dure.node.pods.model import (
    Cancel,
    Deletion,
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
    all_containers,
    container_named,
    has_ended,
    init_containers,
    is_alive,
    is_sidecar,
    pod_phase,
    reported_statuses,
)
from dure.node.pods.operations import PodOperations
from dure.node.pods.ports import NodeRooms
from dure.node.pods.status import pod_status
from dure.node.pods.status_writer import StatusWriter
from dure.node.ports import ContainerState

log = logging.getLogger(__name__)

RETRY_SECONDS = (0.2, 1.0, 5.0, 15.0)
LEAST_SLEEP = 0.001


class PodWorker:
    """`run()` ends once the pod is deleted and nothing of it is left."""

    def __init__(self, rooms: NodeRooms, pod: Obj) -> None:
        self._rooms = rooms
        self._object = pod
        self._gone = False
        self._news = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._probes: dict[tuple[str, probes.ProbeKind], asyncio.Task[None]] = {}
        self._told_waiting: dict[str, str] = {}
        self.state = PodState()
        self.writer = StatusWriter(rooms.client, pod)
        self._references = rooms.objects.references(self._referenced_changed)
        self._volumes = rooms.volumes.of(lambda: self.pod, self._tasks, self._volumes_changed)
        self.operations = PodOperations(rooms, pod, self.state, self._volumes, self._references)
        self._note_deletion()

    @property
    def pod(self) -> Obj:
        """The newest object, with the newest status we know."""
        return {**self._object, "status": self.writer.current}

    @property
    def is_gone(self) -> bool:
        """The object is no longer in the API."""
        return self._gone

    # --- news ---------------------------------------------------------------------------------

    def update(self, pod: Obj) -> None:
        """The object has changed."""
        before, self._object = self._object, pod
        self.writer.seen(pod)
        if labels_of(before) != labels_of(pod) or annotations_of(before) != annotations_of(pod):
            self._volumes.changed()
        self._note_deletion()
        self._news.set()

    def vanish(self, pod: Obj | None = None) -> None:
        """The object is gone from the API: end what runs, report to nobody."""
        self._object = pod or self._object
        self._gone = True
        self.writer.abandon()
        self._note_deletion()
        self._news.set()

    def observe(self, run: ContainerState) -> None:
        """The runtime says so."""
        if self.operations.observe(run) and run.state != "created":
            self._news.set()

    def adopt(self, runs: Sequence[ContainerState], *, sandbox_ip: str | None) -> None:
        """What was there when the agent started; `sandbox_ip` is None when the sandbox is not."""
        for run in runs:
            self.state.containers[run.id] = run
        if sandbox_ip is not None:
            self.state.sandbox_ready, self.state.ip = True, sandbox_ip
        elif pod_phase(self._object) not in ("Succeeded", "Failed"):
            self.state.sandbox_since = int(self._rooms.clock.time() * 1e9)
        for reported in reported_statuses(self._object):
            self._adopt_reported(reported)
        for run in self.state.running():
            container = container_named(self._object, run.name)
            if container is not None and not container.get("startupProbe"):
                self.state.started.add(run.id)
            if container is not None:
                self.state.applied.setdefault(run.id, container.get("resources") or {})

    def _adopt_reported(self, reported: dict[str, Any]) -> None:
        run_id = str(reported.get("containerID") or "").removeprefix(CONTAINER_ID_SCHEME)
        if not run_id:
            return
        if run_id in self.state.containers:
            if reported.get("started"):
                self.state.started.add(run_id)
            if reported.get("ready"):
                self.state.ready.add(run_id)
            if "resources" in reported:
                self.state.applied[run_id] = reported["resources"]
        elif pod_phase(self._object) not in ("Succeeded", "Failed") and not self.state.of(reported["name"]):
            # it ran, and is nowhere to be found: the machine has been restarted
            self.state.containers[run_id] = ContainerState(
                run_id,
                self.operations.uid,
                reported["name"],
                int(reported.get("restartCount") or 0),
                reported.get("image", ""),
                reported.get("imageID", ""),
                "unknown",
                created_at=1,
                finished_at=int(self._rooms.clock.time() * 1e9),
            )

    def _referenced_changed(self) -> None:
        """Something the containers' configuration reads has changed: what failed for it may succeed now."""
        for name, trouble in list(self.state.troubles.items()):
            if trouble.reason == "CreateContainerConfigError":
                del self.state.troubles[name]
        self._news.set()

    def _volumes_changed(self) -> None:
        self.state.volume_trouble = None
        self._news.set()

    def _note_deletion(self) -> None:
        if not self._gone and not is_deleting(self._object):
            return
        grace = self._object["metadata"].get("deletionGracePeriodSeconds")
        seconds = float(grace) if grace is not None else plan.pod_grace(self._object)
        since = self.state.deletion.since if self.state.deletion else self._rooms.clock.time()
        self.state.deletion = Deletion(since, since + seconds)

    # --- the loop -----------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            async with self._tasks:
                writer = self._tasks.create_task(self.writer.run())
                while not self.state.forgotten:
                    self._news.clear()
                    await self._wait_news(self._turn())
                writer.cancel()
                self._sync_probes(ended=True)
                self._volumes.close()
        finally:
            self._volumes.close()
            self._references.close()

    async def _wait_news(self, wake_at: float | None) -> None:
        if wake_at is None:
            await self._news.wait()
            return
        try:
            async with asyncio.timeout(max(LEAST_SLEEP, wake_at - self._rooms.clock.time())):
                await self._news.wait()
        except TimeoutError:
            return

    def _turn(self) -> float | None:
        """One look at the pod; returns when to look again at the latest."""
        now = self._rooms.clock.time()
        pod = self.operations.pod = self.pod
        self._note_endings(pod)
        decided = plan.plan(pod, self.state, now)
        for step in decided.steps:
            self._take(step)
        self._sync_probes()
        status = pod_status(pod, self.state, self._rooms.config.ip, now)
        self._tell_waiting(pod, status)
        if not self._gone:
            self.writer.offer(status)
        return decided.wake_at

    def _note_endings(self, pod: Obj) -> None:
        for run in self.state.containers.values():
            if has_ended(run) and run.id not in self.state.messages:
                container = container_named(pod, run.name) or {"name": run.name}
                failed = plan.exit_code(run) != 0
                self.state.messages[run.id] = self.operations.files.termination_message(
                    container, run.attempt, failed=failed
                )

    def _tell_waiting(self, pod: Obj, status: dict[str, Any]) -> None:
        """An event when a container begins to wait for a back-off."""
        for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            name, waiting = entry["name"], entry["state"].get("waiting") or {}
            reason = waiting.get("reason", "")
            mark = f"{reason}/{entry['restartCount']}"
            if reason.endswith("BackOff") and self._told_waiting.get(name) != mark:
                meta, container = pod["metadata"], container_named(pod, name)
                message = f'Back-off pulling image "{(container or {}).get("image")}"'
                if reason == "CrashLoopBackOff":
                    where = f"{meta['name']}_{meta.get('namespace', '')}({meta['uid']})"
                    message = f"Back-off restarting failed container {name} in pod {where}"
                self.operations.announce(
                    "Normal" if reason == "ImagePullBackOff" else "Warning", "BackOff", message, container
                )
            self._told_waiting[name] = mark

    # --- operations ---------------------------------------------------------------------------

    def _take(self, step: Step) -> None:
        if isinstance(step, FailPod):
            self.state.verdict = step.verdict
            self.operations.announce("Normal", step.verdict.reason, step.verdict.message)
            self._news.set()
            return
        under_way = self._operations.get(step.key)
        if under_way is not None:
            under_way.cancel()
        if not isinstance(step, Cancel):
            self.state.busy[step.key] = step
            self._operations[step.key] = self._tasks.create_task(self._operate(step))

    async def _operate(self, step: Step) -> None:
        failures = 0
        try:
            while not await self._attempt(step):
                if isinstance(step, PullImage | StartContainer):
                    self.operations.note_failure(step.container)
                    return
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
        finally:
            if self._operations.get(step.key) is asyncio.current_task():
                del self._operations[step.key]
                del self.state.busy[step.key]
            self._news.set()

    async def _attempt(self, step: Step) -> bool:
        try:
            await self._act(step)
        except (DureError, OSError) as error:
            log.warning("step failed", extra={"pod": self._object["metadata"]["name"], "step": step, "error": error})
            return False
        except Exception:
            log.exception("step failed by a bug", extra={"pod": self._object["metadata"]["name"], "step": step})
            return False
        return True

    async def _act(self, step: Step) -> None:
        operations = self.operations
        match step:
            case PrepareVolumes():
                await operations.prepare_volumes()
            case PrepareSandbox():
                await operations.prepare_sandbox()
            case PullImage():
                await operations.pull_image(step)
            case StartContainer():
                await operations.start_container(step)
            case StopContainer():
                await operations.stop_container(step)
            case RemoveContainer():
                await operations.remove_container(step)
            case ResizeContainer():
                await operations.resize_container(step)
            case TearDown():
                await operations.tear_down(self.writer.wait_written)
            case Forget():
                await self.writer.wait_written()
                await operations.forget(gone=self._gone)

    # --- probes -------------------------------------------------------------------------------

    def _sync_probes(self, *, ended: bool = False) -> None:
        wanted = {} if ended else self._wanted_probes()
        for key in [key for key in self._probes if key not in wanted]:
            self._probes.pop(key).cancel()
        for key, probe in wanted.items():
            if key not in self._probes:
                self._probes[key] = self._tasks.create_task(probe.loop())

    def _wanted_probes(self) -> dict[tuple[str, probes.ProbeKind], probes.ProbeRun]:
        pod = self.operations.pod
        wanted: dict[tuple[str, probes.ProbeKind], probes.ProbeRun] = {}
        for container in all_containers(pod):
            run = self.state.newest(container["name"])
            ordinary_init = container in init_containers(pod) and not is_sidecar(container)
            if run is None or not is_alive(run) or ordinary_init:
                continue
            for kind in probes.KINDS:
                if container.get(f"{kind}Probe") and self._is_probe_due(kind, run):
                    wanted[run.id, kind] = probes.ProbeRun(
                        container,
                        run,
                        kind,
                        self.operations.contact,
                        self._rooms.clock,
                        self._probe_verdict,
                        self._probe_failed,
                    )
        return wanted

    def _is_probe_due(self, kind: probes.ProbeKind, run: ContainerState) -> bool:
        ending = self.state.deletion is not None or plan.is_terminal(self.operations.pod, self.state)
        if kind == "startup":
            return run.id not in self.state.started and not ending
        return run.id in self.state.started and (kind == "readiness" or not ending)

    def _probe_verdict(self, run_id: str, kind: probes.ProbeKind, healthy: bool) -> None:
        state = self.state
        if kind == "readiness":
            (state.ready.add if healthy else state.ready.discard)(run_id)
        elif not healthy:
            state.unhealthy[run_id] = kind
        elif kind == "startup":
            state.started.add(run_id)
        self._news.set()

    def _probe_failed(self, container: Obj, kind: probes.ProbeKind, message: str) -> None:
        self.operations.announce("Warning", "Unhealthy", message, container)
