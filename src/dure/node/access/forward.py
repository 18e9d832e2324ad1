"""Port-forward: one TCP connection into a pod for each connection a client makes.

Over SPDY (`portforward.k8s.io`, plain or tunnelled in a WebSocket) a client opens an error and a data stream for each,
told apart by `requestID`. Over the older WebSocket protocol each port has two channels and one connection.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from dure.core.aio import running
from dure.core.errors import BadRequest
from dure.node.access.ports import Connection, FoundPod, Rooms
from dure.node.access.spdy_streams import accept_spdy, wants_spdy
from dure.node.access.websocket_streams import Channels, Inbox
from dure.wire.http import Duplex, Request, Response
from dure.wire.spdy import SpdyConnection, SpdyStream
from dure.wire.websocket import WebSocketDuplex, accept_websocket, choose_protocol, wants_websocket

log = logging.getLogger(__name__)

SPDY_PROTOCOL = "portforward.k8s.io"
TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
CHANNEL_PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")
_CHUNK_BYTES = 32 * 1024
_MAX_HALVES = 256
_CONNECT_SECONDS = 10.0


class Pod:
    """Where the ports are."""

    def __init__(self, rooms: Rooms, found: FoundPod, name: str) -> None:
        self._rooms, self._found, self._name = rooms, found, name

    async def connect(self, port: int) -> Connection:
        """To the pod's loopback; of a pod on the host network, the node's. Raises OSError, TimeoutError."""
        async with asyncio.timeout(_CONNECT_SECONDS):
            if self._found.host_network:
                return await self._rooms.network.connect("127.0.0.1", port)
            return await self._rooms.network.connect_inside(self._found.uid, port)

    def failure(self, port: int, error: BaseException) -> str:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else ""
        why = f"failed to connect to localhost:{port} inside the pod: {reason or 'timed out'}"
        return f"error forwarding port {port} to pod {self._name}, uid {self._found.uid}: {why}"


async def serve_forward(rooms: Rooms, found: FoundPod, name: str, request: Request) -> Response:
    """Raises ApiError while nothing was answered."""
    pod = Pod(rooms, found, name)
    try:
        if wants_spdy(request):
            duplex, _ = await accept_spdy(request, (SPDY_PROTOCOL,))
            await _serve_spdy(pod, duplex)
        elif wants_websocket(request):
            protocol = choose_protocol(request, (TUNNEL_PROTOCOL, *CHANNEL_PROTOCOLS))
            if protocol == TUNNEL_PROTOCOL:
                await _serve_spdy(pod, WebSocketDuplex(await accept_websocket(request, protocol)))
            else:
                await _serve_channels(pod, request, protocol)
        else:
            raise BadRequest("unable to upgrade: missing upgrade headers in request")
    except ConnectionError as error:
        log.debug("port-forward left by its client", extra={"error": error})
    return Response(taken=True)


class Pipe(Protocol):
    """The client's end of one forwarded connection."""

    async def read(self) -> bytes:
        """At least one byte, or empty at the end. Raises ConnectionError."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def close_write(self) -> None: ...


async def join(pipe: Pipe, connection: Connection) -> None:
    """Copy both ways until both sides have ended; each side's end is passed on. Raises OSError."""
    reader, writer = connection
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_to_pod(pipe, writer))
            both.create_task(_to_client(reader, pipe))
    except* OSError as errors:
        raise OSError(f"copying ended: {errors.exceptions[0]}") from errors
    finally:
        writer.close()


async def _to_pod(pipe: Pipe, writer: asyncio.StreamWriter) -> None:
    while data := await pipe.read():
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _to_client(reader: asyncio.StreamReader, pipe: Pipe) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        await pipe.write(data)
    await pipe.close_write()


# ── SPDY ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _serve_spdy(pod: Pod, duplex: Duplex) -> None:
    connection = SpdyConnection(duplex)
    try:
        async with running(connection.run()), asyncio.TaskGroup() as group:
            forwards = _Forwards(pod, group)
            async for stream in connection.streams():
                await forwards.add(stream)
            forwards.cancel()
    finally:
        await duplex.close()


