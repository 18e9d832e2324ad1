"""Network and images of a node that only pretends to run pods: addresses without links, images without content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any

from dure.core.errors import DureError
from dure.node.ports import HostPort, Image, PodAddress


class PretendNetwork:
    """Hands out the addresses of a pod network; nothing answers there."""

    def __init__(self, pod_cidr: str) -> None:
        self._network = IPv4Network(pod_cidr)
        self._attached: dict[str, PodAddress] = {}
        self._next = 1

    async def attach(self, pod_uid: str, *, host_ports: Sequence[HostPort] = ()) -> PodAddress:
        """Raises DureError when every address is taken."""
        if pod_uid not in self._attached:
            self._attached[pod_uid] = PodAddress(self._free(), "")
        return self._attached[pod_uid]

    def _free(self) -> str:
        """The next free one after the last handed out, so that addresses come back late."""
        taken = {address.ip for address in self._attached.values()}
        usable = self._network.num_addresses - 2
        for _ in range(usable):
            ip = str(self._network[self._next])
            self._next = self._next % usable + 1
            if ip not in taken:
                return ip
        raise DureError(f"no free address in {self._network}")

    async def detach(self, pod_uid: str) -> None:
        self._attached.pop(pod_uid, None)

    async def attached(self) -> Mapping[str, PodAddress]:
        return dict(self._attached)

    @property
    def host_netns(self) -> str:
        return ""

    async def connect(self, ip: str, port: int) -> Any:
        raise ConnectionRefusedError(111, "Connection refused")

    async def connect_inside(self, pod_uid: str, port: int) -> Any:
        raise ConnectionRefusedError(111, "Connection refused")


class PretendImages:
    """Every image is there, and empty."""

    async def find(self, reference: str) -> Image | None:
        return Image("sha256:" + hashlib.sha256(reference.encode()).hexdigest(), reference)

    async def pull(self, reference: str, credentials: Sequence[Mapping[str, str]] = ()) -> Image:
        found = await self.find(reference)
        assert found is not None
        return found

    async def mount(self, image: Image, container_id: str) -> str:
        return ""

    async def unmount(self, container_id: str) -> None: ...
