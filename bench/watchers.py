"""A thousand watchers on one collection while it changes 500 times a second; the watchers are another process."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bench.api import Connection, Place
from bench.measure import Stopwatch
from bench.platform import Platform, namespace
from bench.table import Row
from bench.watch_reader import PATH
from bench.workloads import config_map
from dure.core.json import dumps, loads

_WATCHERS, _RATE, _SECONDS, _ROUNDS = 1000, 500, 5.0, 3
_WRITERS = 32


async def run(platform: Platform) -> AsyncIterator[Row]:
    async with platform.running(), namespace(platform, "bench", _WRITERS) as clients:
        await platform.wait_calm()
        server = await platform.server_pid()
        names = itertools.count()
        revision = (await clients[0].json("GET", PATH))["metadata"]["resourceVersion"]
        async with _reading(platform.place, revision, _WATCHERS) as reader:
            found = [await _round(clients, reader, names, server) for _ in range(_ROUNDS)]
        alone = [await _round(clients, None, names, server) for _ in range(_ROUNDS)]

    def median(name: str, rounds: list[dict[str, float]]) -> float:
        return statistics.median(entry[name] for entry in rounds)

    offered = median("written", found) * _WATCHERS
    label = f"{_WATCHERS} watchers × {_RATE} events/s"
    facts = {"events written/s": median("written", found), "reader CPU %": median("reader", found)}
    yield Row(f"{label}: delivered", median("delivered", found), "1/s", None, "more", "offered", offered, facts)
    yield Row(f"{label}: create sent → event read, p50", median("p50", found), "ms")
    yield Row(f"{label}: create sent → event read, p99", median("p99", found), "ms", 20)
    yield Row(
        f"{label}: server CPU", median("cpu", found), "%", None, "less", "the same writes, no watchers",
        median("cpu", alone),
    )  # fmt: skip


async def _round(
    clients: Sequence[Connection], reader: Reader | None, names: itertools.count[int], server: int
) -> dict[str, float]:
    """Writers keep to the clock: what is late is sent at once, so that the rate is held or the shortfall seen."""
    sent: dict[str, int] = {}
    began = time.perf_counter()
    total = int(_RATE * _SECONDS)
    turn = iter(range(total))

    async def write(client: Connection) -> None:
        for number in turn:
            await asyncio.sleep(max(0.0, began + number / _RATE - time.perf_counter()))
            name = f"event-{next(names)}"
            body = dumps(config_map(name))
            sent[name] = time.monotonic_ns()
            status, answer = await client.send("POST", PATH, body)
            if status != 201:
                raise RuntimeError(f"create gave {status}: {answer[:200].decode()}")

    with Stopwatch(server) as watch:
        await asyncio.gather(*(write(client) for client in clients))
        written = time.perf_counter() - began
    result = {"written": total / written, "cpu": watch.cpu_seconds / watch.seconds * 100}
    if reader is not None:
        result |= await reader.collect(sent, total, began)
    return result


class Reader:
    """The process that holds the watches: tells what it has read when asked."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    async def collect(self, sent: dict[str, int], total: int, began: float) -> dict[str, float]:
        """Once everything has arrived, or nothing more does."""
        report: dict[str, Any] = await self.ask({"expect": total, "sent": sent})
        seconds = report["last_ns"] / 1e9 - began
        return {
            "delivered": report["events"] / seconds,
            "p50": report["p50"],
            "p99": report["p99"],
            "reader": report["cpu_seconds"] / seconds * 100,
        }

    async def ask(self, question: dict[str, Any]) -> Any:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(dumps(question) + b"\n")
        await self._child.stdin.drain()
        answer = await self._child.stdout.readline()
        if not answer:
            raise RuntimeError("the process that holds the watches has ended")
        return loads(answer)


@asynccontextmanager
async def _reading(place: Place, revision: str, watchers: int) -> AsyncIterator[Reader]:
    """`watchers` watches open in another process."""
    where = [place.host, str(place.port), str(place.authority), str(place.certificate), str(place.key)]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.watch_reader", *where, revision, str(watchers),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24,
    )  # fmt: skip
    try:
        reader = Reader(child)
        async with asyncio.timeout(60):
            await reader.ask({"ready": True})
        yield reader
    finally:
        if child.returncode is None:
            child.terminate()
            await child.wait()
