"""The columns of services, endpoints, ingresses and network policies."""

from __future__ import annotations

from typing import Any

from dure.api.columns.cells import AGE, NAME, NONE, at, column, joined, labels_text, text
from dure.api.selectors import format_label_selector
from dure.core.json import Obj

_SHOWN = 3


def _cluster_ip(service: Obj, now: float) -> str:
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return NONE
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return str(addresses[0] or NONE)


def ingress_addresses(obj: Obj) -> list[str]:
    """What a load balancer's status names."""
    points = at(obj, "status", "loadBalancer", "ingress") or []
    return [point.get("ip") or point.get("hostname") or "" for point in points]


def _external_ip(service: Obj, now: float) -> str:
    spec = service.get("spec") or {}
    given = spec.get("externalIPs") or []
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName") or "")
    if spec.get("type") == "LoadBalancer":
        return joined([*sorted(set(ingress_addresses(service))), *given], "<pending>")
    return joined(given)


def _service_ports(service: Obj, now: float) -> str:
    shown = []
    for port in at(service, "spec", "ports") or []:
        node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port.get('port')}{node_port}/{port.get('protocol', 'TCP')}")
    return joined(shown)


SERVICES = (
    NAME,
    column("Type", text("spec", "type"), text="How the service is exposed."),
    column("Cluster-IP", _cluster_ip, text="The address of the service inside the cluster."),
    column("External-IP", _external_ip),
    column("Port(s)", _service_ports),
    AGE,
    column("Selector", lambda obj, now: labels_text(at(obj, "spec", "selector")), wide=True),
)


def _shortened(items: list[str], default: str) -> str:
    more = f" + {len(items) - _SHOWN} more..." if len(items) > _SHOWN else ""
    return joined(items[:_SHOWN], default) + more


def _endpoints(obj: Obj, now: float) -> str:
    found: list[str] = []
    for subset in obj.get("subsets") or []:
        addresses = [address.get("ip", "") for address in subset.get("addresses") or []]
        ports = subset.get("ports") or []
        if not ports:
            found += addresses
        for port in ports:
            found += [f"{address}:{port.get('port')}" for address in addresses]
    return _shortened(found, NONE)


def _slice_ports(obj: Obj, now: float) -> str:
    ports = [str(port["port"]) if port.get("port") else "*" for port in obj.get("ports") or []]
    return _shortened(ports, "<unset>")


def _slice_addresses(obj: Obj, now: float) -> str:
    found = [address for endpoint in obj.get("endpoints") or [] for address in endpoint.get("addresses") or []]
    return _shortened(found, "<unset>")


ENDPOINTS = (NAME, column("Endpoints", _endpoints), AGE)
ENDPOINT_SLICES = (
    NAME,
    column("AddressType", text("addressType")),
    column("Ports", _slice_ports),
    column("Endpoints", _slice_addresses),
    AGE,
)


def _hosts(obj: Obj, now: float) -> str:
    found = [rule["host"] for rule in at(obj, "spec", "rules") or [] if rule.get("host")]
    return _shortened(found, "*")


def _ingress_class(obj: Obj, now: float) -> Any:
    legacy = (obj["metadata"].get("annotations") or {}).get("kubernetes.io/ingress.class")
    return at(obj, "spec", "ingressClassName") or legacy or NONE


INGRESSES = (
    NAME,
    column("Class", _ingress_class),
    column("Hosts", _hosts),
    column("Address", lambda obj, now: joined(ingress_addresses(obj), "")),
    column("Ports", lambda obj, now: "80, 443" if at(obj, "spec", "tls") else "80"),
    AGE,
)


def _parameters(obj: Obj, now: float) -> str:
    parameters = at(obj, "spec", "parameters")
    if not parameters:
        return NONE
    group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
    return f"{parameters.get('kind')}{group}/{parameters.get('name')}"


INGRESS_CLASSES = (NAME, column("Controller", text("spec", "controller")), column("Parameters", _parameters), AGE)
NETWORK_POLICIES = (
    NAME,
    column("Pod-Selector", lambda obj, now: format_label_selector(at(obj, "spec", "podSelector")) or NONE),
    AGE,
)
