"""Node lifecycle: a node whose lease ends is marked unknown and tainted; its pods are moved elsewhere after a while."""

from __future__ import annotations

from dure.api.meta import ObjectKey, condition, is_deleting, key_of, name_of, uid_of, with_condition
from dure.control.controller import Controller, Result
from dure.controllers.pods import is_finished, is_ready, mark_disrupted
from dure.controllers.shared import Context, itself
from dure.controllers.taints import drives_away, seconds_until_eviction, wanted_taints
from dure.core.clock import parse_rfc3339
from dure.core.errors import NotFound
from dure.core.json import Obj, thaw

_GRACE_SECONDS = 40.0
_LEASES = "kube-node-lease"
_SILENCED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


class NodeReconciler:
    """Keyed by Node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._client = context.client
        self._nodes = context.informers.of("nodes")
        self._leases = context.informers.of("leases.coordination.k8s.io")
        self._pods = context.informers.of("pods")
        self._watching_since = 0.0
        """While nobody was listening, silence says nothing."""

    def build(self) -> Controller:
        controller = Controller("node", self, workers=2)
        controller.watches(self._nodes, itself)
        controller.watches(self._leases, self._node_of_lease)
        controller.watches(self._pods, self._tainted_node_of)
        return controller

    def _node_of_lease(self, lease: Obj) -> list[ObjectKey]:
        """Renewals of a healthy node are no news: its key comes back by its own timer."""
        if lease["metadata"]["namespace"] != _LEASES:
            return []
        key = ObjectKey("", name_of(lease))
        node = self._nodes.get(key)
        return [] if node is not None and is_ready(node) else [key]

    def _tainted_node_of(self, pod: Obj) -> list[ObjectKey]:
        """A pod that comes to a node which others must leave."""
        key = ObjectKey("", pod["spec"].get("nodeName") or "")
        node = self._nodes.get(key)
        return [key] if node is not None and drives_away(node) else []

    async def reconcile(self, key: ObjectKey) -> Result:
        node = self._nodes.get(key)
        if node is None or is_deleting(node):
            return Result()
        try:
            silent = self._silent_for(node)
            if silent >= _GRACE_SECONDS:
                node = await self._mark_unknown(node)
            node = await self._taint(node)
        except NotFound:
            return Result()
        waits = [await self._evict(node), _GRACE_SECONDS - silent if silent < _GRACE_SECONDS else None]
        return Result(requeue_after=min((wait for wait in waits if wait is not None), default=None))

    def _silent_for(self, node: Obj) -> float:
        """Seconds since the last sign of life; a node that never gave one was alive when it was made."""
        now = self._context.clock.time()
        self._watching_since = self._watching_since or now
        lease = self._leases.get(ObjectKey(_LEASES, name_of(node)))
        ready = condition(node, "Ready") or {}
        stamps = [
            ((lease or {}).get("spec") or {}).get("renewTime"),
            ready.get("lastHeartbeatTime"),
            node["metadata"]["creationTimestamp"],
        ]
        return now - max(self._watching_since, *(parse_rfc3339(stamp) for stamp in stamps if stamp))

    async def _mark_unknown(self, node: Obj) -> Obj:
        conditions = (node.get("status") or {}).get("conditions") or []
        known = {item["type"]: item["status"] for item in conditions}
        if all(known.get(type_) == "Unknown" for type_ in _SILENCED):
            return node
        for type_ in _SILENCED:
            entry = {
                **(condition(node, type_) or {}),
                "type": type_,
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
            }
            conditions = with_condition(conditions, entry, self._context.now())
        text = f"Node {name_of(node)} status is now: NodeNotReady"
        await self._context.recorder.record(node, "Normal", "NodeNotReady", text)
        await self._unready_pods(name_of(node))
        patch = {"status": {"conditions": conditions}}
        return await self._client.patch("nodes", name_of(node), "", patch, subresource="status")

    async def _unready_pods(self, node: str) -> None:
        """Pods of a silent node leave their services."""
        for pod in filter(is_ready, self._pods_on(node)):
            entry = {"type": "Ready", "status": "False", "reason": "NodeNotReady"}
            conditions = with_condition(pod["status"]["conditions"], entry, self._context.now())
            namespace, name = key_of(pod)
            patch = {"status": {"conditions": conditions}}
            try:
                await self._client.patch("pods", name, namespace, patch, subresource="status")
            except NotFound:
                continue  # gone meanwhile

    def _pods_on(self, node: str) -> list[Obj]:
        return [pod for pod in self._pods.list() if pod["spec"].get("nodeName") == node and not is_finished(pod)]

    async def _taint(self, node: Obj) -> Obj:
        taints = wanted_taints(node, self._context.now())
        if taints == (node["spec"].get("taints") or []):
            return node
        changed = thaw(node)
        changed["spec"]["taints"] = taints
        return await self._client.update(changed)

    async def _evict(self, node: Obj) -> float | None:
        """Delete pods whose patience with a NoExecute taint has ended; seconds until the next."""
        if not drives_away(node):
            return None
        now, waits = self._context.clock.time(), []
        for pod in self._pods_on(name_of(node)):
            wait = seconds_until_eviction(pod, node["spec"]["taints"], now)
            if wait is None or is_deleting(pod):
                continue
            if wait > 0:
                waits.append(wait)
            else:
                await self._remove(pod)
        return min(waits, default=None)

    async def _remove(self, pod: Obj) -> None:
        namespace, name = key_of(pod)
        text = f"Marking for deletion Pod {namespace}/{name}"
        await self._context.recorder.record(pod, "Normal", "TaintManagerEviction", text)
        why = "Taint manager: deleting due to NoExecute taint"
        try:
            await mark_disrupted(self._client, pod, "DeletionByTaintManager", why, self._context.now())
            await self._client.delete("pods", name, namespace, uid=uid_of(pod))
        except NotFound:
            return  # gone meanwhile
