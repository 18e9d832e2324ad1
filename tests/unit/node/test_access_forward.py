"""Port-forward: SPDY pairs, SPDY in a WebSocket, and the older WebSocket channels."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dure.core.aio import running
from dure.core.json import loads
from dure.node.access.server import AccessServer
from dure.wire.spdy_frames import RST_STREAM
from tests.support.access import local_rooms
from tests.support.duplex import MemoryDuplex, duplex_pair, upgrade_request
from tests.support.spdy_client import SpdyClient
from tests.support.websocket_client import HEADERS, WebSocketClient

pytestmark = pytest.mark.real_loop

SPDY = {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "portforward.k8s.io"}
PATH = "/nodes/n/portForward/default/web"


@asynccontextmanager
async def _echo_server() -> AsyncIterator[int]:
    """Answers `<n bytes>` once its client has ended; "hold" makes it wait for ever."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()
        writer.write(b"echo " + data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def _served(headers: dict[str, str], target: str = PATH, *, method: str = "GET") -> AsyncIterator[MemoryDuplex]:
    server, client = duplex_pair()
    access = AccessServer({"n": local_rooms()})
    finished = asyncio.Event()

    async def handle() -> None:
        assert (await access.handle(upgrade_request(target, headers, server, method=method))).taken
        finished.set()

    async with asyncio.timeout(10), running(handle()):
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        yield client
        await client.close()
        await finished.wait()


async def _open_pair(client: SpdyClient, port: int, request: str = "0") -> tuple[int, int]:
    headers = {"port": str(port), "requestID": request}
    error = await client.open({**headers, "streamType": "error"}, fin=True)
    return error, await client.open({**headers, "streamType": "data"})


async def test_each_pair_of_streams_is_one_connection() -> None:
    async with _echo_server() as port, _served(SPDY, method="POST") as duplex:
        client = SpdyClient(duplex)
        pairs = [await _open_pair(client, port, str(index)) for index in range(3)]
        for index, (_, data) in enumerate(pairs):
            await client.send(data, f"hello {index}".encode(), fin=True)
        found = await client.read_all(*(number for pair in pairs for number in pair))
        assert [found[data] for _, data in pairs] == [b"echo hello 0", b"echo hello 1", b"echo hello 2"]
        assert [found[error] for error, _ in pairs] == [b"", b"", b""]


async def test_a_refused_connection_is_told_on_the_error_stream() -> None:
    port = _free_port()
    async with _served(SPDY, method="POST") as duplex:
        client = SpdyClient(duplex)
        error, data = await _open_pair(client, port)
        assert (await client.read_all(error, data))[error].decode() == (
            f"error forwarding port {port} to pod web, uid u1: "
            f"failed to connect to localhost:{port} inside the pod: connection refused"
        )


async def test_a_reset_of_one_connection_leaves_the_others() -> None:
    async with _echo_server() as port, _served(SPDY, method="POST") as duplex:
        client = SpdyClient(duplex)
        error, data = await _open_pair(client, port, "a")
        await client.reset(data)
        assert (await client.read_all(error))[error] == b""
        other, data = await _open_pair(client, port, "b")
        await client.send(data, b"x", fin=True)
        assert (await client.read_all(other, data))[data] == b"echo x"


@pytest.mark.parametrize(
    "headers",
    [
        {"streamType": "data", "port": "0", "requestID": "1"},
        {"streamType": "data", "port": "x", "requestID": "1"},
        {"streamType": "shout", "port": "80", "requestID": "1"},
        {"streamType": "data", "port": "80"},
    ],
)
async def test_streams_that_fit_nowhere_are_reset(headers: dict[str, str]) -> None:
    async with _served(SPDY, method="POST") as duplex:
        client = SpdyClient(duplex)
        await client.open(headers)
        assert await client.next_of(RST_STREAM)


async def test_a_client_that_leaves_ends_its_connections() -> None:
    async with _echo_server() as port, _served(SPDY, method="POST") as duplex:
        client = SpdyClient(duplex)
        _, data = await _open_pair(client, port)
        await client.send(data, b"half")
        await asyncio.sleep(0.05)


async def test_spdy_is_tunnelled_in_a_websocket() -> None:
    headers = {**HEADERS, "Sec-WebSocket-Protocol": "SPDY/3.1+portforward.k8s.io"}
    async with _echo_server() as port, _served(headers) as duplex:
        socket_ = WebSocketClient(duplex)
        ours, far = duplex_pair()
        client = SpdyClient(ours)

        async def outward() -> None:
            while data := await far.read():
                await socket_.send(data)

        async def inward() -> None:
            while (frame := await socket_.receive()) is not None:
                await far.write(frame[1])

        async with running(outward(), inward()):
            error, data = await _open_pair(client, port)
            await client.send(data, b"hi", fin=True)
            assert await client.read_all(error, data) == {error: b"", data: b"echo hi"}


async def test_old_websocket_clients_get_two_channels_a_port() -> None:
    refused = _free_port()
    headers = {**HEADERS, "Sec-WebSocket-Protocol": "v4.channel.k8s.io"}
    async with _held_server() as port, _served(headers, f"{PATH}?port={port}&port={refused}") as duplex:
        client = WebSocketClient(duplex)
        first = [await client.receive() for _ in range(4)]
        assert first == [
            (2, b"\0" + struct.pack("<H", port)),
            (2, b"\1" + struct.pack("<H", port)),
            (2, b"\2" + struct.pack("<H", refused)),
            (2, b"\3" + struct.pack("<H", refused)),
        ]
        await client.send(b"\0ping")
        rest = sorted(frame[1] for frame in [await client.receive(), await client.receive()] if frame)
        assert rest[0] == b"\0got ping"
        assert rest[1].startswith(b"\3error forwarding port")


@asynccontextmanager
async def _held_server() -> AsyncIterator[int]:
    """Answers each piece at once and stays open."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(b"got " + data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("query", ["", "?port=0", "?port=a", "?port=70000"])
async def test_old_clients_must_name_ports(query: str) -> None:
    server, _ = duplex_pair()
    request = upgrade_request(PATH + query, {**HEADERS, "Sec-WebSocket-Protocol": "v4.channel.k8s.io"}, server)
    answer = await AccessServer({"n": local_rooms()}).handle(request)
    assert answer.status == 400
    assert "must be a list of port numbers" in loads(bytes(answer.body))["message"]


async def test_an_upgrade_is_required() -> None:
    server, _ = duplex_pair()
    answer = await AccessServer({"n": local_rooms()}).handle(upgrade_request(PATH, {}, server))
    assert answer.status == 400
