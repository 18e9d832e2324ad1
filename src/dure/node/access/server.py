"""What a kubelet answers under its own paths, for all nodes of this machine: logs, exec, attach and port-forward.

    GET       /nodes/{node}/containerLogs/{namespace}/{pod}/{container}
    GET, POST /nodes/{node}/exec|attach/{namespace}/{pod}/{container}
    GET, POST /nodes/{node}/portForward/{namespace}/{pod}

Callers have been authorised by the API server, the only one that reaches this server's socket.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping
from urllib.parse import unquote

from dure.core.aio import closing, running
from dure.core.clock import Clock, SystemClock
from dure.core.errors import ApiError, MethodNotAllowed, NotFound
from dure.core.json import dumps
from dure.node.access.forward import serve_forward
from dure.node.access.logs import LogOptions, LogStream, open_log
from dure.node.access.ports import Rooms
from dure.node.access.sessions import serve_attach, serve_exec
from dure.wire.http import Request, Response
from dure.wire.websocket import accept_websocket, choose_protocol, wants_websocket

log = logging.getLogger(__name__)

_LOG_PROTOCOLS = ("binary.k8s.io", "base64.binary.k8s.io", "")


class AccessServer:
    """`handle` goes behind an HTTP server that only this machine's API server can reach."""

    def __init__(self, nodes: Mapping[str, Rooms], clock: Clock | None = None) -> None:
        self._nodes = nodes
        self._clock = clock or SystemClock()

    async def handle(self, request: Request) -> Response:
        """Never raises ApiError: it is the answer then."""
        try:
            return await self._route(request)
        except ApiError as error:
            return Response(error.code, {"Content-Type": "application/json"}, dumps(error.to_status()))

    async def _route(self, request: Request) -> Response:
        parts = [unquote(part) for part in request.path.split("/")[1:]]
        if request.method not in ("GET", "POST"):
            raise MethodNotAllowed(f"{request.method} is not supported here")
        match parts:
            case ["nodes", node, "containerLogs", namespace, pod, container]:
                return await self._logs(self._rooms(node), namespace, pod, container, request)
            case ["nodes", node, "exec", namespace, pod, container]:
                rooms = self._rooms(node)
                return await serve_exec(rooms, rooms.pods.resolve(namespace, pod, container), request)
            case ["nodes", node, "attach", namespace, pod, container]:
                rooms = self._rooms(node)
                return await serve_attach(rooms, rooms.pods.resolve(namespace, pod, container), request)
            case ["nodes", node, "portForward", namespace, pod]:
                rooms = self._rooms(node)
                found = rooms.pods.resolve_pod(namespace, pod)
                return await serve_forward(rooms, found, pod, request)
        raise NotFound(f"no such path: {request.path}")

    def _rooms(self, node: str) -> Rooms:
        rooms = self._nodes.get(node)
        if rooms is None:
            raise NotFound(f'node "{node}" is not served here')
        return rooms

    async def _logs(self, rooms: Rooms, namespace: str, pod: str, container: str, request: Request) -> Response:
        options = LogOptions.of(request, self._clock.time())
        stream = open_log(rooms.pods.resolve(namespace, pod, container), pod, rooms.runtime, options)
        if wants_websocket(request):
            return await _send_log(request, stream)
        return Response(200, {"Content-Type": "text/plain"}, stream=stream)


async def _send_log(request: Request, stream: LogStream) -> Response:
    """A message a chunk, until the log ends or the reader has gone."""
    protocol = choose_protocol(request, _LOG_PROTOCOLS)
    websocket = await accept_websocket(request, protocol)
    finished = asyncio.Event()

    async def send() -> None:
        try:
            async with closing(stream.chunks()) as chunks:
                async for chunk in chunks:
                    if protocol.startswith("base64."):
                        await websocket.send_text(base64.b64encode(chunk).decode())
                    else:
                        await websocket.send(chunk)
        except ConnectionError as error:
            log.debug("log reader has gone", extra={"error": error})
        finished.set()

    async def watch_reader() -> None:
        while await websocket.receive() is not None:
            pass
        finished.set()

    try:
        async with running(send(), watch_reader()):
            await finished.wait()
    finally:
        await websocket.close()
    return Response(taken=True)
