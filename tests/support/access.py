"""A node's rooms for access tests: processes of this machine stand in for those in containers."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dure.core.errors import BadRequest, NotFound
from dure.node.access.ports import Connection, Rooms
from dure.node.ports import ContainerState, RuntimeFailure, Session


@dataclass(frozen=True)
class LocalTarget:
    container: str = "main"
    container_id: str = "c1"
    running: bool = True
    waiting: str = ""
    log_path: str = "/nonexistent/0.log"
    previous_log_path: str = ""
    tty: bool = False
    stdin: bool = True
    uid: str = "u1"
    host_network: bool = False


@dataclass
class LocalPods:
    target: LocalTarget = field(default_factory=LocalTarget)

    def resolve(self, namespace: str, pod: str, container: str = "") -> LocalTarget:
        self.resolve_pod(namespace, pod)
        if container != self.target.container:
            raise BadRequest(f"container {container} is not valid for pod {pod}")
        return self.target

    def resolve_pod(self, namespace: str, pod: str) -> LocalTarget:
        if (namespace, pod) != ("default", "web"):
            raise NotFound(f'pods "{pod}" not found')
        return self.target


class PipedSession:
    """A process with three pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def write_stdin(self, data: bytes) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            try:
                self._process.stdin.write(data)
                await self._process.stdin.drain()
            except ConnectionError:
                self._process.stdin.close()

    def close_stdin(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def output(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        queue: asyncio.Queue[tuple[Literal["stdout", "stderr"], bytes]] = asyncio.Queue(8)

        async def pump(name: Literal["stdout", "stderr"], source: asyncio.StreamReader | None) -> None:
            while source is not None and (data := await source.read(65536)):
                await queue.put((name, data))
            await queue.put((name, b""))

        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(pump("stdout", self._process.stdout))
            pumps.create_task(pump("stderr", self._process.stderr))
            left = 2
            while left:
                name, data = await queue.get()
                if data:
                    yield name, data
                else:
                    left -= 1

    def resize(self, columns: int, rows: int) -> None:
        raise AssertionError("no terminal here")

    async def wait(self) -> int:
        return await self._process.wait()


class TerminalSession:
    """A process on a terminal."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int) -> None:
        self._process, self._terminal = process, terminal
        os.set_blocking(terminal, False)

    async def write_stdin(self, data: bytes) -> None:
        os.write(self._terminal, data)

    def close_stdin(self) -> None:
        os.write(self._terminal, b"\x04")

    async def output(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._terminal, ready.set)
        try:
            while True:
                try:
                    data = os.read(self._terminal, 65536)
                except BlockingIOError:
                    ready.clear()
                    await ready.wait()
                    continue
                except OSError:
                    return
                if not data:
                    return
                yield "stdout", data
        finally:
            loop.remove_reader(self._terminal)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        return await self._process.wait()


@dataclass
class LocalRuntime:
    """exec and attach run `args` (attach: `main`) on this machine."""

    main: Sequence[str] = ("cat",)
    state: str = "running"
    _listeners: list[asyncio.Queue[ContainerState]] = field(default_factory=list)

    def exec(self, container_id: str, args: Sequence[str], *, tty: bool, stdin: bool) -> Any:
        return self._terminal(args) if tty else self._piped(args, stdin)

    def attach(self, container_id: str, *, stdin: bool) -> Any:
        return self._piped(self.main, stdin)

    @asynccontextmanager
    async def _piped(self, args: Sequence[str], stdin: bool) -> AsyncIterator[Session]:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *args, stdin=pipe if stdin else asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
        except FileNotFoundError:
            raise RuntimeFailure(f'exec: "{args[0]}": executable file not found in $PATH') from None
        try:
            yield PipedSession(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    @asynccontextmanager
    async def _terminal(self, args: Sequence[str]) -> AsyncIterator[Session]:
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *args, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        try:
            yield TerminalSession(process, ours)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            os.close(ours)

    def _container(self) -> ContainerState:
        return ContainerState("c1", "u1", "main", 0, "", "", self.state)  # type: ignore[arg-type]

    async def containers(self) -> Sequence[ContainerState]:
        return [self._container()]

    def end(self) -> None:
        self.state = "exited"
        for queue in self._listeners:
            queue.put_nowait(self._container())

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[ContainerState]]:
        queue: asyncio.Queue[ContainerState] = asyncio.Queue()
        self._listeners.append(queue)

        async def changes() -> AsyncIterator[ContainerState]:
            while True:
                yield await queue.get()

        try:
            yield changes()
        finally:
            self._listeners.remove(queue)


class LocalNetwork:
    """A pod's loopback is this machine's."""

    async def connect(self, ip: str, port: int) -> Connection:
        return await asyncio.open_connection(ip, port)

    async def connect_inside(self, pod_uid: str, port: int) -> Connection:
        return await asyncio.open_connection("127.0.0.1", port)


def local_rooms(target: LocalTarget | None = None, runtime: LocalRuntime | None = None) -> Rooms:
    return Rooms(LocalPods(target or LocalTarget()), runtime or LocalRuntime(), LocalNetwork())  # type: ignore[arg-type]


def write_log(path: Path, *lines: str) -> None:
    """Lines as `stream F text`, one second apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        count = sum(1 for _ in path.open())
        for index, line in enumerate(lines, count):
            file.write(f"2026-01-01T00:{index // 60:02d}:{index % 60:02d}.000000000Z {line}\n")
