"""SPDY/3.1: streams, half-close, resets, flow control in both directions, and broken peers."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.core.aio import running
from dure.wire.spdy import SpdyConnection, SpdyStream, StreamReset
from dure.wire.spdy_frames import (
    DICTIONARY,
    FLAG_FIN,
    GOAWAY,
    PING,
    RST_STREAM,
    SETTINGS,
    SYN_REPLY,
    SYN_STREAM,
    WINDOW_UPDATE,
    Frame,
    FrameReader,
    HeaderReader,
    HeaderWriter,
    SpdyError,
    control_frame,
    data_frame,
)
from tests.support.duplex import duplex_pair
from tests.support.spdy_client import SpdyClient


@asynccontextmanager
async def _connected() -> AsyncIterator[tuple[SpdyConnection, SpdyClient]]:
    server, client = duplex_pair()
    connection = SpdyConnection(server)
    async with running(connection.run()):
        yield connection, SpdyClient(client)


async def _opened(connection: SpdyConnection, client: SpdyClient) -> SpdyStream:
    await client.open({"streamtype": "data"})
    return await anext(connection.streams())


def test_the_dictionary_is_that_of_the_draft() -> None:
    assert len(DICTIONARY) == 1423
    assert DICTIONARY.startswith(b"\0\0\0\x07options\0\0\0\x04head")
    assert DICTIONARY.endswith(b"charset=utf-8charset=iso-8859-1,utf-,*,enq=0.")


async def test_a_stream_carries_bytes_both_ways_until_both_sides_end() -> None:
    async with _connected() as (connection, client):
        number = await client.open({"StreamType": "data", "port": "80"})
        stream = await anext(connection.streams())
        assert stream.headers == {"streamtype": "data", "port": "80"}
        await client.send(number, b"ping", fin=True)
        assert [await stream.read(), await stream.read()] == [b"ping", b""]
        await stream.write(b"pong")
        await stream.close_write()
        assert (await client.next_of(SYN_REPLY)).payload[:4] == struct.pack(">I", number)
        assert await client.read_all(number) == {number: b"pong"}


async def test_header_blocks_share_one_compression_stream() -> None:
    async with _connected() as (connection, client):
        streams = connection.streams()
        for index in range(5):
            await client.open({"streamtype": "data", "requestid": str(index)})
        assert [(await anext(streams)).headers["requestid"] for _ in range(5)] == list("01234")


async def test_a_reset_by_the_peer_ends_reading_and_writing() -> None:
    async with _connected() as (connection, client):
        stream = await _opened(connection, client)
        await client.reset(stream.number)
        with pytest.raises(StreamReset):
            await stream.read()
        with pytest.raises(StreamReset):
            await stream.write(b"x")


async def test_our_reset_is_told_once() -> None:
    async with _connected() as (connection, client):
        stream = await _opened(connection, client)
        await stream.reset()
        await stream.reset()
        assert (await client.next_of(RST_STREAM)).payload == struct.pack(">II", stream.number, 5)
        await client.duplex.write(control_frame(PING, struct.pack(">I", 1)))
        assert (await client.next_frame()) == Frame(PING, 0, struct.pack(">I", 1))


async def test_pings_of_the_client_are_answered() -> None:
    async with _connected() as (_, client):
        await client.duplex.write(control_frame(PING, struct.pack(">I", 7)))
        assert (await client.next_of(PING)).payload == struct.pack(">I", 7)


async def test_what_was_read_is_granted_again() -> None:
    async with _connected() as (connection, client):
        stream = await _opened(connection, client)
        await client.send(stream.number, b"x" * 40_000)
        assert len(await stream.read()) == 40_000
        session, own = await client.next_of(WINDOW_UPDATE), await client.next_of(WINDOW_UPDATE)
        assert session.payload == struct.pack(">II", 0, 40_000)
        assert own.payload == struct.pack(">II", stream.number, 40_000)


async def test_without_windows_of_the_peer_nothing_is_held_back() -> None:
    async with _connected() as (connection, client):
        stream = await _opened(connection, client)
        await stream.write(b"x" * 300_000)
        await stream.close_write()
        assert len((await client.read_all(stream.number))[stream.number]) == 300_000


async def test_the_windows_of_a_peer_that_keeps_them_are_minded() -> None:
    async with _connected() as (connection, client):
        await client.duplex.write(control_frame(SETTINGS, struct.pack(">III", 1, 7, 1000)))
        stream = await _opened(connection, client)
        writing = asyncio.ensure_future(stream.write(b"x" * 1500))
        assert len((await client.next_of(0)).payload) == 1000
        await asyncio.sleep(1)
        assert not writing.done()
        await client.duplex.write(control_frame(WINDOW_UPDATE, struct.pack(">II", stream.number, 600)))
        assert len((await client.next_of(0)).payload) == 500
        await writing


async def test_a_writer_held_back_wakes_when_the_peer_goes() -> None:
    async with _connected() as (connection, client):
        await client.duplex.write(control_frame(SETTINGS, struct.pack(">III", 1, 7, 0)))
        stream = await _opened(connection, client)
        writing = asyncio.ensure_future(stream.write(b"x"))
        await asyncio.sleep(1)
        await client.duplex.close()
        with pytest.raises(ConnectionError):
            await writing


async def test_a_stream_nobody_reads_stops_the_connection_not_the_memory() -> None:
    async with _connected() as (connection, client):
        stream = await _opened(connection, client)
        sent = 0
        try:
            async with asyncio.timeout(1):
                while True:
                    await client.send(stream.number, b"x" * 500_000)
                    sent += 500_000
        except TimeoutError:
            assert 4_000_000 < sent < 8_000_000
        assert stream.held < 6_000_000
        while stream.held:
            await stream.read()


async def test_data_for_unknown_streams_is_refused() -> None:
    async with _connected() as (_, client):
        await client.send(9, b"x")
        assert (await client.next_of(RST_STREAM)).payload == struct.pack(">II", 9, 2)


@pytest.mark.parametrize(
    "junk",
    [
        b"\0\0\0\x01\0\xff\xff\xff",
        control_frame(SYN_STREAM, b"\0"),
        control_frame(SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + b"not zlib"),
        control_frame(SYN_STREAM, struct.pack(">IIH", 2, 0, 0) + HeaderWriter().write({})),
        control_frame(SETTINGS, struct.pack(">I", 1000)),
        struct.pack(">HHI", 0x8002, 1, 0),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_sent_away(junk: bytes) -> None:
    async with _connected() as (connection, client):
        await client.duplex.write(junk)
        assert (await client.next_of(GOAWAY)).payload[4:] == struct.pack(">I", 1)
        assert [stream async for stream in connection.streams()] == []


def test_header_bombs_are_refused() -> None:
    bomb = HeaderWriter().write({"a": "x" * 1_000_000})
    assert len(bomb) < 10_000
    with pytest.raises(SpdyError, match="too large"):
        HeaderReader().read(bomb)


@given(st.lists(st.tuples(st.integers(1, 2**31 - 1), st.binary(max_size=50)), max_size=5), st.integers(1, 20))
def test_frames_survive_any_cut(frames: list[tuple[int, bytes]], size: int) -> None:
    wire = b"".join(data_frame(number, data, FLAG_FIN) for number, data in frames)
    reader, found = FrameReader(), []
    for at in range(0, len(wire), size):
        found += list(reader.feed(wire[at : at + size]))
    assert found == [Frame(0, FLAG_FIN, data, number) for number, data in frames]


@given(
    st.dictionaries(st.text("abc-:", min_size=1), st.text(st.characters(max_codepoint=255, exclude_characters="\0")))
)
def test_headers_survive_the_way(headers: dict[str, str]) -> None:
    assert HeaderReader().read(HeaderWriter().write(headers)) == headers


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(junk: bytes) -> None:
    try:
        list(FrameReader().feed(junk))
        HeaderReader().read(junk)
    except SpdyError as error:
        assert str(error)
