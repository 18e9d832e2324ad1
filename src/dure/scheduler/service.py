"""The binding loop: watches pods and nodes, places one pod at a time, binds many at once.

A chosen pod is charged to its node before the binding is written, and given back if the write is
refused, so that decisions never wait for the API.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from dure.api.meta import ObjectKey, condition, is_deleting, key_of, name_of
from dure.client.client import Client
from dure.client.events import EventRecorder
from dure.control.informer import Informer
from dure.core.clock import Clock, rfc3339
from dure.core.errors import ApiError, NotFound, TransportError
from dure.core.json import Obj
from dure.scheduler.matrix import NodeMatrix
from dure.scheduler.needs import Needs, compile_needs
from dure.scheduler.pending import PendingPods
from dure.scheduler.rules import choose

log = logging.getLogger("dure.scheduler")

_WRITES_AT_ONCE = 32


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
        self._pending = PendingPods()
        self._assumed: set[str] = set()
        """Charged to a node, their binding under way or not yet seen back."""
        self._explained: dict[str, str] = {}
        """Why a pod waits, as last said; a pod is told each reason once."""
        self._slots = asyncio.Semaphore(_WRITES_AT_ONCE)
        self._tie = 0
        pods.on_change(self._pod_changed)
        nodes.on_change(self._node_changed)

    async def run(self) -> None:
        """Schedule until cancelled; the informers run elsewhere."""
        await self._nodes.wait_synced()
        await self._pods.wait_synced()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._pending.wait_ready()
                    await self._slots.acquire()
                    # Nothing waits between taking a pod and deciding on it: an event cannot bring it in twice.
                    write = self._decide_next()
                    if write is None:
                        self._slots.release()
                    else:
                        group.create_task(write)
                    await asyncio.sleep(0)
        finally:
            self._pending.close()

    def _decide_next(self) -> Coroutine[Any, Any, None] | None:
        """Choose for the most important pod; what comes back is the writing of it."""
        found = self._pending.pop()
        if found is None:
            return None
        key, pod = found
        try:
            needs = compile_needs(pod)
            self._tie += 1
            verdict = choose(self._matrix, needs, self._tie)
        except Exception:  # a pod that breaks us must not keep the others waiting
            log.exception("scheduler broke", extra={"pod": key})
            self._retry(key)
            return None
        if not verdict.node:
            self._pending.park(key, pod, needs)
            is_news = self._explained.get(key) != verdict.message
            return self._written(key, self._explain, pod, verdict.message) if is_news else None
        self._assumed.add(key)
        self._matrix.put_pod(key, verdict.node, needs)
        self._pending.wake(_depends_on_others)
        return self._written(key, self._bind, pod, verdict.node)

    async def _written(
        self, key: str, write: Callable[[str, Obj, str], Coroutine[Any, Any, None]], pod: Obj, what: str
    ) -> None:
        try:
            await write(key, pod, what)
        except (ApiError, TransportError) as error:
            log.warning("pod not placed", extra={"pod": key, "error": error})
            self._retry(key)
        except Exception:
            log.exception("scheduler broke", extra={"pod": key})
            self._retry(key)
        finally:
            self._slots.release()

    def _retry(self, key: str) -> None:
        if self._waiting_pod(key) is not None:
            self._pending.retry(key, lambda: self._waiting_pod(key))

    def _waiting_pod(self, key: str) -> Obj | None:
        """The pod as it is now, if it is still for us to place."""
        namespace, _, name = key.partition("/")
        pod = self._pods.get(ObjectKey(namespace, name))
        return pod if pod is not None and key not in self._assumed and self._is_mine(pod) else None

    async def _bind(self, key: str, pod: Obj, node: str) -> None:
        namespace, name = key_of(pod)
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod["metadata"]["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._client.create_at("pods", name, namespace, "binding", binding)
        except BaseException as error:
            self._give_back(key)
            if isinstance(error, NotFound):
                return  # the informer will say so too
            raise
        await self._recorder.record(pod, "Normal", "Scheduled", f"Successfully assigned {namespace}/{name} to {node}")

    def _give_back(self, key: str) -> None:
        """Unless the binding was seen to have happened all the same."""
        if key in self._assumed:
            self._assumed.discard(key)
            self._matrix.remove_pod(key)
            self._pending.wake()

    async def _explain(self, key: str, pod: Obj, message: str) -> None:
        """Say on the pod and by an event why it waits."""
        held = condition(pod, "PodScheduled") or {}
        if held.get("status") != "False" or held.get("message") != message:
            now = rfc3339(self._clock.time())
            moved = now if held.get("status") != "False" else held.get("lastTransitionTime", now)
            entry = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
                "lastTransitionTime": moved,
            }
            namespace, name = key_of(pod)
            patch = {"status": {"conditions": [entry]}}
            try:
                await self._client.patch("pods", name, namespace, patch, type="strategic", subresource="status")
            except NotFound:
                return
            await self._recorder.record(pod, "Warning", "FailedScheduling", message)
        if self._pods.get(key_of(pod)) is not None:
            self._explained[key] = message

    # ── what the informers say ──

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        pod = new or old
        assert pod is not None
        key = "/".join(key_of(pod))
        if new is None or _is_over(new):
            self._settle(key)
            if self._matrix.remove_pod(key):
                self._pending.wake()
        elif new["spec"].get("nodeName"):
            self._settle(key)
            if self._matrix.put_pod(key, new["spec"]["nodeName"], compile_needs(new)):
                self._pending.wake(_depends_on_others)
        elif not self._is_mine(new):
            self._pending.drop(key)
        elif key not in self._assumed:
            self._pending.put(new)

    def _settle(self, key: str) -> None:
        """It is no longer for us to place."""
        self._pending.drop(key)
        self._assumed.discard(key)
        self._explained.pop(key, None)

    def _is_mine(self, pod: Obj) -> bool:
        spec = pod["spec"]
        return (
            (spec.get("schedulerName") or self._name) == self._name
            and not spec.get("nodeName")
            and not spec.get("schedulingGates")
            and not is_deleting(pod)
            and not _is_over(pod)
        )

    def _node_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._matrix.remove_node(name_of(old))
            return
        if old is not None and _same_for_placing(old, new):
            return
        if not (new.get("status") or {}).get("allocatable"):
            return  # registered, but its agent has not yet said what it offers
        is_known = self._matrix.row(name_of(new)) is not None
        self._matrix.put_node(new)
        if not is_known:
            self._charge_node(name_of(new))
        self._pending.wake()

    def _charge_node(self, name: str) -> None:
        """A node that came after its pods takes them over."""
        for pod in self._pods.list():
            if pod["spec"].get("nodeName") == name and not _is_over(pod):
                self._matrix.put_pod("/".join(key_of(pod)), name, compile_needs(pod))


def _is_over(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _depends_on_others(needs: Needs) -> bool:
    """Whether a pod placed elsewhere may let this one in."""
    return bool(needs.affinity) or any(spread.hard for spread in needs.spreads)


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
