"""Containers that only pretend: for simulated nodes, `--no-containers`, and tests of the pod rooms.

Everything a `Runtime` promises, in memory and in the loop's time; what each container does is its `Script`. The
object outlives agents, as a real runtime's state does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dure.core.aio import Scope
from dure.core.clock import Clock, SystemClock, rfc3339_nano
from dure.node.ports import (
    ContainerSpec,
    ContainerState,
    ExecResult,
    Resources,
    RuntimeFailure,
    SandboxSpec,
    Session,
    Usage,
)
from dure.node.runtimes.signals import signal_number

_KILL = 9
_IDLE = Usage(0, 0)
START_FAILED_EXIT = 128

Chunk = tuple[Literal["stdout", "stderr"], bytes]
Answer = Callable[[Sequence[str]], ExecResult]


@dataclass(frozen=True, slots=True)
class Script:
    """How a container behaves."""

    seconds: float | None = None
    """Until it ends by itself; None: never."""
    exit_code: int = 0
    stop_seconds: float | None = 0.0
    """From a signal to its end; None: only SIGKILL ends it."""
    stop_code: int = 0
    output: tuple[Chunk, ...] = ()
    """Written when it starts."""
    oom_killed: bool = False
    create_error: str = ""
    start_error: str = ""
    answer: Answer = lambda args: ExecResult(0, b"", b"")
    """What an exec in it brings."""
    usage: Usage = _IDLE


class _Simulated:
    """One container and those who wait for it."""

    def __init__(self, spec: ContainerSpec, script: Script, state: ContainerState) -> None:
        self.spec = spec
        self.script = script
        self.state = state
        self.ended = asyncio.Event()
        self.timers: list[asyncio.TimerHandle] = []
        self.failure: RuntimeFailure | None = None


class SimulatedRuntime:
    """`script` says what each container does; by default it runs until it is stopped."""

    def __init__(
        self, clock: Clock | None = None, script: Callable[[ContainerSpec], Script] = lambda spec: Script()
    ) -> None:
        self._clock = clock or SystemClock()
        self._script = script
        self._sandboxes: dict[str, SandboxSpec] = {}
        self._containers: dict[str, _Simulated] = {}
        self._listeners: set[asyncio.Queue[ContainerState]] = set()
        self._pids = iter(range(1000, 1 << 62))
        self.resources: dict[str, Resources] = {}
        """What `update` has set, by container."""

    async def run_sandbox(self, spec: SandboxSpec) -> None:
        self._sandboxes.setdefault(spec.pod_uid, spec)

    async def stop_sandbox(self, pod_uid: str) -> None:
        for container in self._containers.values():
            if container.state.pod_uid == pod_uid:
                self._signal(container, _KILL)
        self._sandboxes.pop(pod_uid, None)

    async def sandboxes(self) -> Sequence[SandboxSpec]:
        return list(self._sandboxes.values())

    async def create(self, spec: ContainerSpec) -> None:
        if spec.id in self._containers:
            return
        if spec.pod_uid not in self._sandboxes:
            raise RuntimeFailure(f"pod {spec.pod_uid} has no sandbox", "CreateContainerError")
        script = self._script(spec)
        if script.create_error:
            raise RuntimeFailure(script.create_error, "CreateContainerError")
        state = ContainerState(
            id=spec.id,
            pod_uid=spec.pod_uid,
            name=spec.name,
            attempt=spec.attempt,
            image=spec.image,
            image_id=spec.image_id,
            state="created",
            created_at=self._now(),
            log_path=spec.log_path,
        )
        self._containers[spec.id] = _Simulated(spec, script, state)
        self._tell(state)

    async def start(self, container_id: str) -> None:
        container = self._find(container_id)
        if container.failure is not None:
            raise container.failure
        if container.state.state != "created":
            return
        if container.script.start_error:
            container.failure = RuntimeFailure(container.script.start_error, "StartError")
            self._end(container, START_FAILED_EXIT)
            raise container.failure
        self._change(container, state="running", pid=next(self._pids), started_at=self._now())
        self._write_log(container)
        if container.script.seconds is not None:
            self._end_after(container, container.script.seconds, container.script.exit_code)

    async def signal(self, container_id: str, signal: str) -> None:
        self._signal(self._find(container_id), signal_number(signal))

    async def stop(self, container_id: str, *, grace_seconds: float, signal: str = "SIGTERM") -> None:
        container = self._containers.get(container_id)
        if container is None or container.state.state != "running":
            return
        if grace_seconds > 0:
            self._signal(container, signal_number(signal))
            try:
                async with asyncio.timeout(grace_seconds):
                    await container.ended.wait()
            except TimeoutError:
                self._signal(container, _KILL)
        else:
            self._signal(container, _KILL)

    async def remove(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is not None and container.state.state == "running":
            raise RuntimeFailure(f"container {container_id} is running: stop it first")
        self._containers.pop(container_id, None)

    async def containers(self) -> Sequence[ContainerState]:
        return [container.state for container in self._containers.values()]

    @asynccontextmanager
    async def _subscribe(self) -> AsyncIterator[AsyncIterator[ContainerState]]:
        # bounded by what happens: three changes a container
        queue: asyncio.Queue[ContainerState] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield _drain(queue)
        finally:
            self._listeners.discard(queue)

    def events(self) -> Scope[AsyncIterator[ContainerState]]:
        return self._subscribe()

    async def exec_sync(self, container_id: str, args: Sequence[str], *, limit_bytes: int = 1 << 20) -> ExecResult:
        result = self._running(container_id).script.answer(args)
        return ExecResult(result.exit_code, result.stdout[:limit_bytes], result.stderr[:limit_bytes])

    @asynccontextmanager
    async def _exec(self, container_id: str, args: Sequence[str]) -> AsyncIterator[Session]:
        result = self._running(container_id).script.answer(args)
        ended = asyncio.Event()
        ended.set()
        chunks: list[Chunk] = [("stdout", result.stdout), ("stderr", result.stderr)]
        yield SimulatedSession([chunk for chunk in chunks if chunk[1]], ended, result.exit_code)

    def exec(self, container_id: str, args: Sequence[str], *, tty: bool, stdin: bool) -> Scope[Session]:
        return self._exec(container_id, args)

    @asynccontextmanager
    async def _attach(self, container_id: str) -> AsyncIterator[Session]:
        yield SimulatedSession([], self._find(container_id).ended, 0)

    def attach(self, container_id: str, *, stdin: bool) -> Scope[Session]:
        return self._attach(container_id)

    async def usage(self, container_id: str) -> Usage | None:
        container = self._containers.get(container_id)
        return container.script.usage if container is not None and container.state.state == "running" else None

    async def update(self, container_id: str, resources: Resources) -> None:
        self._find(container_id)
        self.resources[container_id] = resources

    # ── what happens inside ──────────────────────────────────────────────────────────────────────

    def end(self, container_id: str, exit_code: int, signal: int = 0) -> None:
        """A running container ends now, as if by itself."""
        container = self._find(container_id)
        if container.state.state == "running":
            self._end(container, exit_code, signal)

    def _now(self) -> int:
        return int(self._clock.time() * 1e9)

    def _find(self, container_id: str) -> _Simulated:
        container = self._containers.get(container_id)
        if container is None:
            raise RuntimeFailure(f"container {container_id} does not exist")
        return container

    def _running(self, container_id: str) -> _Simulated:
        container = self._find(container_id)
        if container.state.state != "running":
            raise RuntimeFailure(f"container {container_id} is {container.state.state}, not running", "ExecError")
        return container

    def _signal(self, container: _Simulated, number: int) -> None:
        if container.state.state != "running":
            return
        if number == _KILL:
            self._end(container, 128 + _KILL, _KILL)
        elif container.script.stop_seconds is not None:
            self._end_after(container, container.script.stop_seconds, container.script.stop_code)

    def _end_after(self, container: _Simulated, seconds: float, exit_code: int) -> None:
        if seconds <= 0:
            self._end(container, exit_code)
        else:
            loop = asyncio.get_running_loop()
            container.timers.append(loop.call_later(seconds, self._end, container, exit_code))

    def _end(self, container: _Simulated, exit_code: int, signal: int = 0) -> None:
        for timer in container.timers:
            timer.cancel()
        oom = container.script.oom_killed and bool(exit_code)
        now = self._now()
        container.ended.set()
        self._change(container, state="exited", exit_code=exit_code, signal=signal, finished_at=now, oom_killed=oom)

    def _change(self, container: _Simulated, **changes: Any) -> None:
        container.state = replace(container.state, **changes)
        self._tell(container.state)

    def _tell(self, state: ContainerState) -> None:
        for queue in self._listeners:
            queue.put_nowait(state)

    def _write_log(self, container: _Simulated) -> None:
        if not container.script.output:
            return
        stamp = rfc3339_nano(self._now())
        with Path(container.spec.log_path).open("a") as file:
            for stream, data in container.script.output:
                for line in data.decode(errors="replace").splitlines():
                    file.write(f"{stamp} {stream} F {line}\n")


class SimulatedSession:
    """Says what it has to say, then waits for the end."""

    def __init__(self, chunks: Sequence[Chunk], ended: asyncio.Event, exit_code: int) -> None:
        self._chunks = chunks
        self._ended = ended
        self._exit_code = exit_code
        self.received = bytearray()
        self.size = (0, 0)

    async def write_stdin(self, data: bytes) -> None:
        self.received += data

    def close_stdin(self) -> None:
        """Nobody reads it."""

    def resize(self, columns: int, rows: int) -> None:
        self.size = (columns, rows)

    async def output(self) -> AsyncIterator[Chunk]:
        for chunk in self._chunks:
            yield chunk
        await self._ended.wait()

    async def wait(self) -> int:
        await self._ended.wait()
        return self._exit_code


async def _drain(queue: asyncio.Queue[ContainerState]) -> AsyncIterator[ContainerState]:
    while True:
        yield await queue.get()
