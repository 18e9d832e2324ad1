"""A transport over HTTP(S) on aiohttp: kept-alive connections, watches as lines of JSON read in big chunks."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import aiohttp
from aiohappyeyeballs import AddrInfoType
from yarl import URL

from dure.client.transport import Answer, Call
from dure.core.aio import Scope
from dure.core.errors import ApiError, TransportError, error_from_status
from dure.core.json import JSONDecodeError, dumps, loads

CONNECT_SECONDS = 10.0
_READ_BUFFER = 1 << 18


class HttpTransport:
    """`async with` opens and closes its connections.

    `tls` and `token` are asked at each request, so that renewed credentials are used at once.
    """

    def __init__(
        self,
        url: str,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        token: Callable[[], str] | None = None,
        headers: Mapping[str, str] | None = None,
        server_name: str = "",
        connections: int = 0,
    ) -> None:
        self._url = url.rstrip("/")
        self._tls = tls
        self._token = token
        self._headers = {"Accept": "application/json", "User-Agent": "dure", **(headers or {})}
        self._server_name = server_name or None
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> HttpTransport:
        connector = aiohttp.TCPConnector(limit=self._connections, socket_factory=_keepalive_socket)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)  # deadlines are the caller's
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, read_bufsize=_READ_BUFFER, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def send(self, call: Call) -> Scope[Answer]:
        return self._send(call)

    @asynccontextmanager
    async def _send(self, call: Call) -> AsyncIterator[Answer]:
        response = await self._request(call)
        try:
            if response.status >= 400:
                raise await _error(response)
            yield _Answer(response, call)
        finally:
            response.close() if not response.content.at_eof() else response.release()

    async def _request(self, call: Call) -> aiohttp.ClientResponse:
        assert self._session is not None, "open the transport with `async with` first"
        headers = {**self._headers, **call.headers}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token()}"
        body = None
        if call.value is not None:
            headers["Content-Type"] = call.content_type
            body = dumps(call.value)
        url = URL(self._url + URL.build(path=call.path).raw_path, encoded=True).with_query(_pairs(call.query))
        try:
            return await self._session.request(
                call.method,
                url,
                data=body,
                headers=headers,
                ssl=self._tls() if self._tls is not None else True,
                server_hostname=self._server_name,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            never_sent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
            raise _broken(call, error, repeatable=never_sent) from error


class _Answer:
    def __init__(self, response: aiohttp.ClientResponse, call: Call) -> None:
        self._response = response
        self._call = call
        self.status = response.status

    async def value(self) -> Any:
        body = await self._body()
        try:
            return loads(body) if body else None
        except JSONDecodeError as error:
            raise _broken(self._call, error) from error

    async def text(self) -> str:
        return (await self._body()).decode(errors="replace")

    async def values(self) -> AsyncIterator[Any]:
        rest = b""
        try:
            async for chunk in self._response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield loads(line)
        except (aiohttp.ClientError, OSError, JSONDecodeError) as error:
            raise _broken(self._call, error) from error
        if rest.strip():
            raise TransportError(f"{self._call.method} {self._call.path}: the watch ended in the middle of an event")

    async def _body(self) -> bytes:
        try:
            return await self._response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise _broken(self._call, error) from error


def _broken(call: Call, error: Exception, *, repeatable: bool = False) -> TransportError:
    text = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError):  # its own text shows the insides of the TLS context
        text = f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    return TransportError(f"{call.method} {call.path}: {text}", repeatable=repeatable or call.method == "GET")


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    try:
        body = await response.read()
    except (aiohttp.ClientError, OSError):
        body = b""  # the code alone says enough
    try:
        status = loads(body)
    except JSONDecodeError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        status = {"message": body.decode(errors="replace").strip()[:500]}
    error = error_from_status(status, response.status)
    after = response.headers.get("Retry-After", "")
    if after.isdigit():
        error.retry_after = int(after)
    return error


def _pairs(query: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, value) for name, values in query.items() for value in values]


def _keepalive_socket(address: AddrInfoType) -> socket.socket:
    """A watch may be silent for hours: the kernel notices when the other machine has gone."""
    sock = socket.socket(*address[:3])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setblocking(False)
    return sock
