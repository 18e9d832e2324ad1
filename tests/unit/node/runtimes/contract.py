"""What every Runtime promises. Subclass, say how to open one and what its programs are, and inherit the claims."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from dure.core.aio import Scope
from dure.node.ports import (
    ContainerSpec,
    ContainerState,
    ExecResult,
    Resources,
    Runtime,
    RuntimeFailure,
    SandboxSpec,
)

Program = Literal["waits", "ends with 3", "talks", "ignores TERM", "minds TERM", "missing"]
POD = "11111111-2222-3333-4444-555555555555"


@dataclass
class Bench:
    """A runtime and what it takes to ask it for containers."""

    runtime: Runtime
    folder: Path
    rootfs: str = "/nowhere"
    cgroup: str = "/test"
    netns: str = "/proc/self/ns/net"
    programs: dict[Program, tuple[str, ...]] | None = None

    def sandbox(self, pod_uid: str = POD, **changes: Any) -> SandboxSpec:
        spec = SandboxSpec(
            pod_uid=pod_uid,
            namespace="default",
            name="web",
            node="node-1",
            hostname="web",
            netns=self.netns,
            cgroup=f"{self.cgroup}/{pod_uid}",
        )
        return replace(spec, **changes)

    def container(self, id_: str, program: Program = "waits", **changes: Any) -> ContainerSpec:
        spec = ContainerSpec(
            id=id_,
            pod_uid=POD,
            name=id_,
            attempt=0,
            image="busybox",
            image_id="sha256:1",
            rootfs=self.rootfs,
            args=(self.programs or {}).get(program, (program,)),
            env=("COLOUR=blue",),
            working_dir="/",
            log_path=str(self.folder / f"{id_}.log"),
        )
        return replace(spec, **changes)

    async def run(self, id_: str, program: Program = "waits", **changes: Any) -> None:
        """Sandbox, create, start."""
        await self.runtime.run_sandbox(self.sandbox())
        await self.runtime.create(self.container(id_, program, **changes))
        await self.runtime.start(id_)

    async def state(self, id_: str) -> ContainerState:
        return next(state for state in await self.runtime.containers() if state.id == id_)

    async def wait_ended(self, id_: str) -> ContainerState:
        async with asyncio.timeout(10), self.runtime.events() as events:
            state = await self.state(id_)
            while state.state != "exited":
                state = await anext(events)
                if state.id != id_:
                    state = await self.state(id_)
            return state

    def log(self, id_: str) -> list[str]:
        """`<stream> <F|P> <text>` of each line."""
        path = self.folder / f"{id_}.log"
        return [line.partition(" ")[2] for line in path.read_text().splitlines()] if path.exists() else []


class RuntimeContract:
    def open(self, folder: Path) -> Scope[Bench]:
        raise AssertionError("say how to open the runtime")

    async def test_a_created_container_waits_to_be_started(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.runtime.run_sandbox(bench.sandbox())
            await bench.runtime.create(bench.container("a"))
            state = await bench.state("a")
            assert (state.pod_uid, state.name, state.attempt, state.image) == (POD, "a", 0, "busybox")
            assert (state.state, state.pid, state.started_at, state.log_path) == (
                "created", 0, 0, str(tmp_path / "a.log"),
            )  # fmt: skip
            assert state.created_at > 0

    async def test_a_started_container_runs(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a")
            state = await bench.state("a")
            assert (state.state, state.exit_code, state.finished_at) == ("running", 0, 0)
            assert state.pid > 0
            assert state.started_at >= state.created_at

    async def test_the_exit_code_is_kept(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a", "ends with 3")
            state = await bench.wait_ended("a")
            assert (state.state, state.exit_code, state.signal, state.oom_killed) == ("exited", 3, 0, False)
            assert state.finished_at >= state.started_at > 0

    async def test_a_stopped_container_may_end_by_itself(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a", "minds TERM")
            await bench.runtime.stop("a", grace_seconds=10)
            assert (await bench.state("a")).exit_code == 7

    async def test_a_container_that_ignores_the_signal_is_killed(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a", "ignores TERM")
            await bench.runtime.stop("a", grace_seconds=0.2)
            state = await bench.state("a")
            assert (state.state, state.exit_code, state.signal) == ("exited", 137, 9)

    async def test_stopping_twice_or_what_is_not_there_does_nothing(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a")
            await bench.runtime.stop("a", grace_seconds=0)
            await bench.runtime.stop("a", grace_seconds=0)
            await bench.runtime.stop("never", grace_seconds=0)

    async def test_every_call_may_be_repeated(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a")
            first = await bench.state("a")
            await bench.run("a")
            assert await bench.state("a") == first

    async def test_a_command_that_is_missing_is_a_start_error(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.runtime.run_sandbox(bench.sandbox())
            await bench.runtime.create(bench.container("a", "missing"))
            for _ in range(2):
                with pytest.raises(
                    RuntimeFailure, match=r'exec: "missing": executable file not found in \$PATH'
                ) as got:
                    await bench.runtime.start("a")
                assert got.value.reason == "StartError"
            state = await bench.state("a")
            assert (state.state, state.exit_code, state.started_at) == ("exited", 128, 0)

    async def test_a_container_needs_a_sandbox(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            with pytest.raises(RuntimeFailure, match="no sandbox") as got:
                await bench.runtime.create(bench.container("a"))
            assert got.value.reason == "CreateContainerError"

    async def test_a_removed_container_is_forgotten(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a", "talks")
            await bench.wait_ended("a")
            for _ in range(2):
                await bench.runtime.remove("a")
            assert await bench.runtime.containers() == []
            assert bench.log("a")

    async def test_a_running_container_is_not_removed(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a")
            with pytest.raises(RuntimeFailure, match="is running"):
                await bench.runtime.remove("a")
            assert (await bench.state("a")).state == "running"

    async def test_output_is_logged_by_stream(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a", "talks")
            await bench.wait_ended("a")
            assert sorted(bench.log("a")) == ["stderr F bad", "stdout F good"]

    async def test_changes_are_told_as_they_happen(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.runtime.run_sandbox(bench.sandbox())
            async with asyncio.timeout(10), bench.runtime.events() as events:
                await bench.runtime.create(bench.container("a", "ends with 3"))
                await bench.runtime.start("a")
                told = [await anext(events) for _ in range(3)]
            assert [state.state for state in told] == ["created", "running", "exited"]

    async def test_sandboxes_are_known_as_they_were_asked_for(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            spec = bench.sandbox(resources=Resources(cpu_shares=100, memory_bytes=1 << 26))
            await bench.runtime.run_sandbox(spec)
            await bench.runtime.run_sandbox(spec)
            assert list(await bench.runtime.sandboxes()) == [spec]

    async def test_stopping_a_sandbox_ends_what_runs_in_it(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a", "ignores TERM")
            await bench.run("b", "ends with 3")
            await bench.wait_ended("b")
            for _ in range(2):
                await bench.runtime.stop_sandbox(POD)
            assert list(await bench.runtime.sandboxes()) == []
            assert {state.id: state.exit_code for state in await bench.runtime.containers()} == {"a": 137, "b": 3}
            await bench.runtime.remove("a")

    async def test_exec_brings_output_and_exit_code(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a")
            found = await bench.runtime.exec_sync("a", ["sh", "-c", "echo out; echo err >&2; exit 4"])
            assert found == ExecResult(4, b"out\n", b"err\n")

    async def test_exec_keeps_no_more_than_the_limit(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a")
            found = await bench.runtime.exec_sync("a", ["sh", "-c", "echo out; echo err >&2; exit 4"], limit_bytes=2)
            assert found == ExecResult(4, b"ou", b"er")

    async def test_a_live_exec_ends_with_its_process(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a")
            args = ["sh", "-c", "echo out; echo err >&2; exit 4"]
            async with asyncio.timeout(10), bench.runtime.exec("a", args, tty=False, stdin=False) as session:
                found = sorted([chunk async for chunk in session.output()])
                assert (found, await session.wait()) == ([("stderr", b"err\n"), ("stdout", b"out\n")], 4)

    async def test_exec_needs_a_running_container(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a", "ends with 3")
            await bench.wait_ended("a")
            with pytest.raises(RuntimeFailure, match="not running"):
                await bench.runtime.exec_sync("a", ["true"])
            with pytest.raises(RuntimeFailure, match="does not exist"):
                await bench.runtime.exec_sync("never", ["true"])

    async def test_attaching_ends_with_the_container(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a")
            async with (
                asyncio.timeout(10),
                bench.runtime.attach("a", stdin=False) as one,
                bench.runtime.attach("a", stdin=False) as other,
            ):
                await bench.runtime.stop("a", grace_seconds=0)
                for session in (one, other):
                    assert [chunk async for chunk in session.output()] == []
                    assert await session.wait() == 0

    async def test_only_a_running_container_uses_anything(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a")
            used = await bench.runtime.usage("a")
            assert used is not None
            assert used.memory_bytes >= 0
            assert await bench.runtime.usage("never") is None

    async def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            for call in (bench.runtime.start("never"), bench.runtime.signal("never", "TERM")):
                with pytest.raises(RuntimeFailure, match="container never does not exist"):
                    await call

    async def test_an_unknown_signal_is_refused(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as bench:
            await bench.run("a")
            with pytest.raises(RuntimeFailure, match="SIGTERM, 15 or SIGRTMIN"):
                await bench.runtime.signal("a", "SIGWISH")
