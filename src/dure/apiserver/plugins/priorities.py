"""A pod's priority comes from its class; two classes are the system's own."""

from __future__ import annotations

from dure.apiserver.admission import Attributes
from dure.apiserver.errors import forbidden
from dure.core.json import Obj, loads
from dure.store.model import KeyNotFound, Store

_PREFIX = "scheduling.k8s.io/priorityclasses/"
SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


class Priorities:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def admit(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.operation != "CREATE" or attributes.kind.resource != "pods" or pod is None:
            return
        spec = pod["spec"]
        name = spec.get("priorityClassName") or ""
        if name in SYSTEM_PRIORITIES:
            spec["priority"] = SYSTEM_PRIORITIES[name]
            return
        chosen = await self._class(name) if name else await self._default()
        if name and chosen is None:
            raise forbidden(attributes.kind, attributes.name, f"no PriorityClass with name {name} was found")
        if chosen is not None:
            spec["priorityClassName"] = chosen["metadata"]["name"]
            spec["priority"] = chosen.get("value", 0)
            spec["preemptionPolicy"] = chosen.get("preemptionPolicy") or "PreemptLowerPriority"

    async def _class(self, name: str) -> Obj | None:
        try:
            record = await self._store.get(f"{_PREFIX}{name}")
        except KeyNotFound:
            return None
        found: Obj = loads(record.value)
        return found

    async def _default(self) -> Obj | None:
        """The class marked as default; the smallest of several."""
        page = await self._store.list(_PREFIX)
        marked = [found for record in page.records if (found := loads(record.value)).get("globalDefault")]
        return min(marked, key=lambda item: int(item.get("value", 0)), default=None)
