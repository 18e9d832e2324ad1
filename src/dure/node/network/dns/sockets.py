"""DNS at one address of a node: UDP in batches from the loop, TCP by RFC 7766, both inside the node's namespace."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial

from dure.node.network.dns.resolver import Resolver
from dure.node.network.dns.zone import Zone

log = logging.getLogger(__name__)

MakeSocket = Callable[[Callable[[], socket.socket]], Awaitable[socket.socket]]
"""Runs a socket's maker inside the right namespace."""

Send = Callable[[bytes], object]

_PORT = 53
_BATCH = 64
_MOST_FORWARDED = 512
_MOST_CONNECTIONS = 128
_IDLE_SECONDS = 10.0


class DnsSockets:
    """Serves one address. Questions that come before the zone is ready wait in the socket."""

    def __init__(
        self, zone: Zone, resolver: Resolver, address: str, make_socket: MakeSocket, port: int = _PORT
    ) -> None:
        self._zone = zone
        self._resolver = resolver
        self._address = (address, port)
        self._make_socket = make_socket
        self._connections: set[_Connection] = set()
        self._forwarded = 0
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Works until cancelled."""
        loop = asyncio.get_running_loop()
        udp = await self._make_socket(self._udp_socket)
        try:
            tcp = await self._make_socket(self._tcp_socket)
            try:
                await self._zone.wait_ready()
                await self._serve(loop, udp, tcp)
            finally:
                tcp.close()
        finally:
            udp.close()

    async def _serve(self, loop: asyncio.AbstractEventLoop, udp: socket.socket, tcp: socket.socket) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            listener = await loop.create_server(lambda: _Connection(self), sock=tcp)
            loop.add_reader(udp, self._read_datagrams, udp)
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None
                loop.remove_reader(udp)
                listener.close()
                for connection in [*self._connections]:
                    connection.close()

    def respond(self, data: bytes, *, tcp: bool, send: Send) -> None:
        """Answer one message by `send`, at once where possible."""
        try:
            answer = self._resolver.answer(data, tcp=tcp)
        except Exception:  # one strange message must not end the service
            log.exception("cannot answer a DNS message", extra={"start": data[:64].hex()})
            return
        if isinstance(answer, bytes):
            send(answer)
        elif answer is not None:
            self._send_later(answer, send)

    def _send_later(self, answer: Awaitable[bytes], send: Send) -> None:
        async def wait_and_send() -> None:
            try:
                send(await answer)
            finally:
                self._forwarded -= 1

        if self._tasks is None or self._forwarded >= _MOST_FORWARDED:
            _drop(answer)
            return
        self._forwarded += 1
        self._tasks.create_task(wait_and_send(), name="dns forward")

    def _read_datagrams(self, udp: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data, peer = udp.recvfrom(4096)
            except OSError:  # nothing more, or the error of an earlier answer
                return
            self.respond(data, tcp=False, send=partial(_send_datagram, udp, peer))

    def _udp_socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind(self._address)
        return made

    def _tcp_socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(self._address)
        made.listen(128)
        return made

    def enter(self, connection: _Connection) -> bool:
        """Whether there is room for one more TCP connection."""
        if len(self._connections) >= _MOST_CONNECTIONS:
            return False
        self._connections.add(connection)
        return True

    def leave(self, connection: _Connection) -> None:
        self._connections.discard(connection)


class _Connection(asyncio.Protocol):
    """One TCP client: messages with a length before them, answered as they are ready, idle for ten seconds at most."""

    def __init__(self, server: DnsSockets) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream server makes stream transports
        if self._server.enter(self):
            self._restart_timer()
        else:
            transport.close()

    def data_received(self, data: bytes) -> None:
        self._restart_timer()
        self._buffer += data
        while len(self._buffer) >= 2:
            size = int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < 2 + size:
                return
            message, self._buffer = self._buffer[2 : 2 + size], self._buffer[2 + size :]
            self._server.respond(message, tcp=True, send=self._send)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.leave(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        """A client that asks but does not read is let go."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _send(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(answer).to_bytes(2, "big") + answer)

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self.close)


def _send_datagram(udp: socket.socket, peer: tuple[str, int], answer: bytes) -> None:
    try:
        udp.sendto(answer, peer)
    except OSError:  # a full buffer or a peer that is gone: the client asks again
        log.debug("DNS answer not sent", extra={"peer": peer[0]})


def _drop(answer: Awaitable[bytes]) -> None:
    close = getattr(answer, "close", None)
    if close is not None:
        close()
