"""Memory and idle work of every process of the platform over a minute: with nothing on it, and with the shop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import memory_kilobytes, tree
from bench.platform import Platform, Process
from bench.table import Row

_SECONDS = 60.0
_CORE = ("supervisor", "server", "store", "agent")


@dataclass(slots=True)
class Work:
    """What a process had done by a moment: CPU in seconds, times it woke up."""

    cpu: float
    wakes: int


@dataclass(slots=True)
class Use:
    """One process over the minute."""

    name: str
    megabytes: float
    percent: float
    wakes: float


async def run(platform: Platform, *, seconds: float = _SECONDS) -> AsyncIterator[Row]:
    async with platform.running():
        for row in await _observe(platform, "idle", seconds, goals=True):
            yield row
        await platform.deploy_shop()
        for row in await _observe(platform, "shop", seconds, goals=False):
            yield row


async def _observe(platform: Platform, when: str, seconds: float, *, goals: bool) -> list[Row]:
    await platform.wait_calm()
    processes = await platform.processes()
    before = [_work(process.pid) for process in processes]
    await asyncio.sleep(seconds)
    uses = [_use(process, work, seconds) for process, work in zip(processes, before, strict=True)]
    core = [use for use in uses if use.name in _CORE]
    facts = {use.name: f"{use.megabytes:.1f} MB {use.percent:.2f} % {use.wakes:.1f} wakes/s" for use in uses}
    bare = await _bare_interpreter()
    rows = [
        Row(
            f"{when}: memory of the core (PSS)", sum(use.megabytes for use in core), "MB", 120 if goals else None,
            peer="a bare Python with asyncio and ssl", peer_value=bare,
        ),
        Row(f"{when}: CPU of the core", sum(use.percent for use in core), "%", 0.3 if goals else None),
        Row(f"{when}: memory, monitors included", sum(use.megabytes for use in uses), "MB", facts=facts),
    ]  # fmt: skip
    shims = [process.pid for process in processes if process.name.startswith("shim")]
    contained = tree(shims) - set(shims)
    if contained:
        megabytes = memory_kilobytes(contained) / 1024
        rows.append(Row(f"{when}: memory of the containers", megabytes, "MB", facts={"processes": len(contained)}))
    return rows


def _use(process: Process, before: Work, seconds: float) -> Use:
    now = _work(process.pid)
    return Use(
        process.name,
        megabytes=_proportional_kilobytes(process.pid) / 1024,
        percent=(now.cpu - before.cpu) / seconds * 100,
        wakes=(now.wakes - before.wakes) / seconds,
    )


def _work(pid: int) -> Work:
    """Of all threads; finer than the ticks of /proc/<pid>/stat."""
    cpu, wakes = 0, 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        cpu += int((thread / "schedstat").read_text().split()[0])
        status = (thread / "status").read_text()
        wakes += int(status.partition("\nvoluntary_ctxt_switches:")[2].split(maxsplit=1)[0])
    return Work(cpu / 1e9, wakes)


def _proportional_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


async def _bare_interpreter() -> float:
    """Megabytes of a Python process that has done nothing but import what every daemon needs."""
    code = "import asyncio, ssl, sys; print(flush=True); sys.stdin.read()"
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=pipe, stdout=pipe)
    assert child.stdout is not None and child.stdin is not None
    await child.stdout.readline()
    megabytes = _proportional_kilobytes(child.pid) / 1024
    child.stdin.close()
    await child.wait()
    return megabytes
