"""The quality-of-service class of a pod, from its requests and limits. Pure."""

from __future__ import annotations

from dure.api.quantities import parse_quantity
from dure.core.json import Obj
from dure.node.pods.model import init_containers, main_containers

RESOURCES = ("cpu", "memory")


def qos_class(pod: Obj) -> str:
    """What the API server wrote into the status, else worked out here: Guaranteed, Burstable or BestEffort."""
    known = (pod.get("status") or {}).get("qosClass")
    if known:
        return str(known)
    containers = [*init_containers(pod), *main_containers(pod)]
    asked = [_amounts(container, field) for container in containers for field in ("requests", "limits")]
    if not any(asked):
        return "BestEffort"
    return "Guaranteed" if all(_is_guaranteed(container) for container in containers) else "Burstable"


def _amounts(container: Obj, field: str) -> dict[str, object]:
    given = (container.get("resources") or {}).get(field) or {}
    return {name: given[name] for name in RESOURCES if name in given and parse_quantity(given[name]) > 0}


def _is_guaranteed(container: Obj) -> bool:
    limits, requests = _amounts(container, "limits"), _amounts(container, "requests")
    return all(
        name in limits and parse_quantity(str(limits[name])) == parse_quantity(str(requests.get(name, limits[name])))
        for name in RESOURCES
    )
