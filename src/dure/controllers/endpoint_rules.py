"""From a Service and its pods to endpoints, grouped into slices: pure.

Follows Kubernetes' EndpointSlice controller: ready means ready and not ending, serving means ready.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
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
        **({"nodeName": pod["spec"]["nodeName"]} if pod["spec"].get("nodeName") else {}),
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


def desired_slices(service: Obj, pods: Iterable[Obj], present: Iterable[Obj] = ()) -> list[Obj]:
    """As few slices as need be; an endpoint stays in the slice it is in, so that a change touches one of them."""
    there = {name_of(item): item for item in present}
    slices = []
    for ports, endpoints in group(service, pods).items():
        for part, entries in _parted(service, ports, endpoints, there).items():
            slices.append(_slice(service, ports, entries, part))
    return slices


def _parted(
    service: Obj, ports: Ports, endpoints: list[dict[str, Any]], present: Mapping[str, Obj]
) -> dict[int, list[dict[str, Any]]]:
    """Endpoints by the number of their slice; slices that would be empty are left out, but for one."""
    fresh = {_identity(endpoint): endpoint for endpoint in endpoints}
    parts: dict[int, list[dict[str, Any]]] = {}
    for part in range(-(-len(endpoints) // _PER_SLICE) + len(present)):
        item = present.get(_slice_name(service, ports, part))
        kept = [_identity(entry) for entry in item.get("endpoints") or []] if item else []
        parts[part] = [fresh.pop(key) for key in kept if key in fresh]
    for endpoint in fresh.values():
        roomy = [part for part, entries in parts.items() if len(entries) < _PER_SLICE]
        fullest = max(roomy, key=lambda part: (len(parts[part]), -part))
        parts[fullest].append(endpoint)
    filled = {part: entries for part, entries in parts.items() if entries}
    return filled or {0: []}


def _identity(endpoint: Mapping[str, Any]) -> tuple[str, str]:
    return (endpoint.get("targetRef") or {}).get("uid") or "", endpoint["addresses"][0]


def _slice_name(service: Obj, ports: Ports, part: int) -> str:
    short = hashlib.sha256(dumps_sorted([uid_of(service), [list(port) for port in ports], part])).hexdigest()[:5]
    return f"{name_of(service)[:57]}-{short}"


def _slice(service: Obj, ports: Ports, endpoints: list[dict[str, Any]], part: int) -> Obj:
    labels = {**labels_of(service), SERVICE_NAME: name_of(service), MANAGED_BY: MANAGER}
    if service["spec"].get("clusterIP") == "None":
        labels[_HEADLESS] = ""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": _slice_name(service, ports, part),
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
    return labels_of(left) == labels_of(right) and all(
        (left.get(field) or []) == (right.get(field) or []) for field in ("endpoints", "ports")
    )


def desired_endpoints(service: Obj, pods: Iterable[Obj]) -> Obj:
    """The older Endpoints object: one subset for each set of ports; what is ending is not in it."""
    anyway = bool(service["spec"].get("publishNotReadyAddresses"))
    subsets = []
    for ports, endpoints in sorted(group(service, pods).items()):
        shown = [endpoint for endpoint in endpoints if anyway or not endpoint["conditions"]["terminating"]]
        if shown:
            subsets.append(_subset(ports, shown))
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
        address: dict[str, Any] = {"ip": endpoint["addresses"][0]}
        address |= {field: endpoint[field] for field in ("hostname", "nodeName", "targetRef") if field in endpoint}
        sides["addresses" if endpoint["conditions"]["ready"] else "notReadyAddresses"].append(address)
    found: dict[str, Any] = {side: entries for side, entries in sides.items() if entries}
    return found | ({"ports": [_port(port) for port in ports]} if ports else {})


def is_managed(service: Obj) -> bool:
    """Whether endpoints come from a selector; others are kept by hand."""
    return bool(service["spec"].get("selector")) and service["spec"].get("type") != "ExternalName"
