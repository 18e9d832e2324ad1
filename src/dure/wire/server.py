"""Serves a `Handler` over HTTP/1.1: TCP with TLS and client certificates, several addresses, unix sockets.

Bodies are bounded, streams never buffer for a slow reader, and stopping ends streams cleanly.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qs

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from dure.core.errors import BadRequest, ConfigError, InternalError, RequestEntityTooLarge
from dure.core.json import dumps
from dure.wire.http import Duplex, Handler, PushedStream, Request, Response, Stream
from dure.wire.takeover import RawConnection

log = logging.getLogger(__name__)

BODY_LIMIT = 3 * 1024 * 1024
_GZIP_FROM = 128 * 1024
_WRITE_BUFFER = 1024 * 1024
_STALLED_SECONDS = 60.0
"""How long a reader of a stream may take nothing before it is cut off."""

_IP_FREEBIND = 15


@dataclass(frozen=True, slots=True)
class Listen:
    """One place to listen: `host` and `port`, or the `path` of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""
    tls: ssl.SSLContext | None = None
    not_yet_there: bool = False
    """Bind the address even if no interface has it yet."""


class _Connection(RequestHandler):
    """A connection that says when its peer has gone."""

    __slots__ = ("on_lost", "peer_certificate")

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(manager, loop=loop, access_log=None, max_field_size=65536, max_line_size=65536)  # type: ignore[arg-type]
        self.on_lost: Callable[[], object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.peer_certificate: bytes | None = tls.getpeercert(binary_form=True) if tls is not None else None
        transport.set_write_buffer_limits(high=_WRITE_BUFFER)  # type: ignore[attr-defined]

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.on_lost is not None:
            self.on_lost()
        super().connection_lost(exc)

    def take_over(self) -> RawConnection:
        """The raw connection; HTTP is over on it."""
        transport = self.transport
        if transport is None:
            raise ConnectionResetError("the connection has gone")
        first, self._message_tail = bytes(self._message_tail), b""
        return RawConnection(transport, first, self.connection_lost)


class _Server(web.Server):
    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler, request_factory=self._make_bounded_request)

    def __call__(self) -> RequestHandler:
        return _Connection(self, self._loop)

    def _make_bounded_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=BODY_LIMIT)


class _Done(web.StreamResponse):
    """Stands for an answer that has been written past aiohttp; the connection ends with it."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        self._keep_alive = False
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class HttpServer:
    """Runs `handler` at the given places while `serving` lasts."""

    def __init__(self, handler: Handler, listens: Sequence[Listen], *, stop_seconds: float = 5.0) -> None:
        self._handler = handler
        self._listens = tuple(listens)
        self._stop_seconds = stop_seconds
        self._streams: set[asyncio.Task[None]] = set()
        self._taken: set[RawConnection] = set()
        self.ports: list[int] = []
        """The TCP ports listened on, in order, for those who asked for any."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[HttpServer]:
        """Raises ConfigError when an address cannot be had."""
        runner = web.ServerRunner(_Server(self._answer), shutdown_timeout=self._stop_seconds)
        await runner.setup()
        try:
            for listen in self._listens:
                await self._start(runner, listen)
            yield self
        finally:
            for site in list(runner.sites):
                await site.stop()
            self.end_streams()
            await runner.cleanup()
            for listen in self._listens:
                if listen.path:
                    Path(listen.path).unlink(missing_ok=True)

    async def _start(self, runner: web.ServerRunner, listen: Listen) -> None:
        try:
            if listen.path:
                Path(listen.path).unlink(missing_ok=True)
                await web.UnixSite(runner, listen.path, ssl_context=listen.tls).start()
            else:
                bound = _bind(listen)
                await web.SockSite(runner, bound, ssl_context=listen.tls, backlog=1024).start()
                self.ports.append(bound.getsockname()[1])
        except OSError as error:
            place = listen.path or f"{listen.host}:{listen.port}"
            raise ConfigError(f"cannot listen on {place}: {error.strerror or error}") from error

    def end_streams(self) -> None:
        """End every stream that is open, each with its proper last chunk, and every connection taken over."""
        for task in self._streams:
            task.cancel()
        for connection in self._taken:
            connection.end()

    # ── one request ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _answer(self, raw: web.BaseRequest) -> web.StreamResponse:
        try:
            request = await _read(raw, self._take_over(raw))
        except _Refused as refused:
            return _refuse(refused)
        try:
            response = await self._handler(request)
            response.headers.setdefault(hdrs.SERVER, "dure")
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("a handler failed", extra={"path": request.path})
            return _refuse(_Refused(InternalError("the server has logged the cause").to_status(), 500))
        if response.taken:
            return _Done()
        if response.stream is not None and raw.method != "HEAD":
            return await self._write_stream(raw, response, response.stream)
        return _whole(raw, response)

    def _take_over(self, raw: web.BaseRequest) -> Callable[[], Awaitable[Duplex]]:
        async def upgrade() -> Duplex:
            connection = raw.protocol
            assert isinstance(connection, _Connection)
            taken = connection.take_over()
            self._taken.add(taken)
            connection.on_lost = lambda: self._taken.discard(taken)
            return taken

        return upgrade

    async def _write_stream(self, raw: web.BaseRequest, response: Response, stream: Stream) -> web.StreamResponse:
        """Chunk by chunk, until the stream ends, the peer goes, or the server stops."""
        answer = web.StreamResponse(status=response.status, headers=response.headers)
        chunked = raw.version >= (1, 1)
        if chunked:
            answer.enable_chunked_encoding()
        writer = await answer.prepare(raw)
        assert writer is not None
        writer.send_headers()
        connection = raw.protocol
        assert isinstance(connection, _Connection)
        try:
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(_pump(connection, stream, chunked=chunked))
                self._streams.add(pump)
                connection.on_lost = pump.cancel
        except BaseExceptionGroup as errors:
            _, bugs = errors.split((ConnectionError, TimeoutError))
            if bugs is not None:
                log.error("a stream failed", exc_info=bugs, extra={"path": raw.path})
            return _cut_off(connection)
        finally:
            connection.on_lost = None
            self._streams.discard(pump)
        if connection.transport is None or connection.transport.is_closing():
            return _Done()
        await answer.write_eof()
        return answer


