"""Addresses of one node's pods: who has which, kept as one small file a pod.

An address comes back into use as late as possible, so that a peer of a dead pod does not reach a new one by chance.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from dure.core.errors import DureError
from dure.core.json import dumps, loads
from dure.node.ports import HostPort


class NoAddress(DureError):
    """Every address of the node's pod network is given out."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a pod was given; `number` is the place of its address in the node's network."""

    pod_uid: str
    ip: str
    number: int
    host_ports: tuple[HostPort, ...] = ()


class Leases:
    """The leases of one node, loaded from `folder`; a file that cannot be read is dropped."""

    def __init__(self, folder: Path, network: IPv4Network) -> None:
        self._folder = folder
        self._network = network
        self._by_uid: dict[str, Lease] = {}
        self._last = 1

    def load(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._by_uid = {}
        for path in sorted(self._folder.iterdir()):
            lease = _read(path)
            if lease is None or IPv4Address(lease.ip) not in self._network:
                path.unlink()
                continue
            self._by_uid[lease.pod_uid] = lease
            self._last = max(self._last, lease.number)

    def get(self, pod_uid: str) -> Lease | None:
        return self._by_uid.get(pod_uid)

    def all(self) -> list[Lease]:
        return list(self._by_uid.values())

    def take(self, pod_uid: str, host_ports: Sequence[HostPort]) -> Lease:
        """The pod's lease, made if it has none; on disk when this returns. Raises NoAddress."""
        held = self._by_uid.get(pod_uid)
        if held is not None and held.host_ports == tuple(host_ports):
            return held
        number = held.number if held is not None else self._next()
        lease = Lease(pod_uid, str(self._network[number]), number, tuple(host_ports))
        scratch = self._folder / f".{pod_uid}"
        scratch.write_bytes(dumps(asdict(lease)))
        scratch.rename(self._folder / pod_uid)
        self._by_uid[pod_uid] = lease
        return lease

    def release(self, pod_uid: str) -> None:
        self._by_uid.pop(pod_uid, None)
        with contextlib.suppress(FileNotFoundError):
            (self._folder / pod_uid).unlink()

    def _next(self) -> int:
        """The first free number after the last one given; network, first and broadcast address are left out."""
        used = {lease.number for lease in self._by_uid.values()}
        usable = self._network.num_addresses - 3
        for step in range(usable):
            number = 2 + (self._last - 1 + step) % usable
            if number not in used:
                self._last = number
                return number
        raise NoAddress(f"no free address in {self._network}: {len(used)} pods have one")


def _read(path: Path) -> Lease | None:
    try:
        data: dict[str, Any] = loads(path.read_bytes())
        ports = tuple(HostPort(**port) for port in data["host_ports"])
        lease = Lease(str(data["pod_uid"]), str(IPv4Address(data["ip"])), int(data["number"]), ports)
    except (ValueError, KeyError, TypeError):
        return None
    return lease if lease.pod_uid == path.name else None
