"""A cluster without machines: a real API server, chosen controllers, and a kubelet that only says what pods do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal

from dure.api.meta import ObjectKey, condition, key_of, labels_of, name_of, uid_of, with_condition
from dure.apiserver.server import ApiServer
from dure.client.client import Client, WatchEvent
from dure.client.events import EventRecorder
from dure.control.controller import Controller, Result
from dure.control.informer import Informer
from dure.controllers.shared import Context, Informers
from dure.core.aio import Scope, closing, running
from dure.core.clock import LoopClock, rfc3339
from dure.core.errors import Conflict, NotFound
from dure.core.json import Obj, thaw
from tests.support.cluster import api_server

NODE = "node-1"
Fate = Literal["ready", "running", "pending", "succeeded", "failed"]
Build = Callable[[Context], Controller]


class Kubelet:
    """Binds every pod to one node and brings it to its fate; set the public fields before or while it runs."""

    def __init__(self, client: Client, clock: LoopClock) -> None:
        self.client = client
        self.clock = clock
        self.fate: Callable[[Obj], Fate] = lambda pod: "ready"
        self.ready_seconds = 0.0
        """From creation to the fate."""
        self.stop_seconds = 0.0
        """From the deletion mark to being gone."""
        self.pods = Informer(client, "pods")
        self._controller = Controller("kubelet", self, workers=8).watches(self.pods, lambda pod: [key_of(pod)])
        self._since: dict[tuple[str, str], float] = {}
        self._addresses = 0

    async def run(self) -> None:
        async with running(self.pods.run()):
            await self._controller.run()

    def look_again(self) -> None:
        """The fates were changed."""
        for pod in self.pods.list():
            self._controller.queue.add(key_of(pod))

    async def reconcile(self, key: ObjectKey) -> Result:
        pod = self.pods.get(key)
        if pod is None:
            return Result()
        try:
            if not pod["spec"].get("nodeName"):
                if not pod["metadata"].get("deletionTimestamp"):
                    await self._bind(pod)
                return Result()
            if pod["metadata"].get("deletionTimestamp"):
                return await self._stop(pod)
            return await self._start(pod)
        except NotFound:
            return Result()

    async def _bind(self, pod: Obj) -> None:
        namespace, name = key_of(pod)
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        try:
            await self.client.create_at("pods", name, namespace, "binding", body)
        except Conflict:
            return  # bound or deleted meanwhile

    def _wait(self, pod: Obj, stage: str, seconds: float) -> float:
        since = self._since.setdefault((uid_of(pod), stage), self.clock.time())
        return since + seconds - self.clock.time()

    async def _start(self, pod: Obj) -> Result:
        if self.fate(pod) == "pending":
            return Result()
        left = self._wait(pod, "start", self.ready_seconds)
        if left > 0:
            return Result(requeue_after=left)
        await self.set_status(pod, self.fate(pod))
        return Result()

    async def _stop(self, pod: Obj) -> Result:
        left = self._wait(pod, "stop", self.stop_seconds)
        if left > 0:
            return Result(requeue_after=left)
        namespace, name = key_of(pod)
        await self.client.delete("pods", name, namespace, grace_seconds=0, uid=uid_of(pod))
        return Result()

    async def set_status(self, pod: Obj, fate: Fate) -> None:
        """Write what a kubelet would for a pod of one container."""
        old = pod.get("status") or {}
        phase = {"succeeded": "Succeeded", "failed": "Failed"}.get(fate, "Running")
        if old.get("phase") in ("Succeeded", "Failed"):
            return
        now = rfc3339(self.clock.time())
        entry = {"type": "Ready", "status": "True" if fate == "ready" else "False"}
        status = {
            "phase": phase,
            "podIP": old.get("podIP") or self._address(),
            "startTime": old.get("startTime") or now,
            "conditions": with_condition(old.get("conditions") or [], entry, now),
            "containerStatuses": [_container(pod, fate, now)],
        }
        status["podIPs"] = [{"ip": status["podIP"]}]
        if all(old.get(name) == value for name, value in status.items()):
            return
        namespace, name = key_of(pod)
        await self.client.patch("pods", name, namespace, {"status": status}, subresource="status")

    def _address(self) -> str:
        self._addresses += 1
        return f"10.244.{self._addresses // 250}.{self._addresses % 250 + 1}"


def _container(pod: Obj, fate: Fate, now: str) -> Obj:
    state: Obj = {"running": {"startedAt": now}}
    if fate in ("succeeded", "failed"):
        code = 0 if fate == "succeeded" else 1
        state = {"terminated": {"exitCode": code, "reason": "Done", "startedAt": now, "finishedAt": now}}
    else:
        before = (pod.get("status") or {}).get("containerStatuses") or []
        state = before[0]["state"] if before else state
    spec = pod["spec"]["containers"][0]
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": "",
        "ready": fate == "ready",
        "restartCount": 0,
        "state": state,
    }


class Cluster:
    """What a test holds in its hands."""

    def __init__(self, server: ApiServer, client: Client, context: Context, kubelet: Kubelet, clock: LoopClock) -> None:
        self.server = server
        self.client = client
        self.context = context
        self.kubelet = kubelet
        self.clock = clock

    async def settle(self, seconds: float = 1.0) -> None:
        """Let everything that is under way happen."""
        await asyncio.sleep(seconds)

    async def all(self, resource: str, namespace: str = "default", **labels: str) -> list[Obj]:
        """Sorted by name."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found = await self.client.list(resource, namespace, labels=selector)
        return sorted(found.items, key=name_of)

    async def names(self, resource: str, namespace: str = "default") -> list[str]:
        return [name_of(item) for item in await self.all(resource, namespace)]

    async def pods(self, namespace: str = "default") -> list[Obj]:
        """Those that are not being deleted."""
        return [pod for pod in await self.all("pods", namespace) if not pod["metadata"].get("deletionTimestamp")]

    async def change(self, resource: str, name: str, change: Callable[[Obj], Any], namespace: str = "default") -> Obj:
        """Read, change, write; again when somebody else was quicker."""
        while True:
            obj = thaw(await self.client.get(resource, name, namespace))
            change(obj)
            try:
                return await self.client.update(obj)
            except Conflict:
                continue

    async def set_status(self, resource: str, name: str, status: Obj, namespace: str = "default") -> Obj:
        return await self.client.patch(resource, name, namespace, {"status": status}, subresource="status")

    def server_revision(self) -> int:
        """Moves with every write."""
        return self.server.store.revision

    async def exists(self, resource: str, name: str, namespace: str = "default") -> bool:
        try:
            await self.client.get(resource, name, namespace)
        except NotFound:
            return False
        return True

    async def events(self, reason: str, namespace: str = "default") -> list[str]:
        found = await self.client.list("events", namespace)
        return [item["message"] for item in found.items if item["reason"] == reason]


