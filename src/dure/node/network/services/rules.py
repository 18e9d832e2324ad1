"""What one Service puts into a node's nft table: pure, from the Service and its EndpointSlices.

A port is reached through up to three chains: `in/…` for its cluster address, `ex/…` for node ports and external
addresses, `via/…` for the cluster's own traffic to an external address while `externalTrafficPolicy` is Local.
Traffic that entered by the node's link or an external address is marked and leaves with the node's own address,
so that the answer comes back through the same translation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from dure.core.json import Obj
from dure.node.network.model import UPLINK
from dure.node.network.services.endpoints import Endpoint, of_port, usable

TABLE = "ip services"
MARK = "0x4000"
"""On packets whose source is to become the node's address."""

OTHER_PROXY = "service.kubernetes.io/service-proxy-name"
AFFINITY_SECONDS = 10800


@dataclass(frozen=True, slots=True)
class NodeView:
    """The node a table is made for, and the networks around it."""

    name: str
    address: str
    pods: IPv4Network
    """Of the whole cluster."""
    services: IPv4Network
    dns: str
    """Answered by the node itself, so never translated."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """The share of one Service in the table; names of chains and sets are its own, elements may be shared."""

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, str] = field(default_factory=dict)
    elements: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(set or map, key) → value, empty for a set."""
    datagrams: Mapping[tuple[str, int], frozenset[tuple[str, int]]] = field(default_factory=dict)
    """UDP: (address or empty for any of the node's, port) → the endpoints that may be behind it."""


NOTHING = Pieces()


def frame(node: NodeView) -> list[str]:
    """The empty table: everything that does not belong to one Service."""
    key = "ip daddr . meta l4proto . th dport"
    return [
        f"add table {TABLE}",
        f"add map {TABLE} addresses {{ type ipv4_addr . inet_proto . inet_service : verdict; }}",
        f"add map {TABLE} nodeports {{ type inet_proto . inet_service : verdict; }}",
        f"add set {TABLE} refused {{ type ipv4_addr . inet_proto . inet_service; }}",
        f"add set {TABLE} hairpin {{ type ipv4_addr . ipv4_addr; }}",
        f"add chain {TABLE} translate",
        f"add rule {TABLE} translate {key} vmap @addresses",
        f"add rule {TABLE} translate fib daddr type local ip daddr != 127.0.0.0/8 "
        "meta l4proto . th dport vmap @nodeports",
        f"add chain {TABLE} deny",
        # an ICMP error may arrive while connect(2) still holds the socket, which then waits for the next try
        f"add rule {TABLE} deny meta l4proto tcp reject with tcp reset",
        f"add rule {TABLE} deny reject",
        f"add chain {TABLE} refuse",
        f"add rule {TABLE} refuse {key} @refused goto deny",
        # whatever still goes to a virtual address was translated by nothing: it must not take the default route
        f"add rule {TABLE} refuse ip daddr {node.services} ip daddr != {node.dns} goto deny",
        f"add chain {TABLE} prerouting {{ type nat hook prerouting priority -100; }}",
        f"add rule {TABLE} prerouting jump translate",
        f"add chain {TABLE} output {{ type nat hook output priority -100; }}",
        f"add rule {TABLE} output jump translate",
        f"add chain {TABLE} postrouting {{ type nat hook postrouting priority srcnat; }}",
        f"add rule {TABLE} postrouting ct status dnat meta mark and {MARK} == {MARK} snat ip to {node.address}",
        f"add rule {TABLE} postrouting ct status dnat ip saddr . ip daddr @hairpin snat ip to {node.address}",
        f"add chain {TABLE} forward {{ type filter hook forward priority filter; }}",
        f"add rule {TABLE} forward ct state new jump refuse",
        f"add chain {TABLE} sent {{ type filter hook output priority filter; }}",
        f"add rule {TABLE} sent ct state new jump refuse",
    ]


def plan(service: Obj, slices: Iterable[Obj], node: NodeView) -> Pieces:
    """Everything the node must know of this Service; NOTHING for headless and external names."""
    spec = service.get("spec") or {}
    labels = service["metadata"].get("labels") or {}
    if spec.get("type") == "ExternalName" or spec.get("clusterIP") in (None, "", "None") or OTHER_PROXY in labels:
        return NOTHING
    listed = list(slices)
    draft = _Draft(service, node)
    for port in spec.get("ports") or ():
        draft.add_port(port, of_port(listed, port))
    return Pieces(draft.chains, draft.sets, draft.elements, draft.datagrams)


