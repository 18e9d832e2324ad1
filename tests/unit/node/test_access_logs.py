"""Container logs: options, rotation, following, and the kubelet's words when there is none."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.core.aio import closing, running
from dure.core.json import loads
from dure.node.access.log_files import Sieve, start_of_tail
from dure.node.access.server import AccessServer
from dure.wire.http import Request, Response
from tests.support.access import LocalRuntime, LocalTarget, local_rooms, write_log
from tests.support.duplex import duplex_pair, upgrade_request
from tests.support.websocket_client import HEADERS, WebSocketClient

pytestmark = pytest.mark.real_loop


class _Fixed:
    def time(self) -> float:
        return 1_767_225_610.0  # 2026-01-01T00:00:10Z


async def _get(target: LocalTarget, runtime: LocalRuntime | None = None, **query: str) -> Response:
    access = AccessServer({"n": local_rooms(target, runtime)}, _Fixed())
    values = {name: [value] for name, value in query.items()}
    return await access.handle(Request("GET", "/nodes/n/containerLogs/default/web/main", values))


async def _text(target: LocalTarget, **query: str) -> str:
    answer = await _get(target, **query)
    assert answer.stream is not None, bytes(answer.body)
    assert answer.headers == {"Content-Type": "text/plain"}
    return b"".join([chunk async for chunk in answer.stream.chunks()]).decode()


async def _error(target: LocalTarget, **query: str) -> tuple[int, str]:
    answer = await _get(target, **query)
    return answer.status, loads(bytes(answer.body))["message"]


@pytest.fixture
def target(tmp_path: Path) -> LocalTarget:
    path = tmp_path / "main/0.log"
    write_log(path, "stdout F one", "stderr F two", "stdout P thr", "stdout F ee", "stdout F fo\rur")
    return LocalTarget(log_path=str(path))


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, "one\ntwo\nthree\nfo\rur\n"),
        ({"tailLines": "2"}, "three\nfo\rur\n"),
        ({"tailLines": "0"}, ""),
        ({"tailLines": "100"}, "one\ntwo\nthree\nfo\rur\n"),
        ({"limitBytes": "5"}, "one\nt"),
        (
            {"timestamps": "true", "tailLines": "2"},
            "2026-01-01T00:00:02.000000000Z three\n2026-01-01T00:00:04.000000000Z fo\rur\n",
        ),
        ({"sinceTime": "2026-01-01T00:00:04Z"}, "fo\rur\n"),
        ({"sinceTime": "2026-01-01T01:00:04+01:00"}, "fo\rur\n"),
        ({"sinceSeconds": "6"}, "fo\rur\n"),
        ({"sinceSeconds": "1"}, ""),
        ({"stream": "Stderr"}, "two\n"),
        ({"stream": "Stdout", "limitBytes": "9"}, "one\nthree"),
        ({"follow": "false"}, "one\ntwo\nthree\nfo\rur\n"),
    ],
)
async def test_options_choose_what_is_given(target: LocalTarget, query: dict[str, str], text: str) -> None:
    assert await _text(target, **query) == text


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"tailLines": "x"}, "tailLines"),
        ({"tailLines": "-1"}, "tailLines"),
        ({"limitBytes": "0"}, "limitBytes"),
        ({"sinceTime": "yesterday"}, "sinceTime"),
        ({"sinceTime": "2026-01-01T00:00:00Z", "sinceSeconds": "5"}, "at most one of"),
        ({"stream": "Stdin"}, "stream: Unsupported value"),
    ],
)
async def test_options_that_make_no_sense_are_refused(target: LocalTarget, query: dict[str, str], why: str) -> None:
    code, message = await _error(target, **query)
    assert code == 400
    assert why in message


async def test_rotated_files_come_first(tmp_path: Path) -> None:
    path = tmp_path / "main/0.log"
    write_log(path.with_name("0.log.20260101-000001.000000000"), "stdout F a", "stdout F b")
    write_log(path.with_name("0.log.20260101-000002.000000000"), "stdout F c")
    write_log(path, "stdout F d", "stdout F e")
    found = LocalTarget(log_path=str(path))
    assert await _text(found) == "a\nb\nc\nd\ne\n"
    assert await _text(found, tailLines="4") == "b\nc\nd\ne\n"
    assert await _text(found, tailLines="2") == "d\ne\n"


@pytest.mark.parametrize(
    ("found", "query", "message"),
    [
        (LocalTarget(container_id=""), {}, 'container "main" in pod "web" is not available'),
        (
            LocalTarget(container_id="", running=False, waiting="ContainerCreating"),
            {},
            'container "main" in pod "web" is waiting to start: ContainerCreating',
        ),
        (
            LocalTarget(container_id="", running=False, waiting="ImagePullBackOff"),
            {},
            'container "main" in pod "web" is waiting to start: trying and failing to pull image',
        ),
        (LocalTarget(), {"previous": "true"}, 'previous terminated container "main" in pod "web" not found'),
    ],
)
async def test_a_run_that_is_not_there_is_explained(found: LocalTarget, query: dict[str, str], message: str) -> None:
    assert await _error(found, **query) == (400, message)


async def test_the_previous_run_is_kept(tmp_path: Path) -> None:
    write_log(tmp_path / "main/0.log", "stdout F before")
    write_log(tmp_path / "main/1.log", "stdout F now")
    found = LocalTarget(log_path=str(tmp_path / "main/1.log"), previous_log_path=str(tmp_path / "main/0.log"))
    assert await _text(found, previous="true") == "before\n"


async def test_a_container_that_has_written_nothing_has_an_empty_log(tmp_path: Path) -> None:
    assert await _text(LocalTarget(log_path=str(tmp_path / "main/0.log"))) == ""


@asynccontextmanager
async def _following(target: LocalTarget, runtime: LocalRuntime, **query: str) -> AsyncIterator[AsyncIterator[bytes]]:
    answer = await _get(target, runtime, follow="true", **query)
    assert answer.stream is not None
    async with asyncio.timeout(5), closing(answer.stream.chunks()) as chunks:
        yield chunks


async def test_following_gives_lines_as_they_are_written_until_the_container_ends(target: LocalTarget) -> None:
    runtime = LocalRuntime()
    async with _following(target, runtime, tailLines="1") as chunks:
        assert await anext(chunks) == b"fo\rur\n"
        write_log(Path(target.log_path), "stdout F five")
        assert await anext(chunks) == b"five\n"
        write_log(Path(target.log_path), "stdout F six")
        runtime.end()
        assert [chunk async for chunk in chunks] == [b"six\n"]


async def test_following_goes_on_through_a_rotation(target: LocalTarget) -> None:
    runtime, path = LocalRuntime(), Path(target.log_path)
    async with _following(target, runtime, tailLines="1") as chunks:
        assert await anext(chunks) == b"fo\rur\n"
        write_log(path, "stdout F last of old")
        path.rename(path.with_name("0.log.20260101-000000.000000000"))
        write_log(path, "stdout F first of new")
        found = b""
        while not found.endswith(b"new\n"):
            found += await anext(chunks)
        assert found == b"last of old\nfirst of new\n"
        runtime.end()
        assert [chunk async for chunk in chunks] == []


async def test_following_an_ended_container_ends(target: LocalTarget) -> None:
    runtime = LocalRuntime(state="exited")
    async with _following(target, runtime) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"one\ntwo\nthree\nfo\rur\n"


async def test_following_stops_at_the_limit(target: LocalTarget) -> None:
    async with _following(target, LocalRuntime(), limitBytes="3") as chunks:
        assert [chunk async for chunk in chunks] == [b"one"]


async def test_a_follower_that_leaves_leaves_nothing_behind(target: LocalTarget) -> None:
    runtime = LocalRuntime()
    async with _following(target, runtime) as chunks:
        await anext(chunks)
        await asyncio.sleep(0)
    assert runtime._listeners == []


async def _over_websocket(target: LocalTarget, protocol: str, query: str = "") -> list[Any]:
    server, client = duplex_pair()
    access = AccessServer({"n": local_rooms(target)})
    headers = {**HEADERS, "Sec-WebSocket-Protocol": protocol}
    request = upgrade_request(f"/nodes/n/containerLogs/default/web/main{query}", headers, server)

    async def handle() -> None:
        assert (await access.handle(request)).taken

    frames = []
    async with asyncio.timeout(5), running(handle()):
        socket = WebSocketClient(client)
        await socket.handshake()
        while (frame := await socket.receive()) is not None and frame[0] != 8:
            frames.append(frame)
        await socket.send(b"", 8)
    return frames


async def test_logs_over_websocket_are_messages(target: LocalTarget) -> None:
    assert await _over_websocket(target, "binary.k8s.io", "?tailLines=1") == [(2, b"fo\rur\n")]
    assert await _over_websocket(target, "base64.binary.k8s.io", "?tailLines=1") == [(1, base64.b64encode(b"fo\rur\n"))]


async def test_a_websocket_reader_that_leaves_ends_the_follow(target: LocalTarget) -> None:
    server, client = duplex_pair()
    access = AccessServer({"n": local_rooms(target)})
    request = upgrade_request(
        "/nodes/n/containerLogs/default/web/main?follow=true", {**HEADERS, "Sec-WebSocket-Protocol": ""}, server
    )
    async with asyncio.timeout(5):
        answering = asyncio.ensure_future(access.handle(request))
        socket = WebSocketClient(client)
        await socket.handshake()
        assert (await socket.receive() or (0,))[0] == 2
        await client.close()
        assert (await answering).taken


LINES = st.lists(st.tuples(st.sampled_from("FP"), st.text("ab", max_size=3)), max_size=30)


@given(LINES, st.integers(0, 8), st.integers(0, 3))
def test_a_tail_is_the_end_of_the_whole(lines: Any, count: int, cuts: int) -> None:
    """However the lines are spread over files."""
    import tempfile

    lines = [*lines, ("F", "end")]
    raw = [f"2026-01-01T00:00:00.000000000Z stdout {tag} {text}\n".encode() for tag, text in lines]
    whole = Sieve().render(raw).decode().splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as folder:
        size = len(raw) // (cuts + 1) + 1
        files = [Path(folder) / str(index) for index in range(cuts + 1)]
        for index, file in enumerate(files):
            file.write_bytes(b"".join(raw[index * size : (index + 1) * size]))
        first, offset = start_of_tail(files, count)
        rest = files[first].read_bytes()[offset:] + b"".join(file.read_bytes() for file in files[first + 1 :])
    tail = Sieve().render([line + b"\n" for line in rest.split(b"\n")[:-1]]).decode()
    assert tail == "".join(whole[len(whole) - min(count, len(whole)) :])


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_no_bytes_break_the_sieve(lines: list[bytes]) -> None:
    Sieve(timestamps=True, stream=b"stdout").render([line + b"\n" for line in lines])
