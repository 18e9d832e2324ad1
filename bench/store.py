"""The store against a bare etcd: durable creates by 1 and 32 writers, opening, fan-out. `python -m bench.store`."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from bench.etcd import Etcd, is_installed, running_etcd
from bench.measure import Contender, Sample, Stopwatch, interleaved, memory_kilobytes, report, write_json
from dure.store.memory import MemoryStore
from dure.store.sqlite import SqliteStore

VALUE = os.urandom(512).hex().encode()
"""A kilobyte, as a small object has."""

Create = Callable[[str], Awaitable[object]]


async def put(store: SqliteStore, key: str) -> None:
    await store.put(key, VALUE, expect=0)


async def put_in_etcd(etcd: Etcd, key: str) -> None:
    await etcd.create(key, VALUE)


def contender(create: Create, writers: int, seconds: float) -> Contender:
    """`writers` tasks creating keys one after another for `seconds`."""
    numbers = itertools.count()

    async def run() -> Sample:
        latencies: list[float] = []

        async def write(until: float) -> None:
            while (began := time.perf_counter()) < until:
                await create(f"bench/objects/{writers}/{next(numbers)}")
                latencies.append(time.perf_counter() - began)

        with Stopwatch() as watch:
            until = time.perf_counter() + seconds
            await asyncio.gather(*(write(until) for _ in range(writers)))
        return Sample(len(latencies), watch.seconds, watch.cpu_seconds, latencies)

    return run


async def boot_seconds(folder: Path) -> tuple[float, int]:
    """How long it takes to open a store again, and how many objects it then has."""
    began = time.perf_counter()
    async with SqliteStore.open(folder) as store:
        return time.perf_counter() - began, len(store.state)


async def fan_out(watchers: int, writes: int) -> dict[str, Any]:
    """Events of one collection to many watchers in this process."""
    store = MemoryStore()
    async with AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(store.watch("bench/", since=0)) for _ in range(watchers)]

        async def read(watch: Any) -> None:
            left = writes
            while left:
                left -= len(await watch.take())

        with Stopwatch() as watch:
            readers = asyncio.gather(*(read(watch) for watch in watches))
            for number in range(writes):
                await store.put(f"bench/objects/{number}", VALUE, expect=0)
                if number % 10 == 9:
                    await asyncio.sleep(0)
            await readers
    return {"watchers": watchers, "deliveries_per_second": round(watchers * writes / watch.seconds)}


async def run(rounds: int, seconds: float, folder: Path) -> AsyncIterator[dict[str, Any]]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStore.open(folder / "dure"))
        etcd = await stack.enter_async_context(running_etcd(folder / "etcd")) if is_installed() else None
        for writers in (1, 32):
            contenders = {"SqliteStore": contender(partial(put, store), writers, seconds)}
            if etcd is not None:
                contenders[etcd.name] = contender(partial(put_in_etcd, etcd), writers, seconds)
            figures = await interleaved(contenders, rounds)
            yield report(f"Durable creates of 1 KB, {writers} writers", figures, etcd.name if etcd else "")
        writer_kilobytes = memory_kilobytes([store.writer_pid]) if store.writer_pid else 0
        yield {"title": "store writer", "memory_kilobytes": writer_kilobytes}
    took, objects = await boot_seconds(folder / "dure")
    print(f"\nOpening a store of {objects:,} objects: {took:.2f} s")
    yield {"title": "open", "objects": objects, "seconds": round(took, 3)}
    fanned = await fan_out(1000, 1000)
    print(f"1,000 watchers of one collection in process: {fanned['deliveries_per_second']:,} deliveries/s")
    yield {"title": "fan-out", **fanned}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--folder", default=None, help="where the data goes; the disk under it is what is measured")
    parser.add_argument("--json", default="", help="file for the figures, - for the screen")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        reports = [found async for found in run(options.rounds, options.seconds, Path(folder))]
    if options.json:
        write_json(options.json, reports)


if __name__ == "__main__":
    uvloop.run(main())
