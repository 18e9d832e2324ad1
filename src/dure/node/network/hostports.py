"""Host ports of a node's pods as nft elements: (address,) protocol and port of the node → address and port of a pod.

Like all rules of a node they live in the node's namespace, in a table of their own; pure text.
"""

from __future__ import annotations

from collections.abc import Iterable

from dure.node.network.leases import Lease
from dure.node.network.model import NodePlace
from dure.node.ports import HostPort

TABLE = "ip hostports"
_EVERY = ("", "0.0.0.0", "::")


def table(place: NodePlace, leases: Iterable[Lease]) -> str:
    """The whole table, replacing what is there in one transaction."""
    lines = [
        f"add table {TABLE}",
        f"delete table {TABLE}",
        f"add table {TABLE}",
        f"add map {TABLE} everywhere {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}",
        f"add map {TABLE} addressed {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}",
        f"add set {TABLE} hairpin {{ type ipv4_addr . ipv4_addr; }}",
        f"add chain {TABLE} guard {{ type filter hook prerouting priority raw; }}",
        f'add rule {TABLE} guard iifname != "lo" ip daddr 127.0.0.0/8 drop',
        f"add chain {TABLE} translate",
        f"add rule {TABLE} translate meta l4proto {{ tcp, udp, sctp }} "
        "dnat ip to ip daddr . meta l4proto . th dport map @addressed",
        f"add rule {TABLE} translate meta l4proto {{ tcp, udp, sctp }} "
        "dnat ip to meta l4proto . th dport map @everywhere",
        # before the Services' own chains: a host port wins over a node port of the same number
        f"add chain {TABLE} prerouting {{ type nat hook prerouting priority -101; }}",
        f"add rule {TABLE} prerouting fib daddr type local jump translate",
        f"add chain {TABLE} output {{ type nat hook output priority -101; }}",
        f"add rule {TABLE} output fib daddr type local jump translate",
        f"add chain {TABLE} postrouting {{ type nat hook postrouting priority srcnat; }}",
        f'add rule {TABLE} postrouting oifname != "lo" ip saddr 127.0.0.0/8 snat ip to {place.address}',
        f"add rule {TABLE} postrouting ct status dnat ip saddr . ip daddr @hairpin snat ip to {place.address}",
    ]
    for lease in leases:
        lines += _elements("add", lease)
    return "\n".join(lines)


def opened(lease: Lease) -> str:
    """Adds the ports of one pod."""
    return "\n".join(_elements("add", lease))


def closed(lease: Lease) -> str:
    """Takes them away again."""
    return "\n".join(_elements("delete", lease))


def _elements(verb: str, lease: Lease) -> list[str]:
    if not lease.host_ports:
        return []
    lines = [f"{verb} element {TABLE} hairpin {{ {lease.ip} . {lease.ip} }}"]
    for port in lease.host_ports:
        protocol = port.protocol.lower()
        key = f"{protocol} . {port.host_port}"
        target = f" : {lease.ip} . {port.container_port}" if verb == "add" else ""
        if port.host_ip in _EVERY:
            lines.append(f"{verb} element {TABLE} everywhere {{ {key}{target} }}")
        else:
            lines.append(f"{verb} element {TABLE} addressed {{ {port.host_ip} . {key}{target} }}")
    return lines


def clash(wanted: Iterable[HostPort], leases: Iterable[Lease]) -> str:
    """Which wanted port another pod has, as a phrase; empty if none."""
    taken = {(port.protocol, port.host_port, port.host_ip): lease for lease in leases for port in lease.host_ports}
    for port in wanted:
        for (protocol, number, ip), lease in taken.items():
            overlaps = ip == port.host_ip or ip in _EVERY or port.host_ip in _EVERY
            if (protocol, number) == (port.protocol, port.host_port) and overlaps:
                return f"host port {number}/{protocol} is taken by pod {lease.pod_uid}"
    return ""
