"""exec and attach: a client's streams joined with a process in a container."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from dure.core.aio import closing, running
from dure.core.errors import BadRequest, InternalError
from dure.core.json import Obj
from dure.node.access.ports import Found, Rooms
from dure.node.access.spdy_streams import open_spdy_streams, wants_spdy
from dure.node.access.status import exited, failed
from dure.node.access.streams import ClientGone, Streams, Wanted
from dure.node.access.websocket_streams import open_websocket_streams
from dure.node.ports import RuntimeFailure, Session
from dure.wire.http import Request, Response
from dure.wire.websocket import wants_websocket

log = logging.getLogger(__name__)

_SILENT_SECONDS = 1.0


async def serve_exec(rooms: Rooms, found: Found, request: Request) -> Response:
    """Run a command in a running container. Raises ApiError while nothing was answered."""
    wanted = Wanted.of(request)
    args = list(request.query.get("command") or ())
    if not args:
        raise BadRequest("you must specify at least one command for the container")
    _check_running(found)
    session = rooms.runtime.exec(found.container_id, args, tty=wanted.tty, stdin=wanted.stdin)
    return await _serve(request, wanted, session, "executing command", args)


async def serve_attach(rooms: Rooms, found: Found, request: Request) -> Response:
    """Join the main process of a running container. Raises ApiError while nothing was answered."""
    wanted = Wanted.of(request)
    _check_running(found)
    session = rooms.runtime.attach(found.container_id, stdin=wanted.stdin and found.stdin)
    return await _serve(request, wanted, session, "attaching to process", ())


def _check_running(found: Found) -> None:
    if not found.running:
        raise InternalError(f'container not found ("{found.container}")')


def open_streams(request: Request, wanted: Wanted) -> AbstractAsyncContextManager[Streams]:
    """By WebSocket or SPDY, as the client asks. Raises BadRequest."""
    if wants_websocket(request):
        return open_websocket_streams(request, wanted)
    if wants_spdy(request):
        return open_spdy_streams(request, wanted)
    raise BadRequest("unable to upgrade: missing upgrade headers in request")


async def _serve(
    request: Request,
    wanted: Wanted,
    session: AbstractAsyncContextManager[Session],
    what: str,
    args: Sequence[str],
) -> Response:
    try:
        async with open_streams(request, wanted) as streams:
            await streams.finish(await _run(streams, session, wanted, what, args))
    except ConnectionError as error:
        log.debug("session left by its client", extra={"error": error})
    return Response(taken=True)


async def _run(
    streams: Streams,
    opening: AbstractAsyncContextManager[Session],
    wanted: Wanted,
    what: str,
    args: Sequence[str],
) -> Obj:
    """How it ended. Raises ClientGone when the client goes first; the process is left to the runtime then."""
    try:
        async with opening as session:
            joined = _Joined(streams, session, wanted)
            async with running(*joined.services()):
                code = await joined.wait_end()
    except RuntimeFailure as error:
        return failed(what, str(error))
    return exited(code, args)


class _Joined:
    """A session and its client, until the process or the client ends."""

    def __init__(self, streams: Streams, session: Session, wanted: Wanted) -> None:
        self._streams, self._session, self._wanted = streams, session, wanted
        self._end: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._copied = self._writing = False
        self._progress = asyncio.Event()

    def services(self) -> Iterator[Coroutine[Any, Any, None]]:
        yield self._copy_output()
        yield self._watch_exit()
        yield self._watch_client()
        if self._wanted.stdin:
            yield self._pump_stdin()
        if self._wanted.tty:
            yield self._pump_sizes()

    async def wait_end(self) -> int:
        """The exit code. Raises ClientGone."""
        code = await self._end
        if code is None:
            raise ClientGone("the client has gone")
        return code

    def _settle(self, code: int | None) -> None:
        if not self._end.done():
            self._end.set_result(code)

    async def _copy_output(self) -> None:
        try:
            async with closing(self._session.output()) as output:
                async for stream, data in output:
                    self._writing = True
                    self._progress.set()
                    if self._wanted.stdout if stream == "stdout" else self._wanted.stderr:
                        await self._streams.write(stream, data)
                    self._writing = False
        except ConnectionError:
            self._settle(None)
        self._copied = True
        self._progress.set()

    async def _watch_exit(self) -> None:
        """After the exit the output is drained; a process left behind may hold it open for ever, silently."""
        code = await self._session.wait()
        while not self._copied:
            self._progress.clear()
            try:
                async with asyncio.timeout(_SILENT_SECONDS):
                    await self._progress.wait()
            except TimeoutError:
                if not self._writing:  # else it is the client that is slow
                    break
        self._settle(code)

    async def _watch_client(self) -> None:
        await self._streams.wait_gone()
        self._settle(None)

    async def _pump_stdin(self) -> None:
        try:
            async with closing(self._streams.stdin()) as typed:
                async for data in typed:
                    await self._session.write_stdin(data)
        except ConnectionError as error:
            log.debug("stdin was reset", extra={"error": error})
        self._session.close_stdin()

    async def _pump_sizes(self) -> None:
        try:
            async with closing(self._streams.sizes()) as sizes:
                async for columns, rows in sizes:
                    self._session.resize(columns, rows)
        except ConnectionError as error:
            log.debug("resize was reset", extra={"error": error})
