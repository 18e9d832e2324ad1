"""Node lifecycle: a node whose lease ends is marked unknown and tainted; its pods are moved elsewhere after a while."""

from __future__ import annotations

from typing import Any

from dure.api.meta import ObjectKey, condition, is_deleting, key_of, name_of, uid_of, with_condition
from dure.control.controller import Controller, Result
from dure.controllers.pods import is_finished
from dure.controllers.shared import Context, itself
from dure.core.clock import parse_rfc3339
from dure.core.errors import NotFound
from dure.core.json import Obj, thaw

_GRACE_SECONDS = 40.0
_NOT_READY, _UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
_OURS = (_NOT_READY, _UNREACHABLE)


def wanted_taints(node: Obj, now: str) -> list[dict[str, Any]]:
    """The node's taints with ours as its Ready condition says."""
    present = node["spec"].get("taints") or []
    kept = [taint for taint in present if taint["key"] not in _OURS]
    ready = condition(node, "Ready")
    status = ready["status"] if ready else "Unknown"
    if status == "True":
        return kept
    key = _NOT_READY if status == "False" else _UNREACHABLE
    ours = []
    for effect in ("NoSchedule", "NoExecute"):
        before = next((t for t in present if t["key"] == key and t["effect"] == effect), None)
        fresh: dict[str, Any] = {"key": key, "effect": effect}
        if effect == "NoExecute":
            fresh["timeAdded"] = now
        ours.append(before or fresh)
    return kept + ours


def seconds_until_eviction(pod: Obj, taints: list[dict[str, Any]], now: float) -> float | None:
    """When NoExecute taints drive the pod away: None never, 0 now."""
    waits: list[float] = []
    for taint in taints:
        if taint.get("effect") != "NoExecute":
            continue
        limits = [t.get("tolerationSeconds") for t in pod["spec"].get("tolerations") or [] if _tolerates(t, taint)]
        if not limits:
            return 0
        finite = [float(limit) for limit in limits if limit is not None]
        if finite:
            since = parse_rfc3339(taint["timeAdded"]) if taint.get("timeAdded") else now
            waits.append(max(0.0, since + min(finite) - now))
    return min(waits, default=None)


def _tolerates(toleration: dict[str, Any], taint: dict[str, Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


class NodeReconciler:
    """Keyed by Node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._client = context.client
        self._nodes = context.informers.of("nodes")
        self._leases = context.informers.of("leases.coordination.k8s.io")
        self._pods = context.informers.of("pods")

    def build(self) -> Controller:
        controller = Controller("node", self, workers=2)
        controller.watches(self._nodes, itself)
        controller.watches(self._leases, self._node_of_lease)
        return controller

    def _node_of_lease(self, lease: Obj) -> list[ObjectKey]:
        """Renewals of a healthy node are no news: its key comes back by its own timer."""
        if lease["metadata"]["namespace"] != "kube-node-lease":
            return []
        key = ObjectKey("", name_of(lease))
        node = self._nodes.get(key)
        ready = condition(node, "Ready") if node else None
        return [] if ready and ready["status"] == "True" else [key]

    async def reconcile(self, key: ObjectKey) -> Result:
        node = self._nodes.get(key)
        if node is None:
            await self._forget_pods(key.name)
            return Result()
        silent = self._silent_for(node)
        if silent is not None and silent >= _GRACE_SECONDS:
            node = await self._mark_unknown(node)
        node = await self._taint(node)
        wait = await self._evict(node)
        left = _GRACE_SECONDS - silent if silent is not None and silent < _GRACE_SECONDS else _GRACE_SECONDS
        return Result(requeue_after=min(max(left, 1.0), wait if wait is not None else left))

    def _silent_for(self, node: Obj) -> float | None:
        """Seconds since the last sign of life; None for a node that never had an agent."""
        lease = self._leases.get(ObjectKey("kube-node-lease", name_of(node)))
        stamp = (lease or {}).get("spec", {}).get("renewTime")
        if not stamp:
            ready = condition(node, "Ready")
            stamp = (ready or {}).get("lastHeartbeatTime") or node["metadata"].get("creationTimestamp")
        return self._context.clock.time() - parse_rfc3339(stamp) if stamp else None

    async def _mark_unknown(self, node: Obj) -> Obj:
        conditions = (node.get("status") or {}).get("conditions") or []
        if all(item["status"] == "Unknown" for item in conditions) and condition(node, "Ready"):
            return node
        now = self._context.now()
        for type_ in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"):
            before = condition(node, type_) or {}
            entry = {
                **before,
                "type": type_,
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
            }
            conditions = with_condition(conditions, entry, now)
        await self._context.recorder.record(
            node, "Normal", "NodeNotReady", f"Node {name_of(node)} status is now: NodeNotReady"
        )
        await self._unready_pods(name_of(node))
        patch = {"status": {"conditions": conditions}}
        return await self._client.patch("nodes", name_of(node), "", patch, subresource="status")

    async def _unready_pods(self, node: str) -> None:
        """Pods of a silent node leave their services."""
        for pod in self._pods_on(node):
            ready = condition(pod, "Ready")
            if ready is None or ready["status"] != "True":
                continue
            conditions = with_condition(
                pod["status"]["conditions"],
                {"type": "Ready", "status": "False", "reason": "NodeNotReady"},
                self._context.now(),
            )
            namespace, name = key_of(pod)
            try:
                await self._client.patch(
                    "pods", name, namespace, {"status": {"conditions": conditions}}, subresource="status"
                )
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
        taints = node["spec"].get("taints") or []
        if not any(taint["effect"] == "NoExecute" for taint in taints):
            return None
        now, waits = self._context.clock.time(), []
        for pod in self._pods_on(name_of(node)):
            wait = seconds_until_eviction(pod, taints, now)
            if wait is None or is_deleting(pod):
                continue
            if wait > 0:
                waits.append(wait)
                continue
            namespace, name = key_of(pod)
            await self._context.recorder.record(
                pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {namespace}/{name}"
            )
            try:
                await self._client.delete("pods", name, namespace, uid=uid_of(pod))
            except NotFound:
                continue  # gone meanwhile
        return min(waits, default=None)

    async def _forget_pods(self, node: str) -> None:
        """The node object was deleted: nobody will ever finish its pods."""
        for pod in self._pods_on(node):
            namespace, name = key_of(pod)
            try:
                await self._client.delete("pods", name, namespace, grace_seconds=0, uid=uid_of(pod))
            except NotFound:
                continue  # gone meanwhile