@asynccontextmanager
async def cluster(*builds: Build, kubelet: bool = True, lag: dict[str, float] | None = None) -> AsyncIterator[Cluster]:
    """With the given controllers and nothing else at work; their caches are `lag` seconds behind, by resource."""
    async with api_server() as (server, client):
        clock = LoopClock()
        informers = Informers(LaggingClient(client, lag) if lag else client)
        context = Context(client, informers, EventRecorder(client, "test", clock=clock), clock)
        controllers = [build(context) for build in builds]
        machine = Kubelet(client, clock)
        await client.create(service_account("default"))
        services = [controller.run() for controller in controllers]
        if kubelet:
            services.append(machine.run())
        async with running(context.informers.run(), *services):
            await context.informers.wait_synced()
            yield Cluster(server, client, context, machine, clock)


class LaggingClient(Client):
    """Whose watches of some resources tell what happened only seconds later."""

    def __init__(self, client: Client, lag: dict[str, float]) -> None:
        super().__init__(client._transport, client.kinds)
        self._lag = lag

    def watch(self, resource: str, namespace: str = "", **options: Any) -> Scope[AsyncIterator[WatchEvent]]:
        watch = super().watch(resource, namespace, **options)
        return self._delayed(watch, self._lag[resource]) if resource in self._lag else watch

    @asynccontextmanager
    async def _delayed(
        self, watch: Scope[AsyncIterator[WatchEvent]], seconds: float
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        queue: asyncio.Queue[tuple[float, WatchEvent]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def fill(events: AsyncIterator[WatchEvent]) -> None:
            async for event in events:
                queue.put_nowait((loop.time() + seconds, event))

        async def drain() -> AsyncIterator[WatchEvent]:
            while True:
                due, event = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                yield event

        async with watch as events, running(fill(events)), closing(drain()) as late:
            yield late


# ── objects ──


def service_account(namespace: str, name: str = "default") -> Obj:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def pod_template(image: str = "app:1", labels: dict[str, str] | None = None, **spec: Any) -> Obj:
    container = {"name": "app", "image": image}
    return {"metadata": {"labels": labels or {"app": "web"}}, "spec": {"containers": [container], **spec}}


def deployment(name: str = "web", replicas: int = 3, image: str = "app:1", **spec: Any) -> Obj:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": pod_template(image, labels),
            **spec,
        },
    }


def replica_set(name: str = "web", replicas: int = 3, **spec: Any) -> Obj:
    return {**deployment(name, replicas, **spec), "kind": "ReplicaSet"}


def plain_pod(name: str, labels: dict[str, str] | None = None, namespace: str = "default", **spec: Any) -> Obj:
    template = pod_template(labels=labels, **spec)
    meta = {"name": name, "namespace": namespace, "labels": labels or {"app": "web"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}


def config_map(name: str, owners: Iterable[Obj] = (), namespace: str = "default", **meta: Any) -> Obj:
    metadata: Obj = {"name": name, "namespace": namespace, **meta}
    references = [*owners]
    if references:
        metadata["ownerReferences"] = references
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def condition_of(obj: Obj, type_: str) -> tuple[str, str] | None:
    """Status and reason."""
    found = condition(obj, type_)
    return (found["status"], found.get("reason", "")) if found else None


def template_labels(obj: Obj) -> dict[str, str]:
    return labels_of(obj["spec"]["template"])