class _Draft:
    """Gathers the pieces of one Service, port by port."""

    def __init__(self, service: Obj, node: NodeView) -> None:
        self._spec: dict[str, Any] = service["spec"]
        meta = service["metadata"]
        self._name = f"{meta.get('namespace', '')}/{meta['name']}"
        self._node = node
        self._internal = [ip for ip in _addresses(self._spec) if ip != node.dns]
        self._external = _external_addresses(service)
        self.chains: dict[str, tuple[str, ...]] = {}
        self.sets: dict[str, str] = {}
        self.elements: dict[tuple[str, str], str] = {}
        self.datagrams: dict[tuple[str, int], frozenset[tuple[str, int]]] = {}

    def add_port(self, port: Obj, endpoints: Sequence[Endpoint]) -> None:
        protocol = (port.get("protocol") or "TCP").lower()
        number, node_port = int(port["port"]), int(port.get("nodePort") or 0)
        key = f"{self._name}/{number}-{protocol}"
        everyone = usable(endpoints)
        local = usable(one for one in endpoints if one.node == self._node.name)
        inner = local if self._spec.get("internalTrafficPolicy") == "Local" else everyone
        if inner:
            arrived = f'iifname "{UPLINK}" meta mark set meta mark or {MARK}'
            self.chains[f"in/{key}"] = (arrived, *self._pick(key, protocol, inner))
            for ip in self._internal:
                self.elements["addresses", f"{ip} . {protocol} . {number}"] = f"goto in/{key}"
        if self._external or node_port:
            self._add_outer(key, protocol, number, node_port, everyone, local)
        for one in everyone:
            if one.node == self._node.name:
                self.elements["hairpin", f"{one.ip} . {one.ip}"] = ""
        if protocol == "udp":
            behind = frozenset((one.ip, one.port) for one in everyone)
            for ip in (*self._internal, *self._external):
                self.datagrams[ip, number] = behind
            if node_port:
                self.datagrams["", node_port] = behind

    def _add_outer(
        self,
        key: str,
        protocol: str,
        number: int,
        node_port: int,
        everyone: tuple[Endpoint, ...],
        local: tuple[Endpoint, ...],
    ) -> None:
        if not everyone:
            for ip in self._external:
                self.elements["refused", f"{ip} . {protocol} . {number}"] = ""
            return
        marked = (f"meta mark set meta mark or {MARK}", *self._pick(key, protocol, everyone))
        if self._spec.get("externalTrafficPolicy") == "Local":
            self.chains[f"via/{key}"] = marked
            self.chains[f"ex/{key}"] = (
                f"ip saddr {self._node.pods} goto via/{key}",
                f"fib saddr type local goto via/{key}",
                *self._pick(key, protocol, local),
            )
        else:
            self.chains[f"ex/{key}"] = marked
        for ip in self._external:
            self.elements["addresses", f"{ip} . {protocol} . {number}"] = f"goto ex/{key}"
        if node_port:
            self.elements["nodeports", f"{protocol} . {node_port}"] = f"goto ex/{key}"

    def _pick(self, key: str, protocol: str, endpoints: tuple[Endpoint, ...]) -> tuple[str, ...]:
        """Rules that choose one endpoint; none when there is none."""
        if not endpoints:
            return ()
        if self._spec.get("sessionAffinity") == "ClientIP":
            return self._pick_sticky(key, protocol, endpoints)
        if len(endpoints) == 1:
            return (_to(protocol, endpoints[0]),)
        choices = ", ".join(f"{place} : {one.ip} . {one.port}" for place, one in enumerate(endpoints))
        picked = f"numgen random mod {len(endpoints)} map {{ {choices} }}"
        return (f"meta l4proto {protocol} dnat ip addr . port to {picked}",)

    def _pick_sticky(self, key: str, protocol: str, endpoints: tuple[Endpoint, ...]) -> tuple[str, ...]:
        """A set of clients for each endpoint, forgotten after the timeout; the rest at random."""
        config = (self._spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        seconds = int(config.get("timeoutSeconds") or AFFINITY_SECONDS)
        rules, choices = [], []
        for place, one in enumerate(endpoints):
            name = f"{key}/{one.ip}-{one.port}"
            self.sets[f"at/{name}"] = f"type ipv4_addr; flags dynamic,timeout; timeout {seconds}s;"
            self.chains[f"to/{name}"] = (f"update @at/{name} {{ ip saddr }}", _to(protocol, one))
            rules.append(f"ip saddr @at/{name} goto to/{name}")
            choices.append(f"{place} : goto to/{name}")
        return (*rules, f"numgen random mod {len(endpoints)} vmap {{ {', '.join(choices)} }}")


def _to(protocol: str, endpoint: Endpoint) -> str:
    return f"meta l4proto {protocol} dnat ip to {endpoint.ip}:{endpoint.port}"


def _addresses(spec: Mapping[str, Any]) -> list[str]:
    listed = spec.get("clusterIPs") or [spec["clusterIP"]]
    return [ip for ip in listed if is_ipv4(ip)]


def _external_addresses(service: Obj) -> list[str]:
    """External addresses, and those of a load balancer that hands packets on as they came (`ipMode: VIP`)."""
    found = [ip for ip in service["spec"].get("externalIPs") or () if is_ipv4(ip)]
    for ingress in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
        ip = ingress.get("ip") or ""
        if is_ipv4(ip) and ingress.get("ipMode", "VIP") == "VIP" and not IPv4Address(ip).is_loopback:
            found.append(ip)
    return sorted(set(found))


def is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True