def _cut_off(connection: _Connection) -> web.StreamResponse:
    """No last chunk: the reader must not take the answer for whole."""
    if connection.transport is not None:
        connection.transport.abort()
    return _Done()


class _ChunkSink:
    """Writes past aiohttp's writer: one transport write a chunk, framed here."""

    __slots__ = ("_chunked", "_connection")

    def __init__(self, connection: _Connection, *, chunked: bool) -> None:
        self._connection, self._chunked = connection, chunked

    def write(self, data: bytes) -> bool:
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            return False
        transport.write(_framed(data) if self._chunked else data)
        return not self._connection.writing_paused

    async def drained(self) -> None:
        if self._connection.transport is None or self._connection.transport.is_closing():
            raise ConnectionResetError("the reader has gone")
        async with asyncio.timeout(_STALLED_SECONDS):
            await self._connection._drain_helper()


@lru_cache(maxsize=4)
def _framed(data: bytes) -> bytes:
    """One HTTP chunk; thousands of watchers in a row send the same."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _pump(connection: _Connection, stream: Stream, *, chunked: bool) -> None:
    sink = _ChunkSink(connection, chunked=chunked)
    if isinstance(stream, PushedStream):
        await stream.push(sink)
        return
    async with contextlib.aclosing(stream.chunks()) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            if chunk and not sink.write(chunk):
                await sink.drained()


class _Refused(Exception):
    def __init__(self, status: dict[str, object], code: int) -> None:
        super().__init__(code)
        self.status, self.code = status, code


def _refuse(refused: _Refused) -> web.StreamResponse:
    answer = web.Response(status=refused.code, body=dumps(refused.status), content_type="application/json")
    answer.force_close()
    return answer


async def _read(raw: web.BaseRequest, upgrade: Callable[[], Awaitable[Duplex]]) -> Request:
    if raw.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and raw.version >= (1, 1):
        transport = raw.transport
        if transport is not None:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        body = await raw.read() if raw.can_read_body else b""
    except web.HTTPRequestEntityTooLarge:
        error = RequestEntityTooLarge(f"Request entity too large: limit is {BODY_LIMIT}")
        raise _Refused(error.to_status(), 413) from None
    except (web.HTTPException, HttpProcessingError, ValueError) as problem:
        error_ = BadRequest(f"the body cannot be read: {problem}")
        raise _Refused(error_.to_status(), 400) from problem
    connection = raw.protocol
    assert isinstance(connection, _Connection)
    target = raw.raw_path
    path, _, query = target.partition("?")
    return Request(
        method=raw.method,
        path=path,
        query=parse_qs(query, keep_blank_values=True) if query else {},
        headers=_headers(raw),
        body=body,
        peer_certificate=connection.peer_certificate,
        peer_address=str(raw.remote or ""),
        raw_target=target,
        upgrade=upgrade if hdrs.UPGRADE in raw.headers else None,
    )


def _headers(raw: web.BaseRequest) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def _whole(raw: web.BaseRequest, response: Response) -> web.StreamResponse:
    body = response.body if isinstance(response.body, bytes) else b"".join(response.body)
    headers = response.headers
    if len(body) > _GZIP_FROM and "gzip" in raw.headers.get(hdrs.ACCEPT_ENCODING, "") and raw.method != "HEAD":
        headers = {**headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        body = _gzip(body)
    if raw.method == "HEAD":
        headers = {**headers, "Content-Length": str(len(body))}
        body = b""
    return web.Response(status=response.status, headers=headers, body=body)


def _gzip(body: bytes) -> bytes:
    squeezer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join((squeezer.compress(body), squeezer.flush()))


def _bind(listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listen.not_yet_there:
            made.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
        made.setblocking(False)
        made.bind((listen.host, listen.port))
    except OSError:
        made.close()
        raise
    return made
