"""The agent's line to the monitor: starts it when there is none, asks, listens, and comes back when it died.

The agent keeps copies of each running container's descriptors. They go to the next monitor when one is killed, so
that what a container writes and how it ends in between is not lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dure
from dure.node.ports import RuntimeFailure
from dure.node.runtimes.oci.frames import Frames, Message
from dure.node.runtimes.oci.layout import RunDir, read_json, write_json
from dure.node.runtimes.oci.shim_spawn import Program

log = logging.getLogger(__name__)

_MODULE = "dure.node.runtimes.oci.shim"
_RETRY_SECONDS = 0.5


class MonitorLost(RuntimeFailure):
    """The monitor went away with a request that may not be sent twice."""


class Answer:
    """What a request brought; the descriptors are the caller's to close."""

    def __init__(self, message: Message, fds: list[int]) -> None:
        self.message = message
        self.fds = fds


class ShimClient:
    """One connection at a time. `on_state` gets each container state told or found different after a reconnect."""

    def __init__(self, run: RunDir, program: Program, on_state: Callable[[Message], None]) -> None:
        self._run = run
        self._program = program
        self._on_state = on_state
        self._frames: Frames | None = None
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._closed = False
        self._kept: dict[str, dict[str, int]] = {}

    async def connect(self) -> None:
        """To the monitor that runs, else to a new one. Raises RuntimeFailure."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        sock = self._try_connect()
        if sock is None:
            await self._start_monitor()
            sock = self._try_connect()
        if sock is None:
            raise RuntimeFailure(f"the container monitor does not answer at {self._run.socket}")
        self._frames = Frames(sock)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._on_readable)
        self._connected.set()

    async def keep_connected(self) -> None:
        """A service: whenever the monitor dies, start another and tell what has changed meanwhile."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            log.warning("container monitor went away")
            while self._frames is None:
                try:
                    await self.connect()
                    for state in (await self.ask("list", again=False)).message["containers"]:
                        self._on_state(state)
                except (RuntimeFailure, OSError) as error:
                    log.error("container monitor does not start", extra={"error": str(error)})
                    await asyncio.sleep(_RETRY_SECONDS)

    def close(self) -> None:
        """The monitor and its containers stay."""
        self._closed = True
        self._drop(MonitorLost("the runtime is closed"))
        self._connected.set()  # whoever waits for a monitor learns that none will come
        for fds in self._kept.values():
            for fd in fds.values():
                os.close(fd)
        self._kept.clear()

    async def ask(self, do: str, fds: Sequence[int] = (), *, again: bool = True, **arguments: Any) -> Answer:
        """One request. Sent again to the next monitor if this one dies and `again`; else MonitorLost.

        Raises RuntimeFailure with the monitor's message.
        """
        while True:
            while self._frames is None:
                if self._closed:
                    raise MonitorLost("the runtime is closed")
                await self._connected.wait()
            number = next(self._numbers)
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self._pending[number] = future
            try:
                if not self._frames.send({"number": number, "do": do, **arguments}, fds):
                    asyncio.get_running_loop().add_writer(self._frames.sock.fileno(), self._on_writable)
                answer = await future
            except (MonitorLost, OSError) as error:
                if not isinstance(error, MonitorLost):
                    self._lose()  # met in sending, before the reader saw the end
                if again:
                    continue
                raise MonitorLost("the container monitor went away") from error
            finally:
                self._pending.pop(number, None)
            if answer.message["error"]:
                for fd in answer.fds:
                    os.close(fd)
                raise RuntimeFailure(answer.message["error"])
            return answer

    def exit_of(self, execution: int) -> asyncio.Future[int]:
        """The exit code of an execution this connection began, also if it has come already."""
        if execution not in self._exits:
            self._exits[execution] = asyncio.get_running_loop().create_future()
        return self._exits[execution]

    def forget_exit(self, execution: int) -> None:
        self._exits.pop(execution, None)

    async def keep(self, container_id: str) -> None:
        """Hold copies of a running container's descriptors until `release`."""
        answer = await self.ask("keep", id=container_id)
        self.release(container_id)
        self._kept[container_id] = dict(zip(answer.message["names"], answer.fds, strict=True))

    def release(self, container_id: str, name: str = "") -> None:
        """Close what is held of a container, or only the descriptor `name`."""
        fds = self._kept.get(container_id, {})
        for key in [name] if name else list(fds):
            if key in fds:
                os.close(fds.pop(key))
        if not fds:
            self._kept.pop(container_id, None)

    # ── the wire ─────────────────────────────────────────────────────────────────────────────────

    def _try_connect(self) -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self._run.socket)
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        return sock

    def _on_readable(self) -> None:
        assert self._frames is not None
        try:
            for message, fds in self._frames.receive():
                self._take(message, fds)
        except OSError:
            self._lose()

    def _lose(self) -> None:
        self._drop(MonitorLost("the container monitor went away"))
        self._lost.set()

    def _on_writable(self) -> None:
        assert self._frames is not None
        with contextlib.suppress(OSError):  # the reader meets the end too
            if not self._frames.flush():
                return
        asyncio.get_running_loop().remove_writer(self._frames.sock.fileno())

    def _take(self, message: Message, fds: list[int]) -> None:
        if message.get("event") == "state":
            self._on_state(message["state"])
        elif message.get("event") == "exec":
            future = self.exit_of(message["execution"])
            if not future.done():
                future.set_result(message["exit_code"])
        else:
            future_answer = self._pending.get(message["reply"])
            if future_answer is not None and not future_answer.done():
                future_answer.set_result(Answer(message, fds))
                return
            for fd in fds:
                os.close(fd)
            if "execution" in message and not message["error"] and self._frames is not None:
                # whoever asked has been cancelled meanwhile
                self._frames.send({"number": 0, "do": "exec_kill", "execution": message["execution"]})

    def _drop(self, error: MonitorLost) -> None:
        if self._frames is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._frames.sock.fileno())
        loop.remove_writer(self._frames.sock.fileno())
        self._frames.close()
        self._frames = None
        self._connected.clear()
        waiting: list[asyncio.Future[Any]] = [*self._pending.values(), *self._exits.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody need be waiting
        self._exits.clear()

    # ── starting one ─────────────────────────────────────────────────────────────────────────────

    async def _start_monitor(self) -> None:
        self._run.make()
        if read_json(self._run.monitor) != asdict(self._program):
            write_json(self._run.monitor, asdict(self._program))
        handed = {key: _only(fds, "pidfd", "terminal") for key, fds in self._kept.items()}
        listing = os.memfd_create("handed-over")
        try:
            os.write(listing, json.dumps(handed).encode())
            os.lseek(listing, 0, os.SEEK_SET)
            await self._run_monitor(listing, [fd for fds in handed.values() for fd in fds.values()])
        finally:
            os.close(listing)

    async def _run_monitor(self, listing: int, fds: Sequence[int]) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-S", "-m", _MODULE, self._run.root, str(listing)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[listing, *fds],
            cwd="/",
            env={"PYTHONPATH": str(Path(dure.__file__).parents[1]), "PATH": os.environ.get("PATH", os.defpath)},
        )
        _, said = await process.communicate()
        if process.returncode:
            raise RuntimeFailure(f"the container monitor does not start: {said.decode(errors='replace').strip()}")


def _only(fds: dict[str, int], *names: str) -> dict[str, int]:
    return {name: fds[name] for name in names if name in fds}
