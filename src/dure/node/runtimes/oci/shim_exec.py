"""Processes started in a running container. Their data does not pass through the monitor: it hands descriptors on.

An execution belongs to the connection that asked for it and is killed when that ends.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from dure.node.runtimes.oci.layout import write_json
from dure.node.runtimes.oci.shim_container import Container, Surroundings, runtime_message
from dure.node.runtimes.oci.shim_spawn import spawn
from dure.node.runtimes.oci.shim_terminal import listen_for_terminal, take_terminal

_numbers = itertools.count(time.time_ns())
"""Not used again by a later monitor."""


class Execution:
    """One exec. `on_started(error, terminal)` comes once, then `on_exit(exit code)` if there was no error."""

    def __init__(
        self,
        around: Surroundings,
        container: Container,
        on_started: Callable[[str, int], None],
        on_exit: Callable[[int], None],
    ) -> None:
        self.number = next(_numbers)
        self._around = around
        self._container = container
        self._on_started = on_started
        self._on_exit = on_exit
        self._scratch = f"{container.folder}/exec-{self.number}"
        self._pid = 0
        self._killed = False

    def start(self, process: dict[str, Any], stdio: list[int]) -> None:
        """`process` is the runtime specification's; `stdio` its three descriptors, none with a terminal."""
        arguments = ["exec", "--detach", "--process", f"{self._scratch}.json", "--pid-file", f"{self._scratch}.pid"]
        console = None
        self._around.loop.claim()
        try:
            if process.get("terminal"):
                console = listen_for_terminal(os.path.dirname(self._around.runtime_root))
                arguments += ["--console-socket", console.getsockname()]
                null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
                stdio = [null, null, null]
            write_json(f"{self._scratch}.json", process)
            command = self._around.program.command(
                self._around.runtime_root, f"{self._scratch}.log", *arguments, self._container.id
            )
            pid = spawn(self._around.program, command, (stdio[0], stdio[1], stdio[2]))
        except BaseException:
            self._around.loop.release()
            raise
        finally:
            for fd in set(stdio):
                os.close(fd)
        self._around.loop.child(pid, lambda status: self._on_launched(status, console))

    def _on_launched(self, status: int, console: socket.socket | None) -> None:
        terminal = -1
        try:
            terminal = take_terminal(console) if console is not None else -1
            with contextlib.suppress(FileNotFoundError, ValueError), open(f"{self._scratch}.pid") as file:
                self._pid = int(file.read())
            if status or not self._pid:
                message = runtime_message(f"{self._scratch}.log")
                self._on_started(message or f"{self._around.program.name} ended with wait status {status}", -1)
                return
            self._on_started("", terminal)
            self._around.loop.child(self._pid, self._on_ended)
            if self._killed:
                self.kill()
        finally:
            self._around.loop.release()
            if terminal >= 0:
                os.close(terminal)
            for kind in ("json", "pid", "log"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._scratch}.{kind}")

    def _on_ended(self, status: int) -> None:
        self._pid = 0
        self._on_exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))

    def kill(self) -> None:
        """The process and its group; also one that is only being started."""
        self._killed = True
        if not self._pid:
            return
        # not reaped yet, so the number is still its own
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(self._pid) == self._pid:
                os.killpg(self._pid, signal.SIGKILL)
            os.kill(self._pid, signal.SIGKILL)
