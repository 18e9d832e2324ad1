"""Session streams over SPDY/3.1: the client opens one stream for each, named by its `streamType` header.

From `v4.channel.k8s.io` on the error stream bears a Status, before it a plain message.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from dure.core.aio import running
from dure.core.errors import BadRequest, Forbidden
from dure.core.json import Obj, dumps
from dure.node.access.streams import ClientGone, Output, Wanted
from dure.node.access.websocket_streams import read_size
from dure.wire.http import Duplex, Request
from dure.wire.spdy import SpdyConnection, SpdyStream

log = logging.getLogger(__name__)

V4 = "v4.channel.k8s.io"
PROTOCOLS = (V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io", "")
_VERSION_HEADER = "x-stream-protocol-version"
_ARRIVE_SECONDS = 30.0
_LEAVE_SECONDS = 5.0


def wants_spdy(request: Request) -> bool:
    connection = request.headers.get("connection", "").lower()
    return request.headers.get("upgrade", "").lower() == "spdy/3.1" and "upgrade" in connection


async def accept_spdy(request: Request, supported: Sequence[str]) -> tuple[Duplex, str]:
    """Take the connection over in the first stream protocol offered that is supported.

    Raises BadRequest, Forbidden before anything was answered.
    """
    if request.upgrade is None or not wants_spdy(request):
        raise BadRequest("unable to upgrade: missing upgrade headers in request")
    text = request.headers.get(_VERSION_HEADER, "")
    offered = [part.strip() for part in text.split(",") if part.strip()] or [""]
    chosen = next((protocol for protocol in offered if protocol in supported), None)
    if chosen is None:
        known = " ".join(protocol for protocol in supported if protocol)
        raise Forbidden(
            f"unable to negotiate protocol: client supports [{' '.join(offered)}], server accepts [{known}]"
        )
    duplex = await request.upgrade()
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: SPDY/3.1", "Connection: Upgrade"]
    if chosen:
        lines.append(f"X-Stream-Protocol-Version: {chosen}")
    await duplex.write("\r\n".join([*lines, "", ""]).encode())
    return duplex, chosen


@asynccontextmanager
async def open_spdy_streams(request: Request, wanted: Wanted) -> AsyncIterator[SpdyStreams]:
    """Once the client has opened every stream it asked for. Raises BadRequest, Forbidden, ClientGone."""
    duplex, protocol = await accept_spdy(request, PROTOCOLS)
    connection = SpdyConnection(duplex)
    gone = asyncio.Event()

    async def run() -> None:
        try:
            await connection.run()
        finally:
            gone.set()

    try:
        async with running(run()):
            streams = await _wait_streams(connection, _expected(wanted, protocol))
            yield SpdyStreams(streams, protocol, gone)
    finally:
        await duplex.close()


def _expected(wanted: Wanted, protocol: str) -> set[str]:
    names = {"error"}
    names |= {name for name in ("stdin", "stdout", "stderr") if getattr(wanted, name)}
    if wanted.tty and protocol in (V4, "v3.channel.k8s.io"):
        names.add("resize")
    return names


async def _wait_streams(connection: SpdyConnection, expected: set[str]) -> dict[str, SpdyStream]:
    found: dict[str, SpdyStream] = {}
    try:
        async with asyncio.timeout(_ARRIVE_SECONDS):
            async for stream in connection.streams():
                kind = stream.headers.get("streamtype", "")
                if kind not in expected or kind in found:
                    await stream.reset()
                    continue
                found[kind] = stream
                if len(found) == len(expected):
                    return found
    except TimeoutError:
        log.info("timed out waiting for client to create streams")
    raise ClientGone("the client did not open its streams")


class SpdyStreams:
    """See `Streams`."""

    def __init__(self, streams: dict[str, SpdyStream], protocol: str, gone: asyncio.Event) -> None:
        self._streams = streams
        self._has_status = protocol == V4
        self._gone = gone

    async def stdin(self) -> AsyncIterator[bytes]:
        stream = self._streams.get("stdin")
        while stream is not None and (data := await stream.read()):
            yield data

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        stream, text = self._streams.get("resize"), ""
        while stream is not None and (data := await stream.read()):
            text = (text + data.decode(errors="replace"))[-4096:]
            while (parsed := _first_value(text)) is not None:
                value, text = parsed
                if (size := read_size(value)) is not None:
                    yield size

    async def write(self, stream: Output, data: bytes) -> None:
        if (target := self._streams.get(stream)) is not None:
            await target.write(data)

    async def wait_gone(self) -> None:
        await self._gone.wait()

    async def finish(self, status: Obj) -> None:
        try:
            for name in ("stdout", "stderr"):
                if (stream := self._streams.get(name)) is not None:
                    await stream.close_write()
            error = self._streams["error"]
            if self._has_status:
                await error.write(dumps(status))
            elif status["status"] != "Success":
                await error.write(str(status["message"]).encode())
            await error.close_write()
            for name in ("stdin", "resize"):
                if (stream := self._streams.get(name)) is not None:
                    await stream.close_write()
            # closing before the client has read everything could take the last bytes from it
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._gone.wait()
        except (ConnectionError, TimeoutError) as problem:
            log.debug("client left early", extra={"error": problem})


def _first_value(text: str) -> tuple[bytes, str] | None:
    """The first JSON value of `text` and what follows it; None while it is not whole."""
    text = text.lstrip()
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError:
        return None
    return text[:end].encode(), text[end:]
