"""The agent of one node: registers it, runs the pods bound to it, adopts what runs, cleans up what nobody owns."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dure.api.meta import key_of, uid_of
from dure.client.client import Client
from dure.client.events import EventRecorder
from dure.control.informer import Informer
from dure.core.aio import running
from dure.core.clock import Clock, SystemClock
from dure.core.errors import DureError
from dure.core.json import Obj
from dure.node.heartbeat import Heartbeat
from dure.node.model import NodeConfig, machine_memory
from dure.node.orphans import remove_orphans
from dure.node.pods.events import EventSink
from dure.node.pods.lookup import PodLookup
from dure.node.pods.ports import NodeRooms, Volumes
from dure.node.pods.worker import PodWorker
from dure.node.ports import ContainerState, ImageService, PodNetwork, Runtime
from dure.node.references import ObjectCache
from dure.node.volumes.kernel import KernelMounter, Mounter
from dure.node.volumes.service import LocalVolumes

log = logging.getLogger(__name__)

FIRST_RETRY, LONGEST_RETRY = 0.1, 5.0
REVIVE_SECONDS = 5.0


class NodeAgent:
    """One node. `run()` works until cancelled; running containers stay when it ends.

    `runtime`, `network` and `images` are this node's own; `services` may be shared between agents of one process.
    """

    def __init__(
        self,
        client: Client,
        config: NodeConfig,
        runtime: Runtime,
        network: PodNetwork,
        images: ImageService,
        *,
        mounter: Mounter | None = None,
        volumes: Volumes | None = None,
        services: Informer | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config = complete(config)
        self._client = client
        self._clock = clock or SystemClock()
        self._services = services or Informer(client, "services")
        self._owns_services = services is None
        self._objects = ObjectCache(client)
        self._events = EventSink(EventRecorder(client, "kubelet", config.name))
        self._pods = Informer(client, "pods", fields=f"spec.nodeName={config.name}")
        self._workers: dict[str, PodWorker] = {}
        self._finished: set[str] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._has_taken_over = False
        self.heartbeat = Heartbeat(client, self.config, self._clock)
        self._rooms = NodeRooms(
            config=self.config,
            client=client,
            runtime=runtime,
            network=network,
            images=images,
            volumes=volumes
            or LocalVolumes(self.config, client, self._objects, images, mounter or KernelMounter(), self._clock),
            objects=self._objects,
            services=self._visible_services,
            events=self._events,
            clock=self._clock,
        )
        self.lookup = PodLookup(self.config, self._workers)

    async def wait_registered(self) -> None:
        """Until the Node object exists with a status written by this agent."""
        await self.heartbeat.wait_registered()

    async def run(self) -> None:
        services = [self._services.run()] if self._owns_services else []
        async with running(self._events.run(), self._objects.run(), self.heartbeat.run(), self._pods.run(), *services):
            await self._serve()

    async def _serve(self) -> None:
        await self._pods.wait_synced()
        await self._services.wait_synced()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            delay = FIRST_RETRY
            while True:
                try:
                    await self._follow_runtime()
                except (DureError, OSError) as error:
                    log.warning("runtime lost", extra={"node": self.config.name, "error": error})
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST_RETRY)

    async def _follow_runtime(self) -> None:
        """Take over what runs, start what should, then pass on every change."""
        async with self._rooms.runtime.events() as changes:
            found = _by_pod(await self._rooms.runtime.containers())
            if self._has_taken_over:
                for runs in found.values():
                    for run in runs:
                        self._observe(run)
            else:
                await self._take_over(found)
            async for run in changes:
                self._observe(run)

    async def _take_over(self, found: Mapping[str, Sequence[ContainerState]]) -> None:
        rooms = self._rooms
        known = {uid_of(pod) for pod in self._pods.list()}
        attached = await rooms.network.attached()
        sandboxes = {sandbox.pod_uid: sandbox for sandbox in await rooms.runtime.sandboxes()}
        for pod in self._pods.list():
            uid = uid_of(pod)
            worker = PodWorker(rooms, pod)
            ip = None
            if uid in sandboxes:
                on_host = bool(pod["spec"].get("hostNetwork"))
                ip = self.config.ip if on_host else (attached[uid].ip if uid in attached else None)
            worker.adopt(found.get(uid, ()), sandbox_ip=ip)
            self._begin(worker, uid)
        self._has_taken_over = True
        self._pods.on_change(self._pod_changed)
        assert self._tasks is not None
        self._tasks.create_task(remove_orphans(rooms, known, found=found, sandboxes=sandboxes, attached=attached))

    def _begin(self, worker: PodWorker, uid: str) -> None:
        assert self._tasks is not None, "workers live in the task group of `run`"
        self._workers[uid] = worker
        self._tasks.create_task(self._work(worker, uid))

    async def _work(self, worker: PodWorker, uid: str) -> None:
        failed = False
        while not worker.state.forgotten:
            try:
                worker = await self._revived(worker, uid) if failed else worker
                await worker.run()
            except Exception:
                log.exception("pod worker failed by a bug", extra={"pod": str(key_of(worker.pod))})
                failed = True
                await asyncio.sleep(REVIVE_SECONDS)
        self._workers.pop(uid, None)
        left = self._pods.get(key_of(worker.pod))
        if left is not None and uid_of(left) == uid:
            self._finished.add(uid)

    async def _revived(self, worker: PodWorker, uid: str) -> PodWorker:
        """A fresh worker for the same pod, which knows what the runtime knows."""
        again = PodWorker(self._rooms, worker.pod)
        runs = [run for run in await self._rooms.runtime.containers() if run.pod_uid == uid]
        again.adopt(runs, sandbox_ip=worker.state.ip if worker.state.sandbox_ready else None)
        if worker.is_gone:
            again.vanish()
        self._workers[uid] = again
        return again

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        if old is not None and (new is None or uid_of(new) != uid_of(old)):
            self._finished.discard(uid_of(old))
            if (worker := self._workers.get(uid_of(old))) is not None:
                worker.vanish(old)
        if new is None:
            return
        uid = uid_of(new)
        if (worker := self._workers.get(uid)) is not None:
            worker.update(new)
        elif uid not in self._finished:
            worker = PodWorker(self._rooms, new)
            worker.adopt((), sandbox_ip=None)
            self._begin(worker, uid)

    def _observe(self, run: ContainerState) -> None:
        if (worker := self._workers.get(run.pod_uid)) is not None:
            worker.observe(run)

    def _visible_services(self, namespace: str) -> list[Obj]:
        own = self._services.list(namespace)
        if namespace == "default":
            return own
        return [*own, *(item for item in self._services.list("default") if item["metadata"]["name"] == "kubernetes")]


def complete(config: NodeConfig) -> NodeConfig:
    """With the machine's own amounts where none were given."""
    config.root.mkdir(parents=True, exist_ok=True)
    disk = os.statvfs(config.root)
    return replace(
        config,
        cpus=config.cpus or os.cpu_count() or 1,
        memory_bytes=config.memory_bytes or machine_memory(),
        storage_bytes=config.storage_bytes or disk.f_blocks * disk.f_frsize,
    )


def _by_pod(runs: Sequence[ContainerState]) -> dict[str, list[ContainerState]]:
    found: dict[str, list[ContainerState]] = {}
    for run in runs:
        found.setdefault(run.pod_uid, []).append(run)
    return found
