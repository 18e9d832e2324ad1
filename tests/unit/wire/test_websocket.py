"""WebSocket: handshake, messages, control frames, and peers that break the rules."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from dure.core.errors import BadRequest
from dure.wire.websocket import (
    Message,
    WebSocket,
    WebSocketDuplex,
    accept_websocket,
    choose_protocol,
)
from tests.support.duplex import duplex_pair, upgrade_request
from tests.support.websocket_client import HEADERS, WebSocketClient

CLOSE, PING, PONG = 8, 9, 10


def _pair(**options: Any) -> tuple[WebSocket, WebSocketClient]:
    server, client = duplex_pair()
    return WebSocket(server, **options), WebSocketClient(client)


async def test_the_handshake_proves_the_key_and_names_the_protocol() -> None:
    server, client = duplex_pair()
    await accept_websocket(upgrade_request("/x", HEADERS, server), "v5.channel.k8s.io")
    assert (await WebSocketClient(client).handshake()).split("\r\n")[:5] == [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: v5.channel.k8s.io",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"Upgrade": "h2c"},
        {"Connection": "keep-alive"},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": "!"},
    ],
)
async def test_a_broken_handshake_is_a_bad_request(change: dict[str, str]) -> None:
    server, _ = duplex_pair()
    with pytest.raises(BadRequest):
        await accept_websocket(upgrade_request("/x", {**HEADERS, **change}, server))


@pytest.mark.parametrize(("offered", "chosen"), [("a, b", "a"), ("c,b", "b"), ("", ""), ("b", "b")])
def test_the_first_offered_protocol_that_is_known_is_chosen(offered: str, chosen: str) -> None:
    server, _ = duplex_pair()
    request = upgrade_request("/x", {**HEADERS, "Sec-WebSocket-Protocol": offered}, server)
    assert choose_protocol(request, ("b", "a", "")) == chosen


def test_unknown_protocols_are_refused() -> None:
    server, _ = duplex_pair()
    request = upgrade_request("/x", {**HEADERS, "Sec-WebSocket-Protocol": "x"}, server)
    with pytest.raises(BadRequest, match=r"requested protocol\(s\) are not supported: \[x\]; supports \[a b\]"):
        choose_protocol(request, ("a", "b"))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
async def test_messages_of_every_length_survive_both_ways(size: int) -> None:
    server, client = _pair()
    data = bytes(index % 251 for index in range(size))
    await client.send(data)
    assert await server.receive() == Message(data)
    await server.send(data)
    assert await client.receive() == (2, data)


async def test_fragments_are_joined_around_control_frames() -> None:
    server, client = _pair()
    await client.send(b"he", 1, fin=False)
    await client.send(b"hi", PING)
    await client.send(b"llo", 0)
    assert await server.receive() == Message(b"hello", is_text=True)
    assert await client.receive() == (PONG, b"hi")


async def test_a_close_is_answered_and_ends_receiving() -> None:
    server, client = _pair()
    await client.send(struct.pack(">H", 1001), CLOSE)
    assert await server.receive() is None
    assert await server.receive() is None
    assert await client.receive() == (CLOSE, struct.pack(">H", 1001))
    with pytest.raises(ConnectionError):
        await server.send(b"late")


async def test_our_close_waits_for_the_peers() -> None:
    server, client = _pair()
    await client.send(b"unread")
    await client.send(struct.pack(">H", 1000), CLOSE)
    await server.close(1000, "bye")
    assert await client.receive() == (CLOSE, struct.pack(">H", 1000) + b"bye")
    assert await client.receive() is None


async def test_a_peer_that_does_not_answer_a_close_is_left_after_a_while() -> None:
    server, client = _pair()
    await server.close()
    assert (await client.receive() or (0,))[0] == CLOSE


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"data": b"x", "masked": False}, 1002),
        ({"data": b"x", "opcode": 3}, 1002),
        ({"data": b"x", "opcode": 0}, 1002),
        ({"data": b"x" * 126, "opcode": PING}, 1002),
        ({"data": b"x", "opcode": PING, "fin": False}, 1002),
        ({"data": b"\xff", "opcode": 1}, 1007),
        ({"data": b"x" * 1001}, 1009),
        ({"data": struct.pack(">H", 5), "opcode": CLOSE}, 1002),
    ],
)
async def test_rule_breakers_get_their_own_code(frame: dict[str, Any], code: int) -> None:
    server, client = _pair(limit=1000)
    await client.send(**frame)
    assert await server.receive() is None
    opcode, data = await client.receive() or (0, b"")
    assert (opcode, data[:2]) == (CLOSE, struct.pack(">H", code))


async def test_the_limit_counts_over_all_fragments() -> None:
    server, client = _pair(limit=1000)
    await client.send(b"x" * 600, fin=False)
    await client.send(b"x" * 600, 0)
    assert await server.receive() is None
    assert (await client.receive() or (0, b""))[1][:2] == struct.pack(">H", 1009)


async def test_a_lost_connection_ends_receiving() -> None:
    server, client = _pair()
    await client.duplex.write(b"\x82")
    await client.duplex.close()
    assert await server.receive() is None


async def test_bytes_are_tunnelled_in_binary_messages() -> None:
    server, client = _pair()
    tunnel = WebSocketDuplex(server)
    await client.send(b"abc")
    assert [await tunnel.read(2), await tunnel.read(2)] == [b"ab", b"c"]
    await tunnel.write(b"xyz")
    assert await client.receive() == (2, b"xyz")
    await client.send(b"", CLOSE)
    assert await tunnel.read() == b""
