"""The DNS records of one Service: pure, from the Service and its EndpointSlices.

Kubernetes DNS-Based Service Discovery 1.1.0; names of endpoints without a hostname are their dashed addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dure.core.json import Obj
from dure.node.network.dns.wire import CNAME, SRV, A, address, encode_name, srv
from dure.node.network.services.endpoints import Endpoint, of_addresses, of_port
from dure.node.network.services.rules import is_ipv4


@dataclass(frozen=True, slots=True)
class Records:
    """What one Service adds to the zone: name → type → data of each record; address → the names it stands for."""

    forward: Mapping[bytes, Mapping[int, tuple[bytes, ...]]] = field(default_factory=dict)
    reverse: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    targets: Mapping[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    """Names in SRV records → their addresses, for the additional section."""


NO_RECORDS = Records()


def plan(service: Obj, slices: Iterable[Obj], domain: str) -> Records:
    """Empty for a Service whose spec names nothing."""
    meta, spec = service["metadata"], service.get("spec") or {}
    name = encode_name(f"{meta['name']}.{meta.get('namespace', '')}.svc.{domain}")
    if spec.get("type") == "ExternalName":
        try:
            return Records({name: {CNAME: (encode_name(spec.get("externalName") or ""),)}})
        except ValueError:
            return NO_RECORDS
    listed = list(slices)
    if spec.get("clusterIP") == "None":
        return _headless(name, spec, listed)
    ips = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP") or ""] if is_ipv4(ip)]
    return _virtual(name, spec, ips, listed) if ips else NO_RECORDS


def endpoint_label(endpoint: Endpoint) -> bytes:
    """The first label of an endpoint's own name."""
    raw = (endpoint.hostname or endpoint.ip.replace(".", "-")).lower().encode()
    return bytes([len(raw)]) + raw


def _virtual(name: bytes, spec: Obj, ips: Sequence[str], slices: Sequence[Obj]) -> Records:
    found: dict[bytes, dict[int, tuple[bytes, ...]]] = {name: {A: tuple(address(ip) for ip in ips)}}
    services: list[bytes] = []
    for port in spec.get("ports") or ():
        record = srv(int(port["port"]), 100, name)
        services.append(record)
        _add_port_name(found, name, port, (record,))
    if services:
        found[name][SRV] = tuple(services)
    reverse = dict.fromkeys(ips, (name,))
    for endpoint in _published(of_addresses(slices), spec):
        reverse.setdefault(endpoint.ip, (endpoint_label(endpoint) + name,))
    return Records(found, reverse, {name: found[name][A]})


def _headless(name: bytes, spec: Obj, slices: Sequence[Obj]) -> Records:
    endpoints = _published(of_addresses(slices), spec)
    found: dict[bytes, dict[int, tuple[bytes, ...]]] = {name: {}}
    if endpoints:
        found[name][A] = tuple(sorted({address(one.ip) for one in endpoints}))
    own: dict[bytes, tuple[bytes, ...]] = {}
    for one in endpoints:
        key = endpoint_label(one) + name
        own[key] = tuple(sorted({*own.get(key, ()), address(one.ip)}))
    services: list[bytes] = []
    for port in spec.get("ports") or ():
        behind = _published(of_port(slices, port), spec)
        weight = max(1, 100 // len(behind)) if behind else 0
        records = tuple(sorted({srv(one.port, weight, endpoint_label(one) + name) for one in behind}))
        services += records
        _add_port_name(found, name, port, records)
    if services:
        found[name][SRV] = tuple(services)
    for key, addresses in own.items():
        found[key] = {A: addresses}
    reverse: dict[str, tuple[bytes, ...]] = {}
    for one in endpoints:
        reverse[one.ip] = tuple(sorted({*reverse.get(one.ip, ()), endpoint_label(one) + name}))
    return Records(found, reverse, own)


def _published(endpoints: Iterable[Endpoint], spec: Obj) -> list[Endpoint]:
    everyone = bool(spec.get("publishNotReadyAddresses"))
    return [one for one in endpoints if one.is_ready or everyone]


def _add_port_name(
    found: dict[bytes, dict[int, tuple[bytes, ...]]], name: bytes, port: Obj, records: tuple[bytes, ...]
) -> None:
    """`_port._protocol.<service>`, for a port that has a name."""
    if port.get("name") and records:
        protocol = (port.get("protocol") or "TCP").lower()
        labels = b"".join(bytes([len(part)]) + part for part in (f"_{port['name']}".encode(), f"_{protocol}".encode()))
        found[labels + name] = {SRV: records}
