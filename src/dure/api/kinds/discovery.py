"""Endpoints and EndpointSlice: where a service's requests go."""

from __future__ import annotations

import ipaddress

from dure.api.fields import immutable, invalid, required, too_many
from dure.api.kind import FieldError
from dure.api.kinds.rules import check_choice, check_name
from dure.api.kinds.strategy import StandardStrategy
from dure.api.names import dns1123_label, dns1123_subdomain, port_number
from dure.core.json import Obj

_FAMILIES = ("FQDN", "IPv4", "IPv6")
_PROTOCOLS = ("SCTP", "TCP", "UDP")


class EndpointsStrategy(StandardStrategy):
    def default(self, obj: Obj) -> None:
        for subset in obj.get("subsets") or []:
            for port in subset.get("ports") or []:
                if not port.get("protocol"):
                    port["protocol"] = "TCP"

    def check(self, obj: Obj) -> list[FieldError]:
        errors = []
        for index, subset in enumerate(obj.get("subsets") or []):
            path = f"subsets[{index}]"
            ready, waiting = subset.get("addresses") or [], subset.get("notReadyAddresses") or []
            if not ready and not waiting:
                errors.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
            for group, addresses in (("addresses", ready), ("notReadyAddresses", waiting)):
                for number, address in enumerate(addresses):
                    errors += _usable(f"{path}.{group}[{number}].ip", address.get("ip") or "")
            errors += _ports(subset.get("ports") or [], f"{path}.ports")
        return errors


def _usable(path: str, text: str) -> list[FieldError]:
    """An address traffic may be sent to."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [invalid(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
    for kind, range_ in (
        ("unspecified", f"({text})"),
        ("loopback", "(127.0.0.0/8, ::1/128)"),
        ("link_local", "(169.254.0.0/16, fe80::/10)"),
    ):
        if getattr(address, f"is_{kind}"):
            noun = "in the loopback range" if kind == "loopback" else f"in the {kind.replace('_', '-')} range"
            text_of = f"may not be unspecified {range_}" if kind == "unspecified" else f"may not be {noun} {range_}"
            return [invalid(path, text, text_of)]
    return []


def _ports(ports: list[Obj], path: str) -> list[FieldError]:
    errors = []
    for index, port in enumerate(ports):
        here, name = f"{path}[{index}]", port.get("name") or ""
        if not name and len(ports) > 1:
            errors.append(required(f"{here}.name"))
        elif name:
            errors += [invalid(f"{here}.name", name, message) for message in dns1123_label(name)]
        number = port.get("port") or 0
        errors += [invalid(f"{here}.port", number, message) for message in port_number(number)]
        errors += check_choice(f"{here}.protocol", port.get("protocol"), _PROTOCOLS)
    return errors


class EndpointSliceStrategy(StandardStrategy):
    has_generation = True

    def default(self, obj: Obj) -> None:
        for port in obj.get("ports") or []:
            port.setdefault("name", "")
            if not port.get("protocol"):
                port["protocol"] = "TCP"

    def check(self, obj: Obj) -> list[FieldError]:
        errors = check_choice("addressType", obj.get("addressType"), _FAMILIES)
        endpoints = obj.get("endpoints") or []
        if len(endpoints) > 1000:
            errors.append(too_many("endpoints", len(endpoints), 1000))
        for index, endpoint in enumerate(endpoints):
            errors += _endpoint(endpoint, f"endpoints[{index}]", obj.get("addressType") or "")
        ports = obj.get("ports") or []
        if len(ports) > 20000:
            errors.append(too_many("ports", len(ports), 20000))
        seen: set[str] = set()
        for index, port in enumerate(ports):
            name = port.get("name") or ""
            if name in seen:
                errors.append(FieldError(f"ports[{index}].name", "FieldValueDuplicate", f'Duplicate value: "{name}"'))
            seen.add(name)
            if name:
                errors += [invalid(f"ports[{index}].name", name, message) for message in dns1123_label(name)]
            errors += check_choice(f"ports[{index}].protocol", port.get("protocol"), _PROTOCOLS)
        return errors

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        return immutable("addressType", obj.get("addressType"), old.get("addressType"))


def _endpoint(endpoint: Obj, path: str, family: str) -> list[FieldError]:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        return [required(f"{path}.addresses", "must contain at least 1 address")]
    errors = []
    for index, address in enumerate(addresses):
        here = f"{path}.addresses[{index}]"
        if family == "FQDN":
            errors += check_name(here, address, dns1123_subdomain)
        elif family in ("IPv4", "IPv6"):
            errors += _of_family(here, address, family)
    if endpoint.get("hostname"):
        errors += [
            invalid(f"{path}.hostname", endpoint["hostname"], fault) for fault in dns1123_label(endpoint["hostname"])
        ]
    if endpoint.get("nodeName"):
        faults = dns1123_subdomain(endpoint["nodeName"])
        errors += [invalid(f"{path}.nodeName", endpoint["nodeName"], fault) for fault in faults]
    return errors


def _of_family(path: str, text: str, family: str) -> list[FieldError]:
    errors = _usable(path, text)
    if not errors and ipaddress.ip_address(text).version != int(family[-1]):
        return [invalid(path, text, f"must be an {family} address")]
    return errors
