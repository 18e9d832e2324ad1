"""Forgetting UDP flows whose endpoint is gone, by ctnetlink (nfnetlink_conntrack.h); TCP ends by itself, UDP would not.

All functions work on the namespace of the calling thread.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dure.node.network.netlink import NetlinkError, attribute

_HEADER = struct.Struct("=IHHII")
_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x0101, 0x0102
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_FAMILY = struct.pack("=BBH", socket.AF_INET, 0, 0)
_NESTED = 0x8000


class Flow(NamedTuple):
    """A UDP flow: where its first packet went, and who answers."""

    destination: tuple[str, int]
    answerer: tuple[str, int]
    original: bytes
    """The original tuple as the kernel wrote it."""


def forget(is_stale: Callable[[Flow], bool]) -> int:
    """Delete the flows that are stale; how many there were."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(10)
        netlink.bind((0, 0))
        stale = [flow for flow in _flows(netlink) if is_stale(flow)]
        for flow in stale:
            _delete(netlink, flow)
    return len(stale)


def _flows(netlink: socket.socket) -> Iterator[Flow]:
    netlink.send(_HEADER.pack(16 + len(_FAMILY), _GET, _REQUEST | _DUMP, 1, 0) + _FAMILY)
    while True:
        for kind, body in _messages(netlink):
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise NetlinkError(-struct.unpack_from("=i", body)[0], "list flows")
            flow = _flow(body[4:])
            if flow is not None:
                yield flow


def _delete(netlink: socket.socket, flow: Flow) -> None:
    body = _FAMILY + attribute(1 | _NESTED, flow.original)
    netlink.send(_HEADER.pack(16 + len(body), _DELETE, _REQUEST | _ACK, 2, 0) + body)
    for _, answer in _messages(netlink):
        code = -struct.unpack_from("=i", answer)[0]
        if code not in (0, errno.ENOENT):
            raise NetlinkError(code, "delete flow")


def _messages(netlink: socket.socket) -> Iterator[tuple[int, bytes]]:
    data = netlink.recv(1 << 18)
    at = 0
    while at + 16 <= len(data):
        size, kind, _, _, _ = _HEADER.unpack_from(data, at)
        yield kind, data[at + 16 : at + size]
        at += (size + 3) & ~3


def _flow(data: bytes) -> Flow | None:
    parts = _nested(data)
    if 1 not in parts or 2 not in parts:
        return None
    original, reply = _tuple(parts[1]), _tuple(parts[2])
    if original is None or reply is None:
        return None
    return Flow(original[1], reply[0], parts[1])


def _tuple(data: bytes) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """Source and destination; None unless it is UDP over IPv4."""
    parts = _nested(data)
    ip, protocol = _nested(parts.get(1, b"")), _nested(parts.get(2, b""))
    if protocol.get(1, b"")[:1] != bytes([socket.IPPROTO_UDP]):
        return None
    if not {1, 2} <= ip.keys() or not {2, 3} <= protocol.keys():
        return None
    source = socket.inet_ntoa(ip[1][:4]), int.from_bytes(protocol[2][:2], "big")
    destination = socket.inet_ntoa(ip[2][:4]), int.from_bytes(protocol[3][:2], "big")
    return source, destination


def _nested(data: bytes) -> dict[int, bytes]:
    found = {}
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    return found
