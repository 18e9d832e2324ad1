"""LimitRanges of a namespace: defaults for containers without requests or limits, and bounds on those with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dure.api.quantities import parse_quantity
from dure.apiserver.admission import Attributes
from dure.apiserver.errors import forbidden
from dure.core.json import Obj, loads
from dure.store.model import Store


class LimitRanges:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def admit(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if attributes.operation != "CREATE" or attributes.subresource or obj is None:
            return
        if attributes.kind.resource not in ("pods", "persistentvolumeclaims"):
            return
        page = await self._store.list(f"core/limitranges/{attributes.namespace}/")
        faults: list[str] = []
        for record in page.records:
            for limit in (loads(record.value).get("spec") or {}).get("limits") or ():
                faults += _apply(limit, attributes.kind.kind, obj)
        if faults:
            text = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
            raise forbidden(attributes.kind, attributes.name, text)


def _apply(limit: Obj, kind: str, obj: Obj) -> list[str]:
    match limit.get("type"), kind:
        case "Container", "Pod":
            containers = [*(obj["spec"].get("initContainers") or ()), *obj["spec"]["containers"]]
            return [fault for container in containers for fault in _container(limit, container)]
        case "Pod", "Pod":
            return list(_bounds(limit, "Pod", _sums(obj["spec"])))
        case "PersistentVolumeClaim", "PersistentVolumeClaim":
            return list(_bounds(limit, "PersistentVolumeClaim", (obj["spec"].get("resources") or {})))
    return []


def _container(limit: Obj, container: Obj) -> list[str]:
    resources = container.setdefault("resources", {})
    given = dict(resources.get("limits") or {})
    for part, defaults in (("limits", limit.get("default")), ("requests", limit.get("defaultRequest"))):
        for name, amount in (defaults or {}).items():
            mine = resources.setdefault(part, {})
            if name not in mine:
                # a limit the container chose itself is also what it requests
                mine[name] = given[name] if part == "requests" and name in given else amount
    return list(_bounds(limit, "Container", resources))


def _sums(spec: Obj) -> dict[str, dict[str, Any]]:
    totals: dict[str, dict[str, Any]] = {"limits": {}, "requests": {}}
    for container in spec["containers"]:
        for part, amounts in totals.items():
            for name, amount in ((container.get("resources") or {}).get(part) or {}).items():
                amounts[name] = amounts.get(name, 0) + parse_quantity(amount)
    return totals


def _amount(value: Any) -> Any:
    return parse_quantity(value) if isinstance(value, str | int) else value


def _bounds(limit: Obj, type_: str, resources: Obj) -> Iterator[str]:
    """What breaks minimum, maximum or the ratio between limit and request."""
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, least in (limit.get("min") or {}).items():
        if name not in requests:
            yield f"minimum {name} usage per {type_} is {least}.  No request is specified"
        elif _amount(requests[name]) < parse_quantity(least):
            yield f"minimum {name} usage per {type_} is {least}, but request is {requests[name]}"
    for name, most in (limit.get("max") or {}).items():
        held = limits.get(name, requests.get(name) if type_ == "PersistentVolumeClaim" else None)
        if held is None:
            yield f"maximum {name} usage per {type_} is {most}.  No limit is specified"
        elif _amount(held) > parse_quantity(most):
            yield f"maximum {name} usage per {type_} is {most}, but limit is {held}"
    for name, ratio in (limit.get("maxLimitRequestRatio") or {}).items():
        text = f"{name} max limit to request ratio per {type_} is {ratio}"
        request, upper = _amount(requests.get(name, 0)), _amount(limits.get(name, 0))
        if not request or not upper:
            yield f"{text}, but no request is specified or request is 0"
        elif upper / request > parse_quantity(ratio):
            yield f"{text}, but provided ratio is {upper / request:.6f}"
