"""Durable creates a second: the API server over HTTPS, with all it does to a request, against a bare etcd.

Both keep 1 KB values and answer after the disk has them. The API server terminates TLS, authenticates, authorises,
validates, records field owners and serves watches; etcd stores a key, without TLS.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.api import Connection
from bench.etcd import Etcd, is_installed, running_etcd
from bench.measure import Contender, Figure, Sample, Stopwatch, interleaved
from bench.platform import Platform, namespace
from bench.table import Row
from bench.workloads import config_map_bytes

_ROUNDS, _SECONDS = 5, 2.0
_CLIENTS = (1, 32)
_PATH = "/api/v1/namespaces/bench/configmaps"

Create = Callable[[int, str], Awaitable[None]]
"""By which client, and the name of the object: never the same again."""


async def run(platform: Platform) -> AsyncIterator[Row]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=platform.home)))
        await stack.enter_async_context(platform.running())
        await platform.wait_calm()
        server = await platform.server_pid()
        etcd = await stack.enter_async_context(running_etcd(folder)) if is_installed() else None
        clients = await stack.enter_async_context(namespace(platform, "bench", max(_CLIENTS)))
        for count in _CLIENTS:
            contenders = {"api": _contender(_create_in_api(clients), count, server)}
            if etcd is not None:
                contenders["etcd"] = _contender(_create_in_etcd(etcd), count, etcd.pid)
            for row in _rows(count, await interleaved(contenders, _ROUNDS)):
                yield row
        if etcd is None:
            raise RuntimeError("etcd is not installed: no peer for durable creates (apt-get install etcd-server)")


def _contender(create: Create, clients: int, server: int) -> Contender:
    """`clients` tasks creating one object after another; the CPU is that of the server's process tree."""
    names = (f"c{clients}-{number}" for number in itertools.count())

    async def run() -> Sample:
        latencies: list[float] = []

        async def work(client: int, until: float) -> None:
            while (began := time.perf_counter()) < until:
                await create(client, next(names))
                latencies.append(time.perf_counter() - began)

        with Stopwatch(server) as watch:
            until = time.perf_counter() + _SECONDS
            await asyncio.gather(*(work(client, until) for client in range(clients)))
        return Sample(len(latencies), watch.seconds, watch.cpu_seconds, latencies)

    return run


def _create_in_api(clients: Sequence[Connection]) -> Create:
    body = config_map_bytes("NAME")

    async def create(client: int, name: str) -> None:
        status, answer = await clients[client].send("POST", _PATH, body.replace(b"NAME", name.encode()))
        if status != 201:
            raise RuntimeError(f"create gave {status}: {answer[:200].decode()}")

    return create


def _create_in_etcd(etcd: Etcd) -> Create:
    value = config_map_bytes("name", 760)

    async def create(client: int, name: str) -> None:
        await etcd.create(f"/registry/configmaps/bench/{name}", value)

    return create


def _rows(count: int, figures: Sequence[Figure]) -> list[Row]:
    api = figures[0]
    etcd = figures[1] if len(figures) > 1 else None
    label = f"{count} client{'s' if count > 1 else ''}"
    goal = etcd.per_second if etcd is not None and count > 1 else None
    peer = Etcd.name if etcd is not None else ""
    latency = {"p50 ms": api.p50_milliseconds, "p99 ms": api.p99_milliseconds}
    return [
        Row(
            f"durable creates, {label}", api.per_second, "1/s", goal, "more", peer,
            etcd.per_second if etcd else None, latency,
        ),
        Row(
            f"server CPU per create, {label}", api.cpu_microseconds, "µs", None, "less", peer,
            etcd.cpu_microseconds if etcd else None,
        ),
    ]  # fmt: skip
