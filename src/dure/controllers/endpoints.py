"""EndpointSlices and Endpoints of every Service with a selector, and slices mirrored from hand-made Endpoints."""

from __future__ import annotations

from dure.api.meta import ObjectKey, annotations_of, key_of, labels_of, name_of, namespace_of, owner_reference
from dure.api.selectors import from_map
from dure.control.controller import Controller, Result
from dure.controllers.endpoint_rules import (
    MANAGED_BY,
    MANAGER,
    SERVICE_NAME,
    desired_endpoints,
    desired_slices,
    is_managed,
    same_slice,
)
from dure.controllers.shared import Context, itself
from dure.core.errors import AlreadyExists, NotFound
from dure.core.json import Obj, thaw

_MIRROR = "endpointslicemirroring-controller.k8s.io"
_SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
_NOT_MIRRORED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    "endpoints.kubernetes.io/last-change-trigger-time",
}


class EndpointsReconciler:
    """Keyed by Service."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._services = context.informers.of("services")
        self._pods = context.informers.of("pods")
        self._slices = context.informers.of("endpointslices.discovery.k8s.io")
        self._endpoints = context.informers.of("endpoints")

    def build(self) -> Controller:
        controller = Controller("endpoints", self, workers=5)
        controller.watches(self._services, itself)
        controller.watches(self._pods, self._services_of)
        controller.watches(self._slices, self._service_of_slice)
        controller.watches(self._endpoints, itself)
        return controller

    def _services_of(self, pod: Obj) -> list[ObjectKey]:
        found = []
        for service in self._services.list(namespace_of(pod)):
            selector = from_map(service["spec"].get("selector"))
            if selector and selector.matches(labels_of(pod)):
                found.append(key_of(service))
        return found

    @staticmethod
    def _service_of_slice(obj: Obj) -> list[ObjectKey]:
        service = labels_of(obj).get(SERVICE_NAME)
        return [ObjectKey(namespace_of(obj), service)] if service else []

    async def reconcile(self, key: ObjectKey) -> Result:
        service = self._services.get(key)
        if service is None:
            await self._remove(key)
            return Result()
        if is_managed(service):
            selector = from_map(service["spec"]["selector"])
            pods = [pod for pod in self._pods.list(key.namespace) if selector and selector.matches(labels_of(pod))]
            present = self._mine(key, MANAGER)
            await self._sync_slices(present, desired_slices(service, pods, present.values()))
            await self._sync_endpoints(desired_endpoints(service, pods))
        else:
            await self._mirror(service)
        return Result()

    def _mine(self, key: ObjectKey, manager: str) -> dict[str, Obj]:
        return {
            name_of(item): item
            for item in self._slices.list(key.namespace)
            if labels_of(item).get(SERVICE_NAME) == key.name and labels_of(item).get(MANAGED_BY) == manager
        }

    async def _sync_slices(self, present: dict[str, Obj], wanted: list[Obj]) -> None:
        for item in wanted:
            there = present.pop(name_of(item), None)
            if there is None:
                await self._create(item)
            elif not same_slice(there, item):
                changed = thaw(there)
                changed["endpoints"], changed["ports"] = item["endpoints"], item["ports"]
                changed["metadata"]["labels"] = item["metadata"]["labels"]
                await self._client.update(changed)
        for item in present.values():
            await self._delete("endpointslices.discovery.k8s.io", item)

    async def _create(self, obj: Obj) -> None:
        try:
            await self._client.create(obj)
        except AlreadyExists:
            return  # made a moment ago; its event brings this key back
        except NotFound:
            return  # the namespace has gone

    async def _sync_endpoints(self, wanted: Obj) -> None:
        there = self._endpoints.get(key_of(wanted))
        if there is None:
            await self._create(wanted)
        elif (there.get("subsets") or []) != (wanted.get("subsets") or []) or labels_of(there) != labels_of(wanted):
            changed = thaw(there)
            changed.pop("subsets", None)
            changed |= {"subsets": wanted["subsets"]} if "subsets" in wanted else {}
            changed["metadata"]["labels"] = wanted["metadata"]["labels"]
            await self._client.update(changed)

    async def _mirror(self, service: Obj) -> None:
        """Hand-made Endpoints of a Service without selector also appear as slices."""
        key = key_of(service)
        endpoints = self._endpoints.get(key)
        wanted: list[Obj] = []
        if endpoints is not None and labels_of(endpoints).get(_SKIP_MIRROR) != "true":
            wanted = [_mirrored(endpoints, number) for number in range(len(endpoints.get("subsets") or []))]
        await self._sync_slices(self._mine(key, _MIRROR), wanted)

    async def _remove(self, key: ObjectKey) -> None:
        for manager in (MANAGER, _MIRROR):
            for item in self._mine(key, manager).values():
                await self._delete("endpointslices.discovery.k8s.io", item)
        left = self._endpoints.get(key)
        if left is not None and labels_of(left).get("endpoints.kubernetes.io/managed-by"):
            await self._delete("endpoints", left)

    async def _delete(self, resource: str, obj: Obj) -> None:
        try:
            await self._client.delete(resource, name_of(obj), namespace_of(obj))
        except NotFound:
            return  # gone already


def _mirrored(endpoints: Obj, number: int) -> Obj:
    """One slice for each subset, with the labels and annotations of the original."""
    subset = endpoints["subsets"][number]
    entries = []
    for side, ready in (("addresses", True), ("notReadyAddresses", False)):
        for address in subset.get(side) or []:
            entry: Obj = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
            for field in ("hostname", "nodeName", "targetRef"):
                if field in address:
                    entry[field] = address[field]
            entries.append(entry)
    ports = [
        {"name": port.get("name") or "", "protocol": port.get("protocol") or "TCP", "port": port["port"]}
        for port in subset.get("ports") or []
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name_of(endpoints)[:57]}-m{number}",
            "namespace": namespace_of(endpoints),
            "labels": {**labels_of(endpoints), SERVICE_NAME: name_of(endpoints), MANAGED_BY: _MIRROR},
            "annotations": {key: value for key, value in annotations_of(endpoints).items() if key not in _NOT_MIRRORED},
            "ownerReferences": [owner_reference(endpoints)],
        },
        "addressType": "IPv4",
        "endpoints": entries,
        "ports": ports,
    }
