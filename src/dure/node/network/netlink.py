"""rtnetlink by hand: veth pairs, addresses, routes and neighbours, many requests in one message (rtnetlink(7)).

A `Netlink` socket belongs for ever to the namespace of the thread that opened it and may then be used from any one
thread at a time. Names and indexes are the caller's, so a whole set-up needs no answer in between.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from dure.core.errors import DureError

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxHiHBB")

_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _NEWROUTE, _DELROUTE, _GETROUTE, _NEWNEIGH = 16, 17, 18, 20, 24, 25, 26, 28
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400
_UP = 0x1
_NUD_PERMANENT = 0x80
_TABLE_MAIN, _PROTOCOL_STATIC, _TYPE_UNICAST, _ONLINK = 254, 4, 1, 4
SCOPE_GLOBAL, SCOPE_LINK, SCOPE_HOST = 0, 253, 254
LOOPBACK_INDEX = 1


class NetlinkError(DureError):
    """The kernel refused a request; `code` is the errno."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(f"{what}: {os.strerror(code)}")
        self.code = code


class Request(NamedTuple):
    """One rtnetlink request; errors listed in `ignore` count as success."""

    what: str
    type: int
    flags: int
    body: bytes
    ignore: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    name: str
    index: int
    is_up: bool


class Route(NamedTuple):
    """A route of the main table; `device` is an interface index."""

    network: IPv4Network
    device: int


def attribute(kind: int, data: bytes) -> bytes:
    size = 4 + len(data)
    return struct.pack("=HH", size, kind) + data + b"\0" * (-size % 4)


def _name(text: str) -> bytes:
    return attribute(3, text.encode() + b"\0")


@dataclass(frozen=True, slots=True)
class VethEnd:
    """`netns` is an open file of the namespace for the peer, -1 for the socket's own."""

    name: str
    index: int
    mac: bytes
    netns: int = -1

    def attributes(self) -> bytes:
        moved = attribute(28, struct.pack("=I", self.netns)) if self.netns >= 0 else b""
        return _name(self.name) + attribute(1, self.mac) + moved


def add_veth(near: VethEnd, far: VethEnd) -> Request:
    """A pair; the near end is up, the far one cannot be yet.

    Index 0 lets the kernel choose; the far index counts only when the near one is given too.
    """
    peer = attribute(1, _LINK.pack(socket.AF_UNSPEC, 0, far.index, 0, 0) + far.attributes())
    info = attribute(18, attribute(1, b"veth\0") + attribute(2, peer))
    body = _LINK.pack(socket.AF_UNSPEC, 0, near.index, _UP, _UP) + near.attributes() + info
    return Request(f"add link {near.name}", _NEWLINK, _CREATE | _EXCL, body)


def set_up(index: int) -> Request:
    return Request(f"set link {index} up", _NEWLINK, 0, _LINK.pack(socket.AF_UNSPEC, 0, index, _UP, _UP))


def delete_link(name: str) -> Request:
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _name(name)
    return Request(f"delete link {name}", _DELLINK, 0, body, (errno.ENODEV,))


def add_address(index: int, ip: str, prefix: int = 32, scope: int = SCOPE_GLOBAL) -> Request:
    packed = socket.inet_aton(ip)
    body = _ADDRESS.pack(socket.AF_INET, prefix, 0, scope, index) + attribute(2, packed) + attribute(1, packed)
    return Request(f"add address {ip}", _NEWADDR, _CREATE | _REPLACE, body, (errno.EEXIST,))


def add_route(network: IPv4Network, device: int, *, gateway: str = "", source: str = "") -> Request:
    """Replaces an equal one. A gateway need not be on the link (`onlink`)."""
    scope = SCOPE_GLOBAL if gateway else SCOPE_LINK
    flags = _ONLINK if gateway else 0
    body = _ROUTE.pack(
        socket.AF_INET, network.prefixlen, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, scope, _TYPE_UNICAST, flags
    )
    if network.prefixlen:
        body += attribute(1, network.network_address.packed)
    body += attribute(4, struct.pack("=I", device))
    if gateway:
        body += attribute(5, socket.inet_aton(gateway))
    if source:
        body += attribute(7, socket.inet_aton(source))
    return Request(f"add route {network}", _NEWROUTE, _CREATE | _REPLACE, body)


def delete_route(network: IPv4Network) -> Request:
    body = _ROUTE.pack(socket.AF_INET, network.prefixlen, 0, 0, _TABLE_MAIN, 0, 255, 0, 0)
    body += attribute(1, network.network_address.packed)
    return Request(f"delete route {network}", _DELROUTE, 0, body, (errno.ESRCH,))


def add_neighbour(index: int, ip: str, mac: bytes) -> Request:
    body = _NEIGHBOUR.pack(socket.AF_INET, 0, index, _NUD_PERMANENT, 0, 0)
    body += attribute(1, socket.inet_aton(ip)) + attribute(2, mac)
    return Request(f"add neighbour {ip}", _NEWNEIGH, _CREATE | _REPLACE, body)


class Netlink:
    """A route socket of the namespace it was opened in. Blocking; answers come within microseconds."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(10)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def send(self, *requests: Request) -> None:
        """Carry out the requests in order, in one message. Raises NetlinkError for the first one refused."""
        if not requests:
            return
        waiting: dict[int, Request] = {}
        parts = []
        for request in requests:
            self._sequence += 1
            waiting[self._sequence] = request
            flags = _REQUEST | _ACK | request.flags
            parts.append(_HEADER.pack(16 + len(request.body), request.type, flags, self._sequence, 0) + request.body)
        self._socket.send(b"".join(parts))
        refused: NetlinkError | None = None
        while waiting:
            for kind, sequence, body in self._receive():
                if kind != _ERROR or sequence not in waiting:
                    continue
                request = waiting.pop(sequence)
                code = -struct.unpack_from("=i", body)[0]
                if code and code not in request.ignore and refused is None:
                    refused = NetlinkError(code, request.what)
        if refused is not None:
            raise refused

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(1 << 16)
        at = 0
        while at + 16 <= len(data):
            size, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
            yield kind, sequence, data[at + 16 : at + size]
            at += (size + 3) & ~3

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        wanted = self._sequence
        self._socket.send(_HEADER.pack(16 + len(body), kind, _REQUEST | _DUMP, wanted, 0) + body)
        while True:
            for answer, sequence, data in self._receive():
                if sequence != wanted:
                    continue
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    raise NetlinkError(-struct.unpack_from("=i", data)[0], "list")
                yield data

    def links(self) -> dict[str, Link]:
        """Every interface by name."""
        found = {}
        for data in self._dump(_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            _, _, index, flags, _ = _LINK.unpack_from(data)
            name = _attributes(data[_LINK.size :]).get(3, b"").rstrip(b"\0").decode()
            found[name] = Link(name, index, bool(flags & _UP))
        return found

    def routes(self) -> list[Route]:
        """The main table, without the default route."""
        found = []
        for data in self._dump(_GETROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            prefix, table = data[1], data[4]
            attributes = _attributes(data[_ROUTE.size :])
            if table == _TABLE_MAIN and 1 in attributes:
                network = IPv4Network((IPv4Address(attributes[1]), prefix))
                found.append(Route(network, struct.unpack("=I", attributes.get(4, b"\0\0\0\0"))[0]))
        return found


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    return found
