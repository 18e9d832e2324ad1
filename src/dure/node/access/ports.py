"""What the access room needs of its node: pods by name, a runtime, and a way to a pod's ports."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from dure.node.ports import Runtime

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Found(Protocol):
    """One container of one pod, as it is now."""

    @property
    def container(self) -> str: ...

    @property
    def container_id(self) -> str:
        """Of the newest run; empty when there was none."""
        ...

    @property
    def running(self) -> bool: ...

    @property
    def waiting(self) -> str:
        """Why there has been no run yet: the reason in the container's status."""
        ...

    @property
    def log_path(self) -> str: ...

    @property
    def previous_log_path(self) -> str:
        """Empty when there was no earlier run."""
        ...

    @property
    def tty(self) -> bool: ...

    @property
    def stdin(self) -> bool: ...


class FoundPod(Protocol):
    """One pod, as it is now."""

    @property
    def uid(self) -> str: ...

    @property
    def host_network(self) -> bool: ...


class PodLookup(Protocol):
    def resolve_pod(self, namespace: str, pod: str) -> FoundPod:
        """Raises NotFound."""
        ...

    def resolve(self, namespace: str, pod: str, container: str = "") -> Found:
        """`container` may be empty: the pod's default one. Raises NotFound, BadRequest."""
        ...


class Network(Protocol):
    async def connect(self, ip: str, port: int) -> Connection:
        """As the node reaches it. Raises OSError."""
        ...

    async def connect_inside(self, pod_uid: str, port: int) -> Connection:
        """To the loopback of a pod. Raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Rooms:
    """One node's."""

    pods: PodLookup
    runtime: Runtime
    network: Network
