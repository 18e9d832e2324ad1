"""From a Service and its pods to endpoints, grouped into slices: pure.

Follows Kubernetes' EndpointSlice controller: ready means ready and not ending, serving means ready.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from dure.api.meta import is_deleting, labels_of, name_of, namespace_of, owner_reference, uid_of
from dure.controllers.pods import is_finished, is_ready
from dure.core.json import Obj, dumps_sorted

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
_HEADLESS = "service.kubernetes.io/headless"
_PER_SLICE = 100

Ports = tuple[tuple[str, str, int, str], ...]
"""(name, protocol, port, appProtocol) of one slice."""


def port_of(pod: Obj, target: Any, fallback: int, protocol: str) -> int | None:
    """The pod's port number behind a targetPort; None when a named port is not there."""
    if target in (None, "", 0):
        return fallback
    if isinstance(target, int):
        return target
    sidecars = [c for c in pod["spec"].get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    for container in [*pod["spec"].get("containers", []), *sidecars]:
        for port in container.get("ports") or []:
            if port.get("name") == target and (port.get("protocol") or "TCP") == protocol:
                return int(port["containerPort"])
    return int(target) if str(target).isdigit() else None


def ports_of(service: Obj, pod: Obj) -> Ports:
    found = []
    for port in service["spec"].get("ports") or []:
        protocol = port.get("protocol") or "TCP"
        number = port_of(pod, port.get("targetPort"), int(port["port"]), protocol)
        if number is not None:
            found.append((port.get("name") or "", protocol, number, port.get("appProtocol") or ""))
    return tuple(found)


def has_address(pod: Obj) -> bool:
    """Whether the pod may stand behind a service at all."""
    return bool((pod.get("status") or {}).get("podIP")) and not is_finished(pod)


def endpoint_of(service: Obj, pod: Obj) -> dict[str, Any]:
    """One entry of an EndpointSlice."""
    ending = is_deleting(pod)
    serving = is_ready(pod)
    anyway = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint: dict[str, Any] = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": anyway or (serving and not ending), "serving": serving, "terminating": ending},
        "nodeName": pod["spec"].get("nodeName", ""),
        "targetRef": {"kind": "Pod", "namespace": namespace_of(pod), "name": name_of(pod), "uid": uid_of(pod)},
    }
    hostname = pod["spec"].get("hostname")
    if hostname and pod["spec"].get("subdomain") == name_of(service):
        endpoint["hostname"] = hostname
    return endpoint


def group(service: Obj, pods: Iterable[Obj]) -> dict[Ports, list[dict[str, Any]]]:
    """Endpoints by the ports they offer, each group in order of address."""
    groups: dict[Ports, list[dict[str, Any]]] = {}
    for pod in pods:
        if has_address(pod):
            groups.setdefault(ports_of(service, pod), []).append(endpoint_of(service, pod))
    for endpoints in groups.values():
        endpoints.sort(key=lambda endpoint: endpoint["targetRef"]["uid"])
    return groups or {(): []}


def desired_slices(service: Obj, pods: Iterable[Obj]) -> list[Obj]:
    """Slices under names that depend only on the ports and the part, so that a change touches few of them."""
    slices = []
    for ports, endpoints in group(service, pods).items():
        parts = range(0, max(1, len(endpoints)), _PER_SLICE)
        for number, start in enumerate(parts):
            slices.append(_slice(service, ports, endpoints[start : start + _PER_SLICE], number))
    return slices


def _slice(service: Obj, ports: Ports, endpoints: list[dict[str, Any]], part: int) -> Obj:
    short = hashlib.sha256(dumps_sorted([uid_of(service), [list(port) for port in ports], part])).hexdigest()[:5]
    labels = {**labels_of(service), SERVICE_NAME: name_of(service), MANAGED_BY: MANAGER}
    if service["spec"].get("clusterIP") == "None":
        labels[_HEADLESS] = ""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name_of(service)[:57]}-{short}",
            "namespace": namespace_of(service),
            "labels": labels,
            "ownerReferences": [owner_reference(service)],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [_port(port) for port in ports],
    }


def _port(port: tuple[str, str, int, str]) -> dict[str, Any]:
    name, protocol, number, app = port
    entry: dict[str, Any] = {"name": name, "protocol": protocol, "port": number}
    return {**entry, "appProtocol": app} if app else entry


def same_slice(left: Obj, right: Obj) -> bool:
    """Whether two slices say the same about endpoints, ports and labels."""
    return (
        left.get("endpoints") == right.get("endpoints")
        and left.get("ports") == right.get("ports")
        and labels_of(left) == labels_of(right)
    )


def desired_endpoints(service: Obj, pods: Iterable[Obj]) -> Obj:
    """The older Endpoints object: one subset for each set of ports."""
    subsets = []
    for ports, endpoints in sorted(group(service, pods).items()):
        subset = _subset(ports, [endpoint for endpoint in endpoints if not endpoint["conditions"]["terminating"]])
        if subset:
            subsets.append(subset)
    result: Obj = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": name_of(service),
            "namespace": namespace_of(service),
            "labels": {**labels_of(service), "endpoints.kubernetes.io/managed-by": "endpoint-controller"},
        },
    }
    if service["spec"].get("clusterIP") == "None":
        result["metadata"]["labels"][_HEADLESS] = ""
    if subsets:
        result["subsets"] = subsets
    return result


def _subset(ports: Ports, endpoints: Sequence[dict[str, Any]]) -> dict[str, Any]:
    sides: dict[str, list[dict[str, Any]]] = {"addresses": [], "notReadyAddresses": []}
    for endpoint in endpoints:
        address: dict[str, Any] = {
            "ip": endpoint["addresses"][0],
            "nodeName": endpoint["nodeName"],
            "targetRef": endpoint["targetRef"],
        }
        if "hostname" in endpoint:
            address["hostname"] = endpoint["hostname"]
        sides["addresses" if endpoint["conditions"]["ready"] else "notReadyAddresses"].append(address)
    if not endpoints:
        return {}
    return {
        **{side: entries for side, entries in sides.items() if entries},
        "ports": [_port(port) for port in ports],
    }


def is_managed(service: Obj) -> bool:
    """Whether endpoints come from a selector; others are kept by hand."""
    return bool(service["spec"].get("selector")) and service["spec"].get("type") != "ExternalName"
