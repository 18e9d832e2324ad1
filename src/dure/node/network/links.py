"""The host's side of the local nodes: one routed link a node, forwarding, and the only rules we add to the host.

Routed, not bridged: no bridge netfilter on the way, no flooding, and each packet passes the host's own table once.
Every link is a veth pair with the host's one link address on this side and a /32 route to the node on the other.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

from dure.core.errors import ConfigError
from dure.node.network import forwarding, namespaces
from dure.node.network.model import GATEWAY, UPLINK, Addresses, NodePlace, hardware_address
from dure.node.network.namespaces import NamespaceThread
from dure.node.network.netlink import (
    LOOPBACK_INDEX,
    SCOPE_HOST,
    Netlink,
    VethEnd,
    add_address,
    add_neighbour,
    add_route,
    add_veth,
    delete_link,
    set_up,
)
from dure.node.network.nft import Nft, NftError

log = logging.getLogger(__name__)

_VISIBLE = Path("/run/netns")
"""Where `ip netns` looks; we put links to our own files there."""
_ANYWHERE = IPv4Network("0.0.0.0/0")


class Machine:
    """All local nodes of one platform on this host.

    `setup` makes what is missing and leaves alone what is there, so connections outlive the agent; `teardown`
    removes everything that carries the instance's name. Both may be repeated.
    """

    def __init__(self, instance: str, run_dir: Path, addresses: Addresses, nodes: Sequence[str]) -> None:
        self.instance = instance
        self.addresses = addresses
        self.pod_netns_dir = run_dir / "netns" / "pods"
        self._netns_dir = run_dir / "netns"
        self.nodes = {name: self._place(index, name) for index, name in enumerate(nodes, 1)}
        self.thread = NamespaceThread(f"{instance} links")
        self.nft = Nft(f"{instance} host")

    @property
    def links(self) -> str:
        """The host's ends of all links, as nft matches interface names."""
        return f"{self.instance}-n*"

    @property
    def table(self) -> str:
        """The one nft table on the host."""
        return f"ip {self.instance}"

    def _place(self, index: int, name: str) -> NodePlace:
        return NodePlace(
            name=name,
            index=index,
            address=self.addresses.node(index),
            pods=self.addresses.node_pods(index),
            netns=self._netns_dir / f"{self.instance}-{name}",
            link=f"{self.instance}-n{index}",
        )

    async def setup(self) -> None:
        """Raises ConfigError when the networks are taken or libnftables is missing."""
        self.thread.start()
        self.nft.start()
        await self.thread.call(self._set_up_links)
        try:
            await self.nft.run(self._rules())
        except NftError:
            # a table of another shape (an older version's): replaced whole
            await self.nft.run(f"add table {self.table}\ndelete table {self.table}\n{self._rules()}")
        await self._warn_of_drops()

    async def teardown(self) -> None:
        """Remove links, namespaces, rules and the forwarding switch; pods' namespaces too."""
        self.thread.start()
        self.nft.start()
        await self.nft.run(f"add table {self.table}\ndelete table {self.table}\n")
        await self.thread.call(self._remove_links)

    async def _warn_of_drops(self) -> None:
        """Another table's drop is final: say so, for we change nothing that is not ours."""
        for item in await self.nft.query("list chains"):
            chain = item.get("chain") or {}
            if (
                chain.get("hook") == "forward"
                and chain.get("policy") == "drop"
                and chain.get("family") in ("ip", "inet")
            ):
                log.warning(
                    "the host's firewall drops forwarded packets: pods cannot reach other nodes nor the outside",
                    extra={
                        "table": f"{chain['family']} {chain['table']}",
                        "mend": f"accept interfaces {self.links} in its chain {chain['name']}",
                    },
                )

    def close(self) -> None:
        """End the threads; what was set up stays."""
        self.thread.close()
        self.nft.close()

    def _set_up_links(self) -> None:
        netlink = Netlink()
        try:
            self._check_free(netlink)
            forwarding.enable(self.instance)
            for place in self.nodes.values():
                self._set_up_node(netlink, place)
            first = next(iter(self.nodes.values()), None)
            if first is not None:
                device = netlink.links()[first.link].index
                services = self.addresses.services
                netlink.send(add_route(services, device, gateway=first.address, source=self.addresses.host))
        finally:
            netlink.close()

    def _check_free(self, netlink: Netlink) -> None:
        """Our networks must not be someone else's on this host."""
        ours = {link.index for name, link in netlink.links().items() if name.startswith(f"{self.instance}-n")}
        wanted = (self.addresses.links, self.addresses.pods, self.addresses.services)
        for route in netlink.routes():
            if route.device in ours or route.network == _ANYWHERE:
                continue
            for network in wanted:
                if network.overlaps(route.network):
                    raise ConfigError(
                        f"network {network} overlaps with the route to {route.network} on this machine",
                        "stop what uses it, or choose others: dure up --cluster-cidr … --service-cidr … --link-cidr …",
                    )

    def _set_up_node(self, netlink: Netlink, place: NodePlace) -> None:
        links = netlink.links()
        if not namespaces.is_namespace(place.netns):
            self.thread.created(place.netns, _tune_node)
            netlink.send(delete_link(place.link))
            links.pop(place.link, None)
        if place.link not in links:
            self._connect(netlink, place)
        self._show(place)
        device = netlink.links()[place.link].index
        host, address = self.addresses.host, IPv4Network(place.address)
        namespaces.write_sysctl(f"net/ipv4/conf/{place.link}/route_localnet", "1")
        netlink.send(
            add_address(device, host),
            set_up(device),
            add_neighbour(device, place.address, hardware_address(place.address)),
            add_route(address, device, source=host),
            add_route(place.pods, device, gateway=place.address, source=host),
        )
        self.thread.inside(place.netns, lambda: self._set_up_inside(place))

    def _connect(self, netlink: Netlink, place: NodePlace) -> None:
        """The pair of interfaces; neither has addresses yet."""
        handle = os.open(place.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            near = VethEnd(place.link, 0, hardware_address(self.addresses.host))
            far = VethEnd(UPLINK, 0, hardware_address(place.address), handle)
            netlink.send(add_veth(near, far))
        finally:
            os.close(handle)

    def _set_up_inside(self, place: NodePlace) -> None:
        """In the node's namespace: loopback, the gateway of its pods, the DNS address, the way out."""
        netlink = Netlink()
        host = self.addresses.host
        try:
            uplink = netlink.links()[UPLINK].index
            netlink.send(
                set_up(LOOPBACK_INDEX),
                add_address(LOOPBACK_INDEX, GATEWAY, scope=SCOPE_HOST),
                add_address(LOOPBACK_INDEX, self.addresses.dns, scope=SCOPE_HOST),
                add_address(uplink, place.address),
                set_up(uplink),
                add_neighbour(uplink, host, hardware_address(host)),
                add_route(IPv4Network(host), uplink),
                add_route(_ANYWHERE, uplink, gateway=host),
            )
        finally:
            netlink.close()

    def _show(self, place: NodePlace) -> None:
        """Let `ip netns` see the node."""
        _VISIBLE.mkdir(parents=True, exist_ok=True)
        name = _VISIBLE / place.netns.name
        if not name.is_symlink() or name.readlink() != place.netns:
            name.unlink(missing_ok=True)
            name.symlink_to(place.netns)

    def _rules(self) -> str:
        """Added over what is there; the map of load balancers keeps its elements."""
        table, links = self.table, self.links
        inside = f"{{ {self.addresses.links}, {self.addresses.pods} }}"
        loopback = "ip daddr 127.0.0.0/8"
        return f"""
add table {table}
add map {table} balancers {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add chain {table} guard {{ type filter hook prerouting priority raw; }}
add chain {table} forward {{ type filter hook forward priority filter; }}
add chain {table} output {{ type nat hook output priority -100; }}
add chain {table} postrouting {{ type nat hook postrouting priority srcnat; }}
flush chain {table} guard
flush chain {table} forward
flush chain {table} output
flush chain {table} postrouting
add rule {table} guard iifname "{links}" {loopback} drop
add rule {table} forward iifname "{links}" accept
add rule {table} forward oifname "{links}" ct state established,related accept
add rule {table} forward oifname "{links}" drop
add rule {table} output ip daddr 127.0.0.1 meta l4proto {{ tcp, udp }} dnat ip to meta l4proto . th dport map @balancers
add rule {table} postrouting oifname "{links}" ip saddr 127.0.0.0/8 masquerade
add rule {table} postrouting oifname != "{links}" ip saddr {inside} masquerade
"""

    def _remove_links(self) -> None:
        netlink = Netlink()
        try:
            ours = [name for name in netlink.links() if name.startswith(f"{self.instance}-n")]
            netlink.send(*(delete_link(name) for name in ours))
        finally:
            netlink.close()
        if self.pod_netns_dir.is_dir():
            for path in self.pod_netns_dir.iterdir():
                namespaces.release(path)
            self.pod_netns_dir.rmdir()
        if self._netns_dir.is_dir():
            for path in self._netns_dir.iterdir():
                (_VISIBLE / path.name).unlink(missing_ok=True)
                namespaces.release(path)
            self._netns_dir.rmdir()
        with contextlib.suppress(OSError):
            _VISIBLE.rmdir()
        forwarding.disable(self.instance)


def _tune_node() -> None:
    """In a new node namespace: it routes, reaches pods from its loopback, and stays quiet on IPv6."""
    namespaces.write_sysctl("net/ipv4/ip_forward", "1")
    namespaces.write_sysctl("net/ipv4/conf/all/route_localnet", "1")
    namespaces.write_sysctl("net/ipv6/conf/default/addr_gen_mode", "1")
