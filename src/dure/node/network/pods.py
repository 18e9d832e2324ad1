"""One node's pod network: a namespace, an address and a routed veth pair for each pod (`PodNetwork` of the ports).

A pod's default route goes to 169.254.1.1, which its node has on its loopback; the node has a /32 route to the pod.
Neighbours are written down on both ends, so nothing is ever asked on the wire. Names and indexes of interfaces follow
from the pod's place in the node's network: what a restart finds is known by its name.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from dure.core.errors import DureError
from dure.node.network import hostports, namespaces
from dure.node.network.leases import Lease, Leases
from dure.node.network.links import Machine
from dure.node.network.model import GATEWAY, NodePlace, hardware_address
from dure.node.network.namespaces import NamespaceThread
from dure.node.network.netlink import (
    LOOPBACK_INDEX,
    Netlink,
    VethEnd,
    add_address,
    add_neighbour,
    add_route,
    add_veth,
    delete_link,
    delete_route,
    set_up,
)
from dure.node.network.nft import Nft
from dure.node.ports import HostPort, PodAddress

_POD_INDEX = 64
"""Index of eth0 in a pod, past what the kernel may put into a new namespace."""
_NODE_INDEX = 1000
"""Index on the node of the pod numbered 0."""
_NODE_MAC = b"\xee" * 6
_EVERYWHERE = IPv4Network("0.0.0.0/0")


class HostPortTaken(DureError):
    """Another pod of the node has a wanted host port."""


class NodeNetwork:
    """The pod network of one local node. `start` adopts what an earlier agent left; `close` leaves it as it is."""

    def __init__(self, machine: Machine, node: str, state_dir: Path) -> None:
        self.place: NodePlace = machine.nodes[node]
        self.addresses = machine.addresses
        self._thread: NamespaceThread = machine.thread
        self._pod_netns_dir = machine.pod_netns_dir
        self._leases = Leases(state_dir / "leases", self.place.pods)
        self.nft = Nft(node, self.place.netns)
        self._netlink: Netlink | None = None

    @property
    def host_netns(self) -> str:
        return str(self.place.netns)

    async def start(self) -> None:
        """After `Machine.setup`. Puts the node's own rules in place."""
        self._leases.load()
        for lease in self._leases.all():
            if not namespaces.is_namespace(self._netns(lease.pod_uid)):
                # the machine was booted anew, or an agent died in the middle: such a pod is attached afresh
                self._leases.release(lease.pod_uid)
        self._netlink = await self._thread.call(lambda: self._thread.inside(self.place.netns, Netlink))
        self.nft.start()
        await self.nft.run(hostports.table(self.place, self._leases.all()))

    def close(self) -> None:
        self.nft.close()
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    async def attach(self, pod_uid: str, *, host_ports: Sequence[HostPort] = ()) -> PodAddress:
        """Raises NoAddress, HostPortTaken."""
        before = self._leases.get(pod_uid)
        others = [lease for lease in self._leases.all() if lease.pod_uid != pod_uid]
        if problem := hostports.clash(host_ports, others):
            raise HostPortTaken(problem)
        lease = self._leases.take(pod_uid, host_ports)
        netns = self._netns(pod_uid)
        try:
            await self._thread.call(lambda: self._connect(netns, lease))
            if before != lease:
                script = hostports.opened(lease) if before is None else hostports.table(self.place, self._leases.all())
                if script:
                    await self.nft.run(script)
        except BaseException:
            if before is None:
                await self.detach(pod_uid)
            raise
        return PodAddress(lease.ip, str(netns))

    async def detach(self, pod_uid: str) -> None:
        lease = self._leases.get(pod_uid)
        if lease is not None and lease.host_ports:
            # the whole table: also right when the ports were never opened
            others = [other for other in self._leases.all() if other.pod_uid != pod_uid]
            await self.nft.run(hostports.table(self.place, others))
        netns = self._netns(pod_uid)
        await self._thread.call(lambda: self._disconnect(netns, lease))
        self._leases.release(pod_uid)

    async def attached(self) -> Mapping[str, PodAddress]:
        found = {}
        for lease in self._leases.all():
            netns = self._netns(lease.pod_uid)
            if namespaces.is_namespace(netns):
                found[lease.pod_uid] = PodAddress(lease.ip, str(netns))
        return found

    async def connect(self, ip: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises OSError."""
        return await self._connect_from(self.place.netns, ip, port)

    async def connect_inside(self, pod_uid: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To a port on the loopback of an attached pod, as port-forward wants it. Raises OSError."""
        return await self._connect_from(self._netns(pod_uid), "127.0.0.1", port)

    async def socket(self, make: Callable[[], socket.socket]) -> socket.socket:
        """A socket that belongs to the node's namespace, made by `make` on a thread that is there."""
        return await self._thread.call(lambda: self._thread.inside(self.place.netns, make))

    async def _connect_from(self, netns: Path, ip: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        made = await self._thread.call(lambda: self._thread.inside(netns, _tcp_socket))
        try:
            await asyncio.get_running_loop().sock_connect(made, (ip, port))
            return await asyncio.open_connection(sock=made)
        except BaseException:
            made.close()
            raise

    def _netns(self, pod_uid: str) -> Path:
        return self._pod_netns_dir / pod_uid

    def _connect(self, netns: Path, lease: Lease) -> None:
        """On the thread: make the namespace unless it is there, and wire it."""
        if not namespaces.is_namespace(netns):
            self._thread.created(netns, lambda: self._wire(lease))

    def _wire(self, lease: Lease) -> None:
        """On the thread, inside the pod's new namespace."""
        if self._netlink is None:
            raise DureError("the node's network is not started")
        namespaces.write_sysctl("net/ipv6/conf/default/addr_gen_mode", "1")
        pod_mac = hardware_address(lease.ip)
        device = _NODE_INDEX + lease.number
        handle = os.open(namespaces.OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._netlink.send(
                delete_link(_device(lease)),
                add_veth(
                    VethEnd(_device(lease), device, _NODE_MAC),
                    VethEnd("eth0", _POD_INDEX, pod_mac, handle),
                ),
                add_neighbour(device, lease.ip, pod_mac),
                add_route(IPv4Network(lease.ip), device),
            )
        finally:
            os.close(handle)
        inside = Netlink()
        try:
            inside.send(
                set_up(LOOPBACK_INDEX),
                add_address(_POD_INDEX, lease.ip),
                set_up(_POD_INDEX),
                add_neighbour(_POD_INDEX, GATEWAY, _NODE_MAC),
                add_route(IPv4Network(GATEWAY), _POD_INDEX),
                add_route(_EVERYWHERE, _POD_INDEX, gateway=GATEWAY, source=lease.ip),
            )
        finally:
            inside.close()

    def _disconnect(self, netns: Path, lease: Lease | None) -> None:
        """On the thread. The link goes with the namespace, many at a time; deleting it here would take 30 ms each."""
        if lease is not None and self._netlink is not None:
            self._netlink.send(delete_route(IPv4Network(lease.ip)))
        namespaces.release(netns)


def _device(lease: Lease) -> str:
    """The node's end of a pod's link."""
    return f"pod{lease.number}"


def _tcp_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
