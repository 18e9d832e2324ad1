"""Ports of the host's loopback held for load balancers, so that nobody listens on them unheard.

A claimed port has a socket that never answers: packets are translated before they would reach it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from dure.node.network.services.publications import LOOPBACK, Port


class Claims:
    """Sockets of the process's own namespace."""

    def __init__(self) -> None:
        self._held: dict[Port, socket.socket] = {}

    def take(self, port: Port) -> bool:
        """Whether the port is ours now; False when someone listens there."""
        if port in self._held:
            return True
        kind = socket.SOCK_STREAM if port.protocol == "TCP" else socket.SOCK_DGRAM
        made = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            if port.protocol == "TCP":
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((LOOPBACK, port.number))
            if port.protocol == "TCP":
                made.listen(1)
        except OSError:
            made.close()
            return False
        self._held[port] = made
        return True

    def keep_only(self, ports: Iterable[Port]) -> None:
        """Give back all others."""
        kept = set(ports)
        for port in [port for port in self._held if port not in kept]:
            self._held.pop(port).close()

    def close(self) -> None:
        self.keep_only(())
