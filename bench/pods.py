"""Pods: from the create request to Running in a watch of the same client, one after another and all at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from bench.api import Connection
from bench.crun import BareRuntime, bare_runtime
from bench.measure import cpu_seconds, percentile
from bench.platform import IMAGE, Platform, namespace
from bench.table import Row
from bench.workloads import is_running, pod

_SPACE = "bench"
_PODS = f"/api/v1/namespaces/{_SPACE}/pods"
_SERIAL, _BURST = 30, 20
_ROUNDS = 3


async def run(platform: Platform) -> AsyncIterator[Row]:
    async with platform.running(), bare_runtime(platform.home) as bare:
        await platform.wait_calm()
        pids = [process.pid for process in await platform.processes()]
        async with namespace(platform, _SPACE, _BURST + 1) as (watcher, *clients):
            seen = Seen()
            watching = asyncio.ensure_future(seen.follow(watcher))
            try:
                async for row in _measure(clients, seen, bare, pids):
                    yield row
            finally:
                watching.cancel()
                await asyncio.wait({watching})


async def _measure(
    clients: Sequence[Connection], seen: Seen, bare: BareRuntime, pids: Sequence[int]
) -> AsyncIterator[Row]:
    serial: list[float] = []
    burst: list[float] = []
    bare_serial: list[float] = []
    bare_burst: list[float] = []
    cpu = 0.0
    await _create(clients[0], "warm", seen)
    for turn in range(_ROUNDS):
        before = cpu_seconds(pids)
        for number in range(_SERIAL // _ROUNDS):
            serial.append(await _create(clients[0], f"serial-{turn}-{number}", seen))
            bare_serial.append(await bare.start_one())
        cpu += cpu_seconds(pids) - before
        names = [f"burst-{turn}-{number}" for number in range(_BURST)]
        burst += await asyncio.gather(
            *(_create(client, name, seen) for client, name in zip(clients, names, strict=True))
        )
        bare_burst += await asyncio.gather(*(_since(time.perf_counter(), bare) for _ in range(_BURST)))
        await bare.remove_all()
        await _delete_all(clients[0], seen)
    runtime = f"{bare.program.name} create+start"
    facts = {"CPU per pod (all processes) ms": round(cpu / _SERIAL * 1e3, 1)}
    yield _row("pod create → running, serial, p50", serial, 50, 100, runtime, bare_serial, facts)
    yield _row("pod create → running, serial, p99", serial, 99, 300, runtime, bare_serial)
    yield _row(
        f"pod create → running, {_BURST} at once, p50", burst, 50, None, f"{runtime}, {_BURST} at once", bare_burst
    )
    yield _row(
        f"pod create → running, {_BURST} at once, p99", burst, 99, None, f"{runtime}, {_BURST} at once", bare_burst
    )


def _row(
    name: str,
    seconds: list[float],
    percent: float,
    goal: float | None,
    peer: str,
    peer_seconds: list[float],
    facts: dict[str, Any] | None = None,
) -> Row:
    limit = percentile(peer_seconds, percent) * 1e3
    facts = {**(facts or {}), "pods": len(seconds)}
    return Row(name, percentile(seconds, percent) * 1e3, "ms", goal, peer=peer, peer_value=limit, facts=facts)


class Seen:
    """When a watch first showed each pod running, and that it has gone."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[float]] = {}
        self._alive: set[str] = set()
        self._status: dict[str, Any] = {}
        self._gone = asyncio.Event()

    async def follow(self, watcher: Connection) -> None:
        async for event in watcher.watch(f"{_PODS}?watch=true"):
            name = event["object"]["metadata"]["name"]
            if event["type"] == "DELETED":
                self._alive.discard(name)
                self._gone.set()
                continue
            self._alive.add(name)
            self._status[name] = event["object"].get("status")
            waiter = self._running.get(name)
            if waiter is not None and not waiter.done() and is_running(event["object"]):
                waiter.set_result(time.perf_counter())

    async def wait_running(self, name: str) -> float:
        waiter: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._running[name] = waiter
        try:
            async with asyncio.timeout(60):
                return await waiter
        except TimeoutError as error:
            raise RuntimeError(f"pod {name} does not run after a minute: {self._status.get(name)}") from error

    async def wait_none(self) -> None:
        try:
            async with asyncio.timeout(60):
                while self._alive:
                    self._gone.clear()
                    await self._gone.wait()
        except TimeoutError as error:
            raise RuntimeError(f"pods do not go within a minute: {', '.join(sorted(self._alive))}") from error


async def _create(client: Connection, name: str, seen: Seen) -> float:
    waiting = asyncio.ensure_future(seen.wait_running(name))
    await asyncio.sleep(0)
    began = time.perf_counter()
    await client.json("POST", _PODS, pod(name, IMAGE, ["sleep", "1000"]))
    return await waiting - began


async def _since(began: float, bare: BareRuntime) -> float:
    await bare.start_one()
    return time.perf_counter() - began


async def _delete_all(client: Connection, seen: Seen) -> None:
    await client.json("DELETE", f"{_PODS}?gracePeriodSeconds=0")
    await seen.wait_none()
