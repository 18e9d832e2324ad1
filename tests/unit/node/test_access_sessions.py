"""exec and attach as clients speak them: WebSocket channels of every version, and SPDY."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dure.core.aio import running
from dure.core.json import loads
from dure.node.access.server import AccessServer
from tests.support.access import LocalRuntime, LocalTarget, local_rooms
from tests.support.duplex import MemoryDuplex, duplex_pair, upgrade_request
from tests.support.spdy_client import SpdyClient
from tests.support.websocket_client import HEADERS, WebSocketClient

pytestmark = pytest.mark.real_loop

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE_SIGNAL = 0, 1, 2, 3, 4, 255
SUCCESS = {"metadata": {}, "status": "Success"}
SPDY = {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v5.channel.k8s.io, v4.channel.k8s.io, channel.k8s.io"}


def _exec(*args: str, streams: str = "output=1&error=1") -> str:
    return "/nodes/n/exec/default/web/main?" + "&".join([*(f"command={arg}" for arg in args), streams])


@asynccontextmanager
async def _served(
    target: str, headers: dict[str, str], found: LocalTarget | None = None, *, method: str = "GET"
) -> AsyncIterator[MemoryDuplex]:
    """A client's end of the connection, after the 101; the server has finished when the block has."""
    server, client = duplex_pair()
    access = AccessServer({"n": local_rooms(found)})
    finished = asyncio.Event()

    async def handle() -> None:
        assert (await access.handle(upgrade_request(target, headers, server, method=method))).taken
        finished.set()

    async with asyncio.timeout(10), running(handle()):
        head = await client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        yield client
        await client.close()
        await finished.wait()


async def _refused(target: str, headers: dict[str, str], found: LocalTarget | None = None) -> Any:
    server, _ = duplex_pair()
    answer = await AccessServer({"n": local_rooms(found)}).handle(upgrade_request(target, headers, server))
    status = loads(bytes(answer.body))
    return answer.status, status["message"]


def _websocket(protocol: str) -> dict[str, str]:
    return {**HEADERS, "Sec-WebSocket-Protocol": protocol}


async def _collect(client: WebSocketClient, decode: Callable[[bytes], tuple[int, bytes]]) -> dict[int, bytes]:
    """Everything by channel, until the server closes."""
    found: dict[int, bytes] = {}
    while (frame := await client.receive()) is not None and frame[0] != 8:
        channel, data = decode(frame[1])
        found[channel] = found.get(channel, b"") + data
    assert frame is not None
    assert frame[1] == struct.pack(">H", 1000)
    await client.send(frame[1], 8)
    return found


def _binary(data: bytes) -> tuple[int, bytes]:
    return data[0], data[1:]


def _base64(data: bytes) -> tuple[int, bytes]:
    return data[0] - ord("0"), base64.b64decode(data[1:])


async def test_exec_over_websocket_gives_output_and_exit_code() -> None:
    target = _exec("sh", "-c", "echo out;echo err >%262;exit 3".replace(";", "%3B"))
    async with _served(target, _websocket("v5.channel.k8s.io")) as duplex:
        found = await _collect(WebSocketClient(duplex), _binary)
    assert (found[STDOUT], found[STDERR]) == (b"out\n", b"err\n")
    assert loads(found[ERROR]) == {
        "metadata": {},
        "status": "Failure",
        "message": "command terminated with non-zero exit code: "
        "error executing command [sh -c echo out;echo err >&2;exit 3], exit code 3",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    }


