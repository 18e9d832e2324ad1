"""LIST of 500 objects over HTTPS against a bare aiohttp server that answers the same bytes from memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

from bench.api import Connection, connected
from bench.bare_server import running_bare
from bench.measure import Contender, Sample, Stopwatch, interleaved
from bench.platform import IMAGE, Platform, namespace
from bench.table import Row
from bench.workloads import config_map, pod

_COUNT = 500
_CLIENTS = 8
_ROUNDS, _SECONDS = 5, 1.0
_TABLE = b"Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json\r\nAccept-Encoding: gzip\r\n"


async def run(platform: Platform) -> AsyncIterator[Row]:
    async with platform.running(), namespace(platform, "bench", _CLIENTS) as clients:
        await _fill(clients)
        await platform.wait_calm()
        server = await platform.server_pid()
        for resource in ("configmaps", "pods"):
            path = f"/api/v1/namespaces/bench/{resource}"
            _, body = await clients[0].send("GET", path)
            async with AsyncExitStack() as stack:
                place, bare = await stack.enter_async_context(running_bare(body))
                others = await stack.enter_async_context(connected(place, _CLIENTS))
                contenders = {
                    "api": _contender(clients, path, server),
                    "bare": _contender(others, path, bare),
                }
                if resource == "pods":
                    contenders["table"] = _contender(clients, path, server, _TABLE)
                figures = {figure.name: figure for figure in await interleaved(contenders, _ROUNDS)}
            api, limit = figures["api"], figures["bare"]
            facts = {"bytes": len(body), "p50 ms": api.p50_milliseconds, "p99 ms": api.p99_milliseconds}
            name, peer = f"LIST {_COUNT} {resource}", "bare aiohttp, same bytes"
            yield Row(name, api.per_second, "1/s", None, "more", peer, limit.per_second, facts)
            yield Row(f"{name}, CPU each", api.cpu_microseconds, "µs", None, "less", peer, limit.cpu_microseconds)
            if "table" in figures:
                table = figures["table"]
                asked = f"{name} as kubectl asks (Table, gzip), CPU each"
                yield Row(asked, table.cpu_microseconds, "µs", None, "less", peer, limit.cpu_microseconds)


async def _fill(clients: Sequence[Connection]) -> None:
    """Pods for a scheduler that is not there, so that nothing happens to them."""
    for start in range(0, _COUNT, len(clients)):
        numbers = range(start, min(start + len(clients), _COUNT))
        await asyncio.gather(
            *(_make(client, number) for client, number in zip(clients, numbers, strict=False))
        )  # fmt: skip


async def _make(client: Connection, number: int) -> None:
    path = "/api/v1/namespaces/bench"
    await client.json("POST", f"{path}/configmaps", config_map(f"map-{number}"))
    waiting = pod(f"pod-{number}", IMAGE, ["sleep", "1000"], schedulerName="nobody")
    await client.json("POST", f"{path}/pods", waiting)


def _contender(clients: Sequence[Connection], path: str, server: int, headers: bytes = b"") -> Contender:
    async def run() -> Sample:
        latencies: list[float] = []

        async def work(client: Connection, until: float) -> None:
            while (began := time.perf_counter()) < until:
                status, _ = await client.send("GET", path, headers=headers)
                if status != 200:
                    raise RuntimeError(f"{path} gave {status}")
                latencies.append(time.perf_counter() - began)

        with Stopwatch(server) as watch:
            until = time.perf_counter() + _SECONDS
            await asyncio.gather(*(work(client, until) for client in clients))
        return Sample(len(latencies), watch.seconds, watch.cpu_seconds, latencies)

    return run
