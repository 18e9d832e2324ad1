"""Ingress, IngressClass and NetworkPolicy."""

from __future__ import annotations

from dure.api.fields import invalid, not_supported, required
from dure.api.kind import FieldError
from dure.api.kinds.rules import check_choice, check_label_selector, check_name, check_port
from dure.api.kinds.strategy import StandardStrategy
from dure.api.names import cidr, dns1035_label, dns1123_subdomain, port_name, port_number, wildcard_dns1123_subdomain
from dure.core.json import Obj

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")


class IngressStrategy(StandardStrategy):
    has_status = True
    has_generation = True

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        obj["status"] = {"loadBalancer": {}}

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors = []
        if not spec.get("rules") and spec.get("defaultBackend") is None:
            errors.append(invalid("spec", [], "either `defaultBackend` or `rules` must be specified"))
        if spec.get("defaultBackend") is not None:
            errors += _backend(spec["defaultBackend"], "spec.defaultBackend")
        for index, rule in enumerate(spec.get("rules") or []):
            path = f"spec.rules[{index}]"
            if rule.get("host"):
                errors += _host(rule["host"], f"{path}.host")
            if rule.get("http") is not None:
                errors += _paths(rule["http"], f"{path}.http")
        for index, tls in enumerate(spec.get("tls") or []):
            for number, host in enumerate(tls.get("hosts") or []):
                errors += _host(host, f"spec.tls[{index}].hosts[{number}]")
        return errors


def _host(host: str, path: str) -> list[FieldError]:
    rule = wildcard_dns1123_subdomain if "*" in host else dns1123_subdomain
    return [invalid(path, host, message) for message in rule(host)]


def _paths(http: Obj, path: str) -> list[FieldError]:
    if not http.get("paths"):
        return [required(f"{path}.paths")]
    errors = []
    for index, item in enumerate(http["paths"]):
        here, place = f"{path}.paths[{index}]", item.get("path") or ""
        kind = item.get("pathType")
        if not kind:
            errors.append(required(f"{here}.pathType", "pathType must be specified"))
        elif kind not in _PATH_TYPES:
            errors.append(not_supported(f"{here}.pathType", kind, _PATH_TYPES))
        elif kind != "ImplementationSpecific" or place:
            if not place.startswith("/"):
                errors.append(invalid(f"{here}.path", place, "must be an absolute path"))
            elif "//" in place and kind != "ImplementationSpecific":
                errors.append(invalid(f"{here}.path", place, "must not contain '//'"))
        errors += _backend(item.get("backend") or {}, f"{here}.backend")
    return errors


def _backend(backend: Obj, path: str) -> list[FieldError]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        return [invalid(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        return [required(f"{path}.resource.{name}") for name in ("kind", "name") if not resource.get(name)]
    if service is None:
        return [required(path, "resource or service backend is required")]
    errors = check_name(f"{path}.service.name", service.get("name"), dns1035_label)
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        errors.append(invalid(path, "", "cannot set both port name & port number"))
    elif port.get("name"):
        errors += [invalid(f"{path}.service.port.name", port["name"], fault) for fault in port_name(port["name"])]
    elif port.get("number"):
        faults = port_number(port["number"])
        errors += [invalid(f"{path}.service.port.number", port["number"], fault) for fault in faults]
    else:
        errors.append(required(path, "port name or number is required"))
    return errors


class IngressClassStrategy(StandardStrategy):
    has_generation = True

    def default(self, obj: Obj) -> None:
        parameters = (obj.get("spec") or {}).get("parameters")
        if parameters is not None:
            parameters.setdefault("scope", "Cluster")

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        new, was = ((side.get("spec") or {}).get("controller") for side in (obj, old))
        return [] if new == was else [invalid("spec.controller", new, "field is immutable")]


class NetworkPolicyStrategy(StandardStrategy):
    has_generation = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        for direction in ("ingress", "egress"):
            for rule in spec.get(direction) or []:
                for port in rule.get("ports") or []:
                    port.setdefault("protocol", "TCP")
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj["spec"]
        errors = check_label_selector(spec.get("podSelector"), "spec.podSelector")
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for index, rule in enumerate(spec.get(direction) or []):
                path = f"spec.{direction}[{index}]"
                for number, port in enumerate(rule.get("ports") or []):
                    errors += _port(port, f"{path}.ports[{number}]")
                for number, peer in enumerate(rule.get(peers) or []):
                    errors += _peer(peer, f"{path}.{peers}[{number}]")
        for index, kind in enumerate(spec.get("policyTypes") or []):
            errors += check_choice(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress"))
        return errors


def _port(port: Obj, path: str) -> list[FieldError]:
    errors = check_choice(f"{path}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
    if port.get("port") is not None:
        errors += check_port(f"{path}.port", port["port"])
    end = port.get("endPort")
    if end is not None:
        if not isinstance(port.get("port"), int):
            errors.append(
                invalid(f"{path}.endPort", end, "may not be specified when `port` is not specified or not a number")
            )
        elif end < port["port"]:
            errors.append(invalid(f"{path}.endPort", end, "must be greater than or equal to `port`"))
    return errors


def _peer(peer: Obj, path: str) -> list[FieldError]:
    if not any(peer.get(name) is not None for name in ("podSelector", "namespaceSelector", "ipBlock")):
        return [required(path, "must specify a peer")]
    errors = check_label_selector(peer.get("podSelector"), f"{path}.podSelector")
    errors += check_label_selector(peer.get("namespaceSelector"), f"{path}.namespaceSelector")
    if (block := peer.get("ipBlock")) is not None:
        errors += check_name(f"{path}.ipBlock.cidr", block.get("cidr"), cidr)
        for index, except_ in enumerate(block.get("except") or []):
            errors += check_name(f"{path}.ipBlock.except[{index}]", except_, cidr)
    return errors
