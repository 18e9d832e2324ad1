"""SimulatedRuntime keeps the contract and plays its scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from dure.core.clock import LoopClock
from dure.node.ports import ContainerSpec, ExecResult, Runtime
from dure.node.runtimes.simulated import Script, SimulatedRuntime

from .contract import Bench, RuntimeContract

SCRIPTS = {
    "waits": Script(),
    "ends with 3": Script(seconds=1, exit_code=3),
    "talks": Script(seconds=1, output=(("stdout", b"good\n"), ("stderr", b"bad\n"))),
    "ignores TERM": Script(stop_seconds=None),
    "minds TERM": Script(stop_seconds=1, stop_code=7),
    "missing": Script(start_error='exec: "missing": executable file not found in $PATH'),
}


def answer(args: Sequence[str]) -> ExecResult:
    return ExecResult(4, b"out\n", b"err\n")


def script_of(spec: ContainerSpec) -> Script:
    return replace(SCRIPTS[spec.args[0]], answer=answer)


class TestSimulatedRuntime(RuntimeContract):
    @asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[Bench]:
        runtime: Runtime = SimulatedRuntime(LoopClock(), script_of)
        yield Bench(runtime, folder)


async def test_a_container_ends_in_the_loops_own_time(tmp_path: Path) -> None:
    runtime = SimulatedRuntime(LoopClock(), lambda spec: Script(seconds=3600, exit_code=1))
    bench = Bench(runtime, tmp_path)
    await bench.run("a")
    await asyncio.sleep(3601)
    state = await bench.state("a")
    assert (state.exit_code, (state.finished_at - state.started_at) // 10**9) == (1, 3600)


async def test_a_test_may_end_a_container_itself(tmp_path: Path) -> None:
    runtime = SimulatedRuntime(LoopClock(), lambda spec: Script(oom_killed=True))
    bench = Bench(runtime, tmp_path)
    await bench.run("a")
    runtime.end("a", 137, 9)
    state = await bench.state("a")
    assert (state.state, state.exit_code, state.oom_killed) == ("exited", 137, True)