async def test_v5_clients_close_stdin_by_a_message() -> None:
    async with _served(_exec("cat", streams="input=1&output=1"), _websocket("v5.channel.k8s.io")) as duplex:
        client = WebSocketClient(duplex)
        await client.send(bytes([STDIN]) + b"hello ")
        await client.send(bytes([STDIN]) + b"world")
        await client.send(bytes([CLOSE_SIGNAL, STDIN]))
        found = await _collect(client, _binary)
    assert found[STDOUT] == b"hello world"
    assert loads(found[ERROR]) == SUCCESS


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"])
async def test_v4_greets_and_ends_with_a_status(protocol: str) -> None:
    async with _served(_exec("echo", "hi"), _websocket(protocol)) as duplex:
        client = WebSocketClient(duplex)
        decode = _base64 if "base64" in protocol else _binary
        greeting = await client.receive()
        assert greeting is not None
        assert decode(greeting[1]) == (STDOUT, b"")
        found = await _collect(client, decode)
    assert found[STDOUT] == b"hi\n"
    assert loads(found[ERROR]) == SUCCESS


@pytest.mark.parametrize("protocol", ["channel.k8s.io", "base64.channel.k8s.io", ""])
async def test_the_first_protocols_say_nothing_on_success_and_a_text_on_failure(protocol: str) -> None:
    decode = _base64 if "base64" in protocol else _binary
    async with _served(_exec("true"), _websocket(protocol)) as duplex:
        assert await _collect(WebSocketClient(duplex), decode) == {STDOUT: b""}
    async with _served(_exec("false"), _websocket(protocol)) as duplex:
        assert b"exit code 1" in (await _collect(WebSocketClient(duplex), decode))[ERROR]


async def test_a_terminal_has_the_size_the_client_gives() -> None:
    target = _exec("sh", streams="input=1&output=1&tty=1")
    async with _served(target, _websocket("v5.channel.k8s.io")) as duplex:
        client = WebSocketClient(duplex)
        await client.send(bytes([RESIZE]) + b'{"Width":101,"Height":33}')
        await client.send(bytes([RESIZE]) + b"junk")
        await asyncio.sleep(0.1)
        await client.send(bytes([STDIN]) + b"stty size\nexit 4\n")
        found = await _collect(client, _binary)
    assert b"33 101" in found[STDOUT]
    assert loads(found[ERROR])["details"]["causes"][0]["message"] == "4"


async def test_a_command_that_is_not_there_is_an_internal_error() -> None:
    async with _served(_exec("no-such-command"), _websocket("v5.channel.k8s.io")) as duplex:
        found = await _collect(WebSocketClient(duplex), _binary)
    why = 'error executing command in container: exec: "no-such-command": executable file not found in $PATH'
    assert loads(found[ERROR]) == {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {why}",
        "reason": "InternalError",
        "details": {"causes": [{"message": why}]},
        "code": 500,
    }


async def test_a_client_that_leaves_ends_the_process() -> None:
    async with _served(_exec("sleep", "1000"), _websocket("v5.channel.k8s.io")) as duplex:
        await duplex.close()


async def test_a_background_process_does_not_hold_the_session() -> None:
    target = _exec("sh", "-c", "sleep 3 %26 echo started")
    async with _served(target, _websocket("v5.channel.k8s.io")) as duplex:
        found = await _collect(WebSocketClient(duplex), _binary)
    assert found[STDOUT] == b"started\n"


async def test_a_slow_client_still_gets_everything() -> None:
    async with _served(_exec("head", "-c", "3000000", "/dev/zero"), _websocket("v5.channel.k8s.io")) as duplex:
        await asyncio.sleep(2.5)
        found = await _collect(WebSocketClient(duplex), _binary)
    assert len(found[STDOUT]) == 3_000_000


async def test_attach_joins_the_main_process() -> None:
    target = "/nodes/n/attach/default/web/main?input=true&output=true&error=true"
    async with _served(target, _websocket("v5.channel.k8s.io")) as duplex:
        client = WebSocketClient(duplex)
        await client.send(bytes([STDIN]) + b"typed")
        await client.send(bytes([CLOSE_SIGNAL, STDIN]))
        found = await _collect(client, _binary)
    assert found[STDOUT] == b"typed"


