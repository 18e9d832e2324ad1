"""Requests and limits as cgroup numbers, by kubelet's formulas. Pure."""

from __future__ import annotations

from dure.api.quantities import milli, whole
from dure.core.json import Obj
from dure.node.pods.model import init_containers, is_sidecar, main_containers
from dure.node.pods.qos import qos_class
from dure.node.ports import Resources

MIN_SHARES = 2
PERIOD = 100_000
MIN_QUOTA = 1000
GUARANTEED_OOM, BEST_EFFORT_OOM = -997, 1000


def cpu_shares(millis: int) -> int:
    return max(MIN_SHARES, min(262144, millis * 1024 // 1000))


def cpu_quota(millis: int) -> int:
    """Microseconds of each period; 0 is no limit."""
    return max(MIN_QUOTA, millis * PERIOD // 1000) if millis else 0


def container_resources(pod: Obj, container: Obj, memory_capacity: int) -> Resources:
    given = container.get("resources") or {}
    requests, limits = given.get("requests") or {}, given.get("limits") or {}
    limit = milli(limits["cpu"]) if "cpu" in limits else 0
    asked = milli(requests["cpu"]) if "cpu" in requests else limit
    return Resources(
        cpu_shares=cpu_shares(asked),
        cpu_quota=cpu_quota(limit),
        cpu_period=PERIOD,
        memory_bytes=whole(limits["memory"]) if "memory" in limits else 0,
        oom_score_adj=oom_score_adj(pod, container, memory_capacity),
    )


def oom_score_adj(pod: Obj, container: Obj, memory_capacity: int) -> int:
    if pod["spec"].get("priorityClassName") == "system-node-critical":
        return GUARANTEED_OOM
    match qos_class(pod):
        case "Guaranteed":
            return GUARANTEED_OOM
        case "BestEffort":
            return BEST_EFFORT_OOM
    requests = (container.get("resources") or {}).get("requests") or {}
    asked = whole(requests["memory"]) if "memory" in requests else 0
    score = 1000 - (1000 * asked) // max(memory_capacity, 1)
    return max(1000 + GUARANTEED_OOM, min(score, BEST_EFFORT_OOM - 1))


def pod_resources(pod: Obj) -> Resources:
    """The pod's own cgroup: the sum of its containers; a limit only where every container has one."""
    containers = [*main_containers(pod), *(item for item in init_containers(pod) if is_sidecar(item))]
    ordinary = [item for item in init_containers(pod) if not is_sidecar(item)]
    shares = max(
        _sum(containers, "requests", "cpu"), max((_one(item, "requests", "cpu") for item in ordinary), default=0)
    )
    everyone = [*containers, *ordinary]
    quota = memory = 0
    if all(_one(item, "limits", "cpu") for item in everyone):
        quota = max(
            _sum(containers, "limits", "cpu"), max((_one(item, "limits", "cpu") for item in ordinary), default=0)
        )
    if all(_one(item, "limits", "memory") for item in everyone):
        memory = max(
            _sum(containers, "limits", "memory"), max((_one(item, "limits", "memory") for item in ordinary), default=0)
        )
    return Resources(cpu_shares=cpu_shares(shares), cpu_quota=cpu_quota(quota), cpu_period=PERIOD, memory_bytes=memory)


def _sum(containers: list[Obj], field: str, resource: str) -> int:
    return sum(_one(container, field, resource) for container in containers)


def _one(container: Obj, field: str, resource: str) -> int:
    resources = container.get("resources") or {}
    amount = (resources.get(field) or {}).get(resource)
    if amount is None and field == "requests":
        amount = (resources.get("limits") or {}).get(resource)
    if amount is None:
        return 0
    return milli(amount) if resource == "cpu" else whole(amount)
