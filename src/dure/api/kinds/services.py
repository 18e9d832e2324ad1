"""Service: defaults and rules (`core/v1/defaults.go`, `core/validation.ValidateService`).

Addresses and node ports are given by the API server's allocators between `prepare_create` and storing; here
`clusterIP: None` and ExternalName are told apart, and what was allocated is kept on update.
"""

from __future__ import annotations

from typing import Any

from dure.api.fields import duplicate, forbidden, invalid, not_supported, required
from dure.api.kind import FieldError
from dure.api.kinds.rules import check_choice, check_name, check_optional, check_optional_choice, check_port
from dure.api.kinds.strategy import StandardStrategy, field
from dure.api.names import dns1035_label, dns1123_label, dns1123_subdomain, ip_address, port_number, qualified_name
from dure.api.objectmeta import validate_labels
from dure.core.json import Obj, thaw

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PUBLISHED = ("NodePort", "LoadBalancer")
_AFFINITY_SECONDS = 10800
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_FIELDS = {"spec.clusterIP": field("spec", "clusterIP"), "spec.type": field("spec", "type")}


class ServiceStrategy(StandardStrategy):
    name_rule = staticmethod(dns1035_label)
    has_status = True
    selectable = _FIELDS

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("sessionAffinity"):
            spec["sessionAffinity"] = "None"
        if not spec.get("type"):
            spec["type"] = "ClusterIP"
        _default_affinity(spec)
        for port in spec.get("ports") or []:
            if not port.get("protocol"):
                port["protocol"] = "TCP"
            if port.get("targetPort") in (None, 0, ""):
                port["targetPort"] = port.get("port", 0)
        _default_policies(spec)
        if spec["type"] == "LoadBalancer":
            spec.setdefault("allocateLoadBalancerNodePorts", True)

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        obj["status"] = {"loadBalancer": {}}
        _default_families(obj["spec"])

    def prepare_update(self, obj: Obj, old: Obj, subresource: str) -> None:
        super().prepare_update(obj, old, subresource)
        if not subresource:
            _keep_allocated(obj["spec"], old["spec"])
            _default_families(obj["spec"])

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj["spec"]
        errors = _ports(spec, "spec.ports")
        errors += check_choice("spec.type", spec.get("type"), TYPES)
        errors += check_choice("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
        errors += validate_labels(spec.get("selector"), "spec.selector")
        errors += _addresses(spec) + _by_type(spec) + _affinity(spec)
        for name in ("internalTrafficPolicy", "externalTrafficPolicy"):
            errors += check_optional_choice(f"spec.{name}", spec.get(name), ("Cluster", "Local"))
        return errors

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        new, was = obj["spec"], old["spec"]
        if "ExternalName" in (new["type"], was["type"]) or not was.get("clusterIP"):
            return []
        if new.get("clusterIP") == was["clusterIP"]:
            return []
        if new.get("clusterIP"):
            return [invalid("spec.clusterIPs[0]", new["clusterIP"], "may not change once set")]
        return [invalid("spec.clusterIPs[0]", "", "primary clusterIP can not be unset")]


def _default_affinity(spec: Obj) -> None:
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        config = spec.setdefault("sessionAffinityConfig", {})
        config.setdefault("clientIP", {}).setdefault("timeoutSeconds", _AFFINITY_SECONDS)


def _default_policies(spec: Obj) -> None:
    published = spec["type"] in _PUBLISHED or (spec["type"] == "ClusterIP" and spec.get("externalIPs"))
    if published and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")


def is_headless(spec: Obj) -> bool:
    return spec.get("clusterIP") == "None"


def _default_families(spec: Obj) -> None:
    """One IPv4 family: the cluster has no other. clusterIP and clusterIPs mirror each other."""
    if spec["type"] == "ExternalName":
        for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            spec.pop(name, None)
        return
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec.get("clusterIP"):
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
    elif spec.get("clusterIPs"):
        spec["clusterIP"] = spec["clusterIPs"][0]


def _keep_allocated(spec: Obj, old: Obj) -> None:
    """A client that sends back a service without its addresses or node ports means to keep them."""
    if "ExternalName" in (spec["type"], old["type"]):
        if spec["type"] == "ExternalName":
            spec.pop("healthCheckNodePort", None)
        return
    for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if not spec.get(name) and old.get(name):
            spec[name] = thaw(old[name])
    if spec["type"] not in _PUBLISHED:
        if old["type"] in _PUBLISHED:
            _drop_node_ports(spec, old)
        return
    kept = {(port.get("protocol"), port.get("port")): port.get("nodePort") for port in old.get("ports") or []}
    for port in spec.get("ports") or []:
        node_port = kept.get((port.get("protocol"), port.get("port")))
        if not port.get("nodePort") and node_port:
            port["nodePort"] = node_port


def _drop_node_ports(spec: Obj, old: Obj) -> None:
    """Back to ClusterIP: node ports the client left as they were are given up."""
    were = {port.get("nodePort") for port in old.get("ports") or []}
    for port in spec.get("ports") or []:
        if port.get("nodePort") in were:
            port.pop("nodePort", None)
    if spec.get("externalTrafficPolicy") == old.get("externalTrafficPolicy") and not spec.get("externalIPs"):
        spec.pop("externalTrafficPolicy", None)
    spec.pop("allocateLoadBalancerNodePorts", None)
    spec.pop("healthCheckNodePort", None)


def _ports(spec: Obj, path: str) -> list[FieldError]:
    ports = spec.get("ports") or []
    if not ports:
        return [] if is_headless(spec) or spec.get("type") == "ExternalName" else [required(path)]
    errors: list[FieldError] = []
    names: set[str] = set()
    numbers: set[Any] = set()
    node_ports: set[Any] = set()
    for index, port in enumerate(ports):
        here, name = f"{path}[{index}]", port.get("name") or ""
        if not name and len(ports) > 1:
            errors.append(required(f"{here}.name"))
        elif name:
            faults = dns1123_label(name)
            errors += [invalid(f"{here}.name", name, message) for message in faults]
            if not faults and name in names:
                errors.append(duplicate(f"{here}.name", name))
        names.add(name)
        number = port.get("port") or 0
        errors += [invalid(f"{here}.port", number, message) for message in port_number(number)]
        errors += check_choice(f"{here}.protocol", port.get("protocol"), _PROTOCOLS)
        errors += check_port(f"{here}.targetPort", port.get("targetPort"))
        if port.get("appProtocol"):
            faults = qualified_name(port["appProtocol"])
            errors += [invalid(f"{here}.appProtocol", port["appProtocol"], message) for message in faults]
        pair = (port.get("protocol"), number)
        if pair in numbers:
            errors.append(duplicate(here, {"name": name, "protocol": pair[0], "port": number}))
        numbers.add(pair)
        errors += _node_port(spec, port, here, node_ports)
    return errors


def _node_port(spec: Obj, port: Obj, path: str, taken: set[Any]) -> list[FieldError]:
    number = port.get("nodePort")
    if not number:
        return []
    if spec.get("type") not in _PUBLISHED:
        return [forbidden(f"{path}.nodePort", "may not be used when `type` is 'ClusterIP'")]
    pair = (port.get("protocol"), number)
    if pair in taken:
        return [duplicate(f"{path}.nodePort", number)]
    taken.add(pair)
    return []


def _addresses(spec: Obj) -> list[FieldError]:
    errors = []
    for index, address in enumerate(spec.get("clusterIPs") or []):
        if address != "None":
            errors += [invalid(f"spec.clusterIPs[{index}]", address, message) for message in ip_address(address)]
    if spec.get("clusterIP") and spec.get("clusterIPs") and spec["clusterIP"] != spec["clusterIPs"][0]:
        detail = "must match the first entry in clusterIPs"
        errors.append(invalid("spec.clusterIPs", spec["clusterIPs"], detail))
    for index, address in enumerate(spec.get("externalIPs") or []):
        errors += [invalid(f"spec.externalIPs[{index}]", address, message) for message in ip_address(address)]
    for index, family in enumerate(spec.get("ipFamilies") or []):
        if family not in ("IPv4", "IPv6"):
            errors.append(not_supported(f"spec.ipFamilies[{index}]", family, ("IPv4", "IPv6")))
        elif family == "IPv6":
            detail = "not configured on this cluster"
            errors.append(invalid(f"spec.ipFamilies[{index}]", family, detail))
    return errors


def _by_type(spec: Obj) -> list[FieldError]:
    type_ = spec.get("type")
    if type_ == "ExternalName":
        name = (spec.get("externalName") or "").removesuffix(".")
        return check_name("spec.externalName", name, dns1123_subdomain)
    errors = []
    if is_headless(spec) and type_ in _PUBLISHED:
        detail = f"may not be set to 'None' for {type_} services"
        errors.append(invalid("spec.clusterIPs[0]", "None", detail))
    if type_ != "LoadBalancer":
        for name in ("loadBalancerClass", "allocateLoadBalancerNodePorts"):
            if spec.get(name) is not None:
                errors.append(forbidden(f"spec.{name}", "may only be used when `type` is 'LoadBalancer'"))
    return errors + check_optional("spec.loadBalancerIP", spec.get("loadBalancerIP"), ip_address)


def _affinity(spec: Obj) -> list[FieldError]:
    seconds = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
    if spec.get("sessionAffinity") != "ClientIP" or seconds is None or 0 < seconds <= 86400:
        return []
    path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
    return [invalid(path, seconds, "must be greater than 0 and less than or equal to 86400")]