class _Forwards:
    """Streams that wait for their other half, and the connections that are made."""

    def __init__(self, pod: Pod, group: asyncio.TaskGroup) -> None:
        self._pod, self._group = pod, group
        self._halves: dict[str, SpdyStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, stream: SpdyStream) -> None:
        """A stream that fits nowhere is reset, and so is the oldest half once too many wait."""
        kind, request = stream.headers.get("streamtype"), stream.headers.get("requestid")
        if kind not in ("error", "data") or not request or not _port_of(stream.headers.get("port", "")):
            await stream.reset()
            return
        other = self._halves.pop(request, None)
        if other is None:
            self._halves[request] = stream
            if len(self._halves) > _MAX_HALVES:
                await self._halves.pop(next(iter(self._halves))).reset()
        elif other.headers["streamtype"] == kind:
            await stream.reset()
            await other.reset()
        else:
            error, data = (stream, other) if kind == "error" else (other, stream)
            task = self._group.create_task(_forward_pair(self._pod, error, data))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


async def _forward_pair(pod: Pod, error: SpdyStream, data: SpdyStream) -> None:
    port = _port_of(data.headers["port"])
    try:
        if (connection := await _connect(pod, port, error.write)) is None:
            await data.reset()
        else:
            await join(data, connection)
        await error.close_write()
    except OSError as problem:
        log.debug("forwarded connection broke", extra={"port": port, "error": problem})
        await _end(error)


async def _end(error: SpdyStream) -> None:
    """The client waits for the end of the error stream."""
    try:
        await error.close_write()
    except ConnectionError as problem:
        log.debug("client left early", extra={"error": problem})


async def _connect(pod: Pod, port: int, complain: Callable[[bytes], Awaitable[None]]) -> Connection | None:
    """None after the client was told why there is no connection."""
    try:
        return await pod.connect(port)
    except (OSError, TimeoutError) as problem:
        log.debug("port-forward failed", extra={"port": port, "error": problem})
        await complain(pod.failure(port, problem).encode())
        return None


def _port_of(text: str) -> int:
    """0 when it is none."""
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < 65536 else 0


# ── channels of a WebSocket ───────────────────────────────────────────────────────────────────────────────────────


class _Channel:
    """A port's data channel; an end cannot be told to the client by itself."""

    def __init__(self, channels: Channels, number: int) -> None:
        self._channels, self._number = channels, number
        self.inbox = Inbox()

    async def read(self) -> bytes:
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        await self._channels.send(self._number, data)

    async def close_write(self) -> None:
        self.inbox.close()


async def _serve_channels(pod: Pod, request: Request, protocol: str) -> None:
    values = request.query.get("port") or request.query.get("ports") or ()
    ports = [_port_of(text) for value in values for text in value.split(",")]
    if not ports or len(ports) > 127 or 0 in ports:
        raise BadRequest('query parameter "port" must be a list of port numbers')
    websocket = await accept_websocket(request, protocol)
    channels = Channels(websocket, protocol)
    pipes = [_Channel(channels, 2 * index) for index in range(len(ports))]
    finished = asyncio.Event()
    try:
        for index, port in enumerate(ports):
            # each channel says first which port it is for
            await channels.send(2 * index, struct.pack("<H", port))
            await channels.send(2 * index + 1, struct.pack("<H", port))
        async with running(
            _receive(channels, pipes, finished), _forward_channels(pod, ports, pipes, channels, finished)
        ):
            await finished.wait()
    finally:
        await websocket.close()


async def _receive(channels: Channels, pipes: Sequence[_Channel], finished: asyncio.Event) -> None:
    while (message := await channels.receive()) is not None:
        channel, data = message
        if channel % 2 == 0 and channel // 2 < len(pipes):
            await pipes[channel // 2].inbox.put(data)
    finished.set()


async def _forward_channels(
    pod: Pod, ports: Sequence[int], pipes: Sequence[_Channel], channels: Channels, finished: asyncio.Event
) -> None:
    async with asyncio.TaskGroup() as forwards:
        for index, port in enumerate(ports):
            forwards.create_task(_forward_channel(pod, port, pipes[index], channels, 2 * index + 1))
    finished.set()


async def _forward_channel(pod: Pod, port: int, pipe: _Channel, channels: Channels, errors: int) -> None:
    try:
        connection = await _connect(pod, port, lambda text: channels.send(errors, text))
        if connection is not None:
            await join(pipe, connection)
    except OSError as problem:
        log.debug("forwarded connection broke", extra={"port": port, "error": problem})
