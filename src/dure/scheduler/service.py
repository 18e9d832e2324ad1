"""The binding loop: watches pods and nodes, places one pod at a time, binds many at once.

A chosen pod is charged to its node before the binding is written, and given back if the write is
refused, so that decisions never wait for the API.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from dure.api.meta import ObjectKey, condition, is_deleting, key_of, with_condition
from dure.client.client import Client
from dure.client.events import EventRecorder
from dure.control.informer import Informer
from dure.core.clock import Clock, rfc3339
from dure.core.errors import ApiError, NotFound, TransportError
from dure.core.json import Obj
from dure.scheduler.matrix import NodeMatrix
from dure.scheduler.needs import Needs, compile_needs
from dure.scheduler.rules import choose

log = logging.getLogger("dure.scheduler")

_BINDINGS_AT_ONCE = 32
_RETRY_SECONDS = 1.0


class Scheduler:
    """Places the pods whose `schedulerName` is its own name."""

    def __init__(
        self,
        client: Client,
        pods: Informer,
        nodes: Informer,
        recorder: EventRecorder,
        clock: Clock,
        name: str = "default-scheduler",
    ) -> None:
        self._client = client
        self._pods = pods
        self._nodes = nodes
        self._recorder = recorder
        self._clock = clock
        self._name = name
        self._matrix = NodeMatrix()
        self._active: dict[str, Obj] = {}
        """Pods to try now; bounded by the pods that exist."""
        self._waiting: dict[str, Obj] = {}
        """Pods that fit nowhere, until something frees room."""
        self._assumed: set[str] = set()
        """Charged to a node, their binding under way or not yet seen back."""
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(_BINDINGS_AT_ONCE)
        self._tie = 0
        pods.on_change(self._pod_changed)
        nodes.on_change(self._node_changed)

    async def run(self) -> None:
        """Schedule until cancelled; the informers run elsewhere."""
        await self._nodes.wait_synced()
        await self._pods.wait_synced()
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._drain(group)

    async def _drain(self, group: asyncio.TaskGroup) -> None:
        while self._active:
            key = min(self._active, key=self._rank)
            pod = self._active.pop(key)
            await self._slots.acquire()
            group.create_task(self._place(key, pod))
            await asyncio.sleep(0)

    def _rank(self, key: str) -> tuple[int, str, str]:
        pod = self._active[key]
        return (-int(pod["spec"].get("priority") or 0), pod["metadata"].get("creationTimestamp") or "", key)

    async def _place(self, key: str, pod: Obj) -> None:
        try:
            needs = compile_needs(pod)
            self._tie += 1
            verdict = choose(self._matrix, needs, self._tie)
            if verdict.node:
                await self._bind(key, pod, needs, verdict.node)
            else:
                self._waiting[key] = pod
                await self._explain(pod, verdict.message)
        except (ApiError, TransportError) as error:
            log.warning("pod not placed", extra={"pod": key, "cause": str(error)})
            await asyncio.sleep(_RETRY_SECONDS)
            self._requeue(key)
        finally:
            self._slots.release()

    async def _bind(self, key: str, pod: Obj, needs: Needs, node: str) -> None:
        self._matrix.put_pod(key, node, needs)
        self._assumed.add(key)
        namespace, name = key_of(pod)
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod["metadata"]["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._client.create_at("pods", name, namespace, "binding", binding)
        except (ApiError, TransportError) as error:
            self._assumed.discard(key)
            self._matrix.remove_pod(key)
            if isinstance(error, NotFound):
                return
            raise
        await self._recorder.record(pod, "Normal", "Scheduled", f"Successfully assigned {namespace}/{name} to {node}")

    def _requeue(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        current = self._pods.get(ObjectKey(namespace, name))
        if current is not None:
            self._pod_changed(None, current)

    async def _explain(self, pod: Obj, message: str) -> None:
        """Say on the pod and by an event why it waits; silent when that is known already."""
        held = condition(pod, "PodScheduled")
        if held and held.get("status") == "False" and held.get("message") == message:
            return
        entry: dict[str, Any] = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
        conditions = with_condition(
            (pod.get("status") or {}).get("conditions") or [], entry, rfc3339(self._clock.time())
        )
        namespace, name = key_of(pod)
        try:
            await self._client.patch(
                "pods", name, namespace, {"status": {"conditions": conditions}}, type="merge", subresource="status"
            )
        except NotFound:
            return
        await self._recorder.record(pod, "Warning", "FailedScheduling", message)

    # ── what the informers say ──

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        pod = new or old
        assert pod is not None
        key = "/".join(key_of(pod))
        if new is None or self._is_over(new):
            self._active.pop(key, None)
            self._waiting.pop(key, None)
            self._assumed.discard(key)
            self._matrix.remove_pod(key)
            self._retry_waiting()
            return
        node = new["spec"].get("nodeName")
        if node:
            self._active.pop(key, None)
            self._waiting.pop(key, None)
            self._assumed.discard(key)
            self._matrix.put_pod(key, node, compile_needs(new))
            return
        if key in self._assumed or not self._is_mine(new):
            return
        if key in self._waiting:
            before = self._waiting[key]
            self._waiting[key] = new
            if before["spec"] == new["spec"] and before["metadata"].get("labels") == new["metadata"].get("labels"):
                return
            del self._waiting[key]
        self._active[key] = new
        self._wake.set()

    def _is_mine(self, pod: Obj) -> bool:
        spec = pod["spec"]
        return (
            (spec.get("schedulerName") or self._name) == self._name
            and not spec.get("schedulingGates")
            and not is_deleting(pod)
        )

    @staticmethod
    def _is_over(pod: Obj) -> bool:
        return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")

    def _node_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._matrix.remove_node(old["metadata"]["name"])
            return
        if old is not None and _same_for_placing(old, new):
            return
        if not (new.get("status") or {}).get("allocatable"):
            return  # registered, but its agent has not yet said what it offers
        known = self._matrix.row(new["metadata"]["name"]) is not None
        self._matrix.put_node(new)
        if not known:
            self._charge_node(new["metadata"]["name"])
        self._retry_waiting()

    def _charge_node(self, name: str) -> None:
        """A node that came after its pods takes them over."""
        for pod in self._pods.list():
            if pod["spec"].get("nodeName") == name and not self._is_over(pod):
                self._matrix.put_pod("/".join(key_of(pod)), name, compile_needs(pod))

    def _retry_waiting(self) -> None:
        if self._waiting:
            self._active.update(self._waiting)
            self._waiting.clear()
            self._wake.set()


def _same_for_placing(old: Obj, new: Obj) -> bool:
    def view(node: Obj) -> tuple[Any, ...]:
        spec, status = node.get("spec") or {}, node.get("status") or {}
        return (
            node["metadata"].get("labels"),
            spec.get("taints"),
            spec.get("unschedulable"),
            status.get("allocatable"),
        )

    return view(old) == view(new)
