"""Asking the host's own resolvers, as /etc/resolv.conf names them at the time of the question (resolv.conf(5))."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Container
from pathlib import Path

from dure.core.errors import DureError
from dure.node.network.dns import wire

RESOLV_CONF = Path("/etc/resolv.conf")
_PORT = 53
_PATIENCE_SECONDS = 2.0
_IMPATIENCE_SECONDS = 0.5
"""For a server that did not answer the last time."""
_TOGETHER = 256
_MOST_SERVERS = 3


class NoAnswer(DureError):
    """No upstream server gave a usable answer."""


class Upstream:
    """Queries leave from the process's own namespace, each by a socket of its own with a fresh port and id.

    `ours` are addresses that are never asked: the cluster's own.
    """

    def __init__(self, ours: Container[str] = (), resolv_conf: Path = RESOLV_CONF, port: int = _PORT) -> None:
        self._ours = ours
        self._path = resolv_conf
        self._port = port
        self._seen: tuple[int, int, int] | None = None
        self._servers: list[str] = []
        self._silent: set[str] = set()
        self._asking = 0

    async def ask(
        self, question: bytes, *, edns_limit: int = 0, wants_dnssec: bool = False, tcp: bool = False
    ) -> bytes:
        """The first server's answer to a question in wire form, its id 0. Raises NoAnswer."""
        servers = self._current_servers()
        if not servers:
            raise NoAnswer(f"{self._path} names no server")
        if self._asking >= _TOGETHER:
            raise NoAnswer(f"{_TOGETHER} questions are under way")
        self._asking += 1
        try:
            for server in sorted(servers, key=lambda one: one in self._silent):
                id_ = secrets.randbits(16)
                query = wire.ask(id_, question, edns_limit=edns_limit, wants_dnssec=wants_dnssec)
                answer = await self._try(server, query, id_, question, tcp)
                if answer is not None:
                    return b"\0\0" + answer[2:]
        finally:
            self._asking -= 1
        raise NoAnswer(f"no answer from {', '.join(servers)}")

    async def _try(self, server: str, query: bytes, id_: int, question: bytes, tcp: bool) -> bytes | None:
        patience = _IMPATIENCE_SECONDS if server in self._silent else _PATIENCE_SECONDS
        try:
            async with asyncio.timeout(patience):
                answer = await (_over_tcp if tcp else _over_udp)(server, self._port, query, id_, question)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self._silent.add(server)
            return None
        self._silent.discard(server)
        return answer

    def _current_servers(self) -> list[str]:
        try:
            state = self._path.stat()
            seen = (state.st_mtime_ns, state.st_ino, state.st_size)
            if seen != self._seen:
                self._servers = servers_in(self._path.read_text(errors="replace"), self._ours)
                self._seen = seen
                self._silent.clear()
        except OSError:
            self._servers, self._seen = [], None
        return self._servers


def servers_in(text: str, ours: Container[str] = ()) -> list[str]:
    """The first three nameservers of a resolv.conf."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver" or words[1] in ours:
            continue
        try:
            ipaddress.ip_address(words[1].partition("%")[0])
        except ValueError:
            continue
        found.append(words[1])
    return found[:_MOST_SERVERS]


class _Exchange(asyncio.DatagramProtocol):
    """Waits for the datagram that answers the question, whatever else arrives."""

    def __init__(self, id_: int, question: bytes) -> None:
        self._id = id_
        self._question = question
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.answer.done() and wire.is_answer_to(data, self._id, self._question):
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _over_udp(server: str, port: int, query: bytes, id_: int, question: bytes) -> bytes:
    transport, exchange = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Exchange(id_, question), remote_addr=(server, port)
    )
    try:
        transport.sendto(query)
        return await exchange.answer
    finally:
        transport.close()


async def _over_tcp(server: str, port: int, query: bytes, id_: int, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    if not wire.is_answer_to(answer, id_, question):
        raise OSError("an answer to another question")
    return answer
