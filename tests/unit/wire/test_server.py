"""The HTTP server on real sockets: bodies, streams, upgrades, certificates, stopping."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dure.core.errors import ConfigError
from dure.identity.authority import Authority
from dure.wire.http import Handler, Request, Response
from dure.wire.server import BODY_LIMIT, HttpServer, Listen
from dure.wire.tls import server_context

pytestmark = pytest.mark.real_loop


class Ticks:
    """A stream of lines that goes on until it is told to end."""

    def __init__(self, count: int = 1_000_000, size: int = 8, pause: float = 0.001) -> None:
        self.count, self.size, self.pause = count, size, pause
        self.sent = 0
        self.closed = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            for number in range(self.count):
                self.sent += 1
                yield f"{number}\n".encode().ljust(self.size, b".")
                await asyncio.sleep(self.pause)
        finally:
            self.closed.set()

    def values(self) -> AsyncIterator[Any]:
        return self.chunks()


async def echo(request: Request) -> Response:
    """What came, told back."""
    text = f"{request.method} {request.path} {dict(request.query)} {request.headers.get('x-a', '')} {len(request.body)}"
    return Response(200, {"Content-Type": "text/plain"}, text.encode())


@asynccontextmanager
async def serving(handler: Handler, path: Path, **options: Any) -> AsyncIterator[str]:
    """A server on a unix socket in `path`."""
    place = str(path / "server.sock")
    async with HttpServer(handler, [Listen(path=place)], **options).serving():
        yield place


async def talk(place: str, sent: bytes, *, until: bytes = b"") -> bytes:
    """Send and read, to the end or until something has come."""
    reader, writer = await asyncio.open_unix_connection(place)
    writer.write(sent)
    got = b""
    async with asyncio.timeout(5):
        while (data := await reader.read(65536)) or not data:
            got += data
            if not data or (until and until in got):
                break
    writer.close()
    return got


async def test_a_request_arrives_in_parts_and_is_answered(tmp_path: Path) -> None:
    async with serving(echo, tmp_path) as place:
        request = (
            b"POST /a%20b?x=1&x=2&y= HTTP/1.1\r\nHost: h\r\nX-A: v\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
        )
        got = await talk(place, request)
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"POST /a%20b {'x': ['1', '2'], 'y': ['']} v 3")


async def test_connections_are_kept_and_requests_pipelined(tmp_path: Path) -> None:
    async with serving(echo, tmp_path) as place:
        one = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
        last = b"GET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        got = await talk(place, one + last)
    assert got.count(b"HTTP/1.1 200 OK") == 2


async def test_head_gets_the_length_and_no_body(tmp_path: Path) -> None:
    async with serving(echo, tmp_path) as place:
        got = await talk(place, b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"Content-Length: 12" in head
    assert body == b""


async def test_expect_continue_is_granted(tmp_path: Path) -> None:
    async with serving(echo, tmp_path) as place:
        reader, writer = await asyncio.open_unix_connection(place)
        writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()


async def test_a_body_over_the_limit_is_refused_with_a_status(tmp_path: Path) -> None:
    async with serving(echo, tmp_path) as place:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (BODY_LIMIT + 1)
        got = await talk(place, head + b"x" * (BODY_LIMIT + 1), until=b'"code":413')
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b'"reason":"RequestEntityTooLarge"' in got


async def test_a_broken_handler_is_answered_with_a_status(tmp_path: Path) -> None:
    async def broken(request: Request) -> Response:
        raise RuntimeError("bug")

    async with serving(broken, tmp_path) as place:
        got = await talk(place, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 500 ")
    assert b"bug" not in got


async def test_large_bodies_are_squeezed_for_those_who_ask(tmp_path: Path) -> None:
    parts = [b"a" * 100_000, b"b" * 100_000]

    async def large(request: Request) -> Response:
        return Response(200, {"Content-Type": "text/plain"}, parts)

    async with serving(large, tmp_path) as place:
        plain = await talk(place, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        squeezed = await talk(place, b"GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
    head, _, body = squeezed.partition(b"\r\n\r\n")
    assert plain.endswith(b"".join(parts))
    assert b"Content-Encoding: gzip" in head
    assert gzip.decompress(body) == b"".join(parts)


async def test_a_stream_comes_chunk_by_chunk_and_ends(tmp_path: Path) -> None:
    async def stream(request: Request) -> Response:
        return Response(200, {"Content-Type": "text/plain"}, stream=Ticks(3))

    async with serving(stream, tmp_path) as place:
        got = await talk(place, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert body == b"8\r\n0\n......\r\n8\r\n1\n......\r\n8\r\n2\n......\r\n0\r\n\r\n"


async def test_a_stream_ends_when_its_reader_goes(tmp_path: Path) -> None:
    ticks = Ticks()

    async def stream(request: Request) -> Response:
        return Response(200, stream=ticks)

    async with serving(stream, tmp_path) as place:
        await talk(place, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", until=b"3\n")
        await asyncio.wait_for(ticks.closed.wait(), 2)


async def test_a_reader_that_stops_reading_holds_back_the_stream(tmp_path: Path) -> None:
    ticks = Ticks(size=64 * 1024, pause=0)

    async def stream(request: Request) -> Response:
        return Response(200, stream=ticks)

    async with serving(stream, tmp_path) as place:
        reader, writer = await asyncio.open_unix_connection(place)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readline()
        await asyncio.sleep(0.3)
        held = ticks.sent
        await asyncio.sleep(0.2)
        assert ticks.sent == held
        assert held * ticks.size < 16 * 1024 * 1024
        writer.close()
        await asyncio.wait_for(ticks.closed.wait(), 2)


async def test_stopping_ends_streams_with_their_last_chunk(tmp_path: Path) -> None:
    async def stream(request: Request) -> Response:
        return Response(200, stream=Ticks())

    async with serving(stream, tmp_path) as place:
        reading = asyncio.create_task(talk(place, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
        await asyncio.sleep(0.1)
    assert (await reading).endswith(b"0\r\n\r\n")
    assert not Path(place).exists()


async def test_stopping_lets_a_slow_request_finish(tmp_path: Path) -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.2)
        return Response(200, body=b"done")

    async with serving(slow, tmp_path) as place:
        reading = asyncio.create_task(talk(place, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"))
        await asyncio.sleep(0.05)
    assert (await reading).endswith(b"done")


async def shout(request: Request) -> Response:
    """Says everything back louder, on the raw connection."""
    assert request.upgrade is not None
    duplex = await request.upgrade()
    name = request.headers["upgrade"].encode()
    await duplex.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % name)
    while data := await duplex.read():
        await duplex.write(data.upper())
    await duplex.close()
    return Response(taken=True)


@pytest.mark.parametrize("protocol", [b"websocket", b"SPDY/3.1"])
async def test_an_upgrade_hands_over_the_raw_connection(tmp_path: Path, protocol: bytes) -> None:
    async with serving(shout, tmp_path) as place:
        reader, writer = await asyncio.open_unix_connection(place)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % protocol)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(b"hello")
        async with asyncio.timeout(2):
            assert await reader.readexactly(5) == b"HELLO"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_stopping_closes_connections_that_were_taken_over(tmp_path: Path) -> None:
    async with serving(shout, tmp_path) as place:
        reader, writer = await asyncio.open_unix_connection(place)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        started = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - started < 1
    assert await reader.read() == b""
    writer.close()


async def test_what_a_client_sends_before_the_switch_is_not_lost(tmp_path: Path) -> None:
    async with serving(shout, tmp_path) as place:
        head = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert (await talk(place, head + b"early", until=b"EARLY")).endswith(b"EARLY")


async def test_a_client_certificate_reaches_the_handler(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    server = authority.server("api", ["localhost", "127.0.0.1"])
    client = authority.client("admin", "admin", ["system:masters"])

    async def who(request: Request) -> Response:
        return Response(200, body=b"known" if request.peer_certificate else b"nobody")

    tls = server_context(server.certificate, server.key, authority.certificate_path)
    context = ssl.create_default_context(cafile=str(authority.certificate_path))
    with_certificate = ssl.create_default_context(cafile=str(authority.certificate_path))
    with_certificate.load_cert_chain(client.certificate, client.key)
    http = HttpServer(who, [Listen("127.0.0.1", 0, tls=tls)])
    async with http.serving():
        (port,) = http.ports
        answers = []
        for shown in (context, with_certificate):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=shown)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answers.append((await reader.read()).rpartition(b"\r\n")[2])
            writer.close()
    assert answers == [b"nobody", b"known"]


async def test_an_address_that_is_not_there_yet_can_be_bound() -> None:
    async with HttpServer(echo, [Listen("192.0.2.77", 0, not_yet_there=True)]).serving():
        pass


async def test_a_taken_port_is_one_clear_error() -> None:
    first = HttpServer(echo, [Listen("127.0.0.1", 0)])
    async with first.serving():
        (port,) = first.ports
        with pytest.raises(ConfigError) as caught:
            async with HttpServer(echo, [Listen("127.0.0.1", port)]).serving():
                pass
    assert caught.value.message == f"cannot listen on 127.0.0.1:{port}: Address already in use"