async def test_exec_over_spdy_uses_a_stream_for_each() -> None:
    target = _exec("sh", "-c", "cat; echo err >%262; exit 7", streams="input=1&output=1&error=1").replace(";", "%3B")
    async with _served(target, SPDY, method="POST") as duplex:
        client = SpdyClient(duplex)
        error, stdin = await client.open({"streamType": "error"}), await client.open({"streamType": "stdin"})
        stdout, stderr = await client.open({"streamType": "stdout"}), await client.open({"streamType": "stderr"})
        await client.send(stdin, b"typed", fin=True)
        found = await client.read_all(error, stdout, stderr)
    assert (found[stdout], found[stderr]) == (b"typed", b"err\n")
    assert loads(found[error])["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


async def test_a_terminal_over_spdy_is_resized_by_its_stream() -> None:
    async with _served(_exec("sh", streams="input=1&output=1&tty=1"), SPDY, method="POST") as duplex:
        client = SpdyClient(duplex)
        numbers = {name: await client.open({"streamType": name}) for name in ("error", "stdin", "stdout", "resize")}
        await client.send(numbers["resize"], b'{"Width":80,')
        await client.send(numbers["resize"], b'"Height":24}\n{"Width":90,"Height":25}\n')
        await asyncio.sleep(0.1)
        await client.send(numbers["stdin"], b"stty size\nexit\n")
        found = await client.read_all(numbers["error"], numbers["stdout"])
    assert b"25 90" in found[numbers["stdout"]]


async def test_large_output_arrives_whole() -> None:
    async with _served(_exec("head", "-c", "5000000", "/dev/zero"), SPDY, method="POST") as duplex:
        client = SpdyClient(duplex)
        numbers = [await client.open({"streamType": name}) for name in ("error", "stdout", "stderr")]
        found = await client.read_all(*numbers)
    assert len(found[numbers[1]]) == 5_000_000


async def test_spdy_protocols_that_are_not_spoken_are_refused() -> None:
    code, message = await _refused(_exec("true"), {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v9.x"})
    assert code == 403
    assert message.startswith("unable to negotiate protocol: client supports [v9.x], server accepts [v4.channel.k8s.io")


@pytest.mark.parametrize(
    ("target", "headers", "found", "code", "why"),
    [
        (_exec("true"), {}, None, 400, "unable to upgrade: missing upgrade headers in request"),
        (_exec(streams="output=1"), _websocket(""), None, 400, "you must specify at least one command"),
        (_exec("true", streams="tty=1"), _websocket(""), None, 400, "at least 1 of stdin, stdout, stderr"),
        (_exec("true"), _websocket("v9.channel.k8s.io"), None, 400, "requested protocol(s) are not supported"),
        (_exec("true"), _websocket(""), LocalTarget(running=False), 500, 'container not found ("main")'),
        ("/nodes/n/exec/default/gone/main?command=a&output=1", {}, None, 404, 'pods "gone" not found'),
        (
            "/nodes/n/exec/default/web/other?command=a&output=1",
            {},
            None,
            400,
            "container other is not valid for pod web",
        ),
        ("/nodes/other/exec/default/web/main", {}, None, 404, 'node "other" is not served here'),
        ("/metrics", {}, None, 404, "no such path"),
    ],
)
async def test_requests_that_cannot_be_served_are_refused_before_the_upgrade(
    target: str, headers: dict[str, str], found: LocalTarget | None, code: int, why: str
) -> None:
    status, message = await _refused(target, headers, found)
    assert status == code
    assert why in message


async def test_an_attach_ends_when_the_container_does() -> None:
    rooms = local_rooms(runtime=LocalRuntime(main=("sh", "-c", "echo last words")))
    server, client = duplex_pair()
    target = "/nodes/n/attach/default/web/main?output=1&error=1"
    request = upgrade_request(target, _websocket("v5.channel.k8s.io"), server)
    async with asyncio.timeout(10), running(_handle(AccessServer({"n": rooms}), request)):
        await client.read_until(b"\r\n\r\n")
        found = await _collect(WebSocketClient(client), _binary)
    assert found[STDOUT] == b"last words\n"
    assert loads(found[ERROR]) == SUCCESS


async def _handle(access: AccessServer, request: Any) -> None:
    await access.handle(request)
