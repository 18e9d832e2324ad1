"""One container as the monitor keeps it: created → running → exited, each step on disk before it is told.

    start   go-ahead recorded with the runtime's pid, then the runtime runs
    running the pid file and the runtime's success; the record carries pid and start time
    exited  the status of a child, or PIDFD_GET_INFO for one inherited from a killed monitor, else 255

A container id is started at most once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from dure.node.runtimes.oci import kernel
from dure.node.runtimes.oci.layout import read_json, write_json
from dure.node.runtimes.oci.shim_loop import Loop
from dure.node.runtimes.oci.shim_output import Peeker
from dure.node.runtimes.oci.shim_spawn import Program, spawn
from dure.node.runtimes.oci.shim_stdio import Stdio
from dure.node.runtimes.oci.shim_terminal import listen_for_terminal, take_terminal

UNKNOWN_EXIT = 255
START_FAILED_EXIT = 128
_RETRY_SECONDS = 1.0

Record = dict[str, Any]
Reply = Callable[..., None]
"""`reply(error="")`, once."""

_PUBLIC = ("state", "pid", "created_at", "started_at", "finished_at", "exit_code", "signal", "oom_killed")


class Surroundings:
    """What all containers of a monitor share."""

    def __init__(self, loop: Loop, program: Program, runtime_root: str, announce: Callable[[Record], None]) -> None:
        self.loop = loop
        self.program = program
        self.runtime_root = runtime_root
        self.announce = announce
        self.peeker = Peeker()


class Container:
    """Made from its folder. All methods return at once; what takes time ends in a callback."""

    def __init__(self, around: Surroundings, folder: str) -> None:
        self._around = around
        self._loop = around.loop
        self.folder = folder
        written = read_json(f"{folder}/spec.json")
        self.spec: Record = written["spec"]
        self.cgroup: Record = written["cgroup"]
        self.record: Record = read_json(f"{folder}/state.json") or {"state": "created", "created_at": time.time_ns()}
        self.id: str = self.spec["id"]
        self.pidfd = -1
        self.stdio = Stdio(
            around.loop,
            around.peeker,
            folder,
            self.spec["log_path"],
            tty=self.spec["tty"],
            stdin=self.spec["stdin"],
        )
        self._starters: list[Reply] = []

    @property
    def state(self) -> str:
        return str(self.record["state"])

    def public(self) -> Record:
        """What `ContainerState` carries."""
        named = {key: self.spec[key] for key in ("id", "pod_uid", "name", "attempt", "image", "image_id", "log_path")}
        return {**named, **{key: self.record[key] for key in _PUBLIC if key in self.record}}

    # ── start ────────────────────────────────────────────────────────────────────────────────────

    def start(self, reply: Reply) -> None:
        if self.record.get("message"):
            reply(error=self.record["message"])
        elif self.state != "created":
            reply()
        else:
            self._starters.append(reply)
            if len(self._starters) == 1 and "launcher" not in self.record:
                self._try_launch()

    def _try_launch(self) -> None:
        try:
            self._launch()
        except OSError as error:  # nothing has run: it may be tried again
            self._answer_starters(f"{self.id}: {error}")

    def _launch(self) -> None:
        self.stdio.open(stdin_done=False)
        for name in ("pid", "runtime.log"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.folder}/{name}")
        arguments = ["--detach", "--bundle", self.folder, "--pid-file", f"{self.folder}/pid"]
        console = None
        stdio = self.stdio.open_for_container()
        self._loop.claim()
        try:
            if self.spec["tty"]:
                console = listen_for_terminal(os.path.dirname(self._around.runtime_root))
                arguments += ["--console-socket", console.getsockname()]
            pid = spawn(self._around.program, self._command("run", *arguments), stdio, self._record_launcher)
        except BaseException:
            self._loop.release()
            if console is not None:
                take_terminal(console)
            raise
        finally:
            for fd in set(stdio):
                os.close(fd)
        self._loop.child(pid, lambda status: self._on_launched(status, console))

    def _command(self, *args: str) -> list[str]:
        return self._around.program.command(self._around.runtime_root, f"{self.folder}/runtime.log", *args, self.id)

    def _record_launcher(self, pid: int) -> None:
        record = {**self.record, "launcher": [pid, kernel.start_ticks(pid)]}
        write_json(f"{self.folder}/state.json", record)
        self.record = record

    def _on_launched(self, status: int, console: socket.socket | None) -> None:
        try:
            if console is not None:
                self.stdio.terminal = take_terminal(console)
            pid = self._written_pid()
            if status or not pid:
                self._fail_start(status)
            else:
                self._on_running(pid)
        finally:
            self._loop.release()

    def _written_pid(self) -> int:
        try:
            with open(f"{self.folder}/pid") as file:
                return int(file.read() or 0)
        except FileNotFoundError:
            return 0

    def _on_running(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # over already, and reaped: its status waits for `child`
            self.pidfd = os.pidfd_open(pid)
        now = time.time_ns()
        self._save(state="running", pid=pid, ticks=kernel.start_ticks(pid), started_at=now, drop="launcher")
        self.stdio.watch()
        self._around.announce(self.public())
        self._answer_starters("")
        if self._loop.is_child(pid):
            self._loop.child(pid, self._on_exit)
        else:
            self._watch_stranger()

    def _fail_start(self, status: int) -> None:
        said = self.stdio.empty()
        message = runtime_message(f"{self.folder}/runtime.log") or said.decode(errors="replace").strip()
        message = message or f"{self._around.program.name} ended with wait status {status}"
        self._save(
            state="exited", message=message, exit_code=START_FAILED_EXIT, finished_at=time.time_ns(), drop="launcher"
        )
        self._close()
        self._around.announce(self.public())
        self._answer_starters(message)

    def _answer_starters(self, error: str) -> None:
        starters, self._starters = self._starters, []
        for reply in starters:
            reply(error=error)

    # ── taking over what a killed monitor left ───────────────────────────────────────────────────

    def adopt(self, pidfd: int, terminal: int) -> None:
        """Go on from the record. The descriptors were kept by the agent; -1 where it had none."""
        self.pidfd, self.stdio.terminal = pidfd, terminal
        if self.state == "running":
            self.stdio.open(stdin_done=bool(self.record.get("stdin_done")))
            self._adopt_process(self.record["pid"], self.record["ticks"])
        elif self.state == "created" and "launcher" in self.record:
            self.stdio.open(stdin_done=False)
            pid, ticks = self.record["launcher"]
            if not kernel.is_alive(pid, ticks):
                self._adopt_launched()
                return
            launcher = os.pidfd_open(pid)
            self._loop.watch(launcher, lambda events: self._on_launcher_gone(launcher))

    def _on_launcher_gone(self, launcher: int) -> None:
        self._loop.unwatch(launcher)
        os.close(launcher)
        self._adopt_launched()

    def _adopt_launched(self) -> None:
        pid = self._written_pid()
        if not pid and not self.spec["tty"] and runtime_message(f"{self.folder}/runtime.log"):
            self._fail_start(1)
            return
        if not pid:
            # nothing of the container has run, for the pid is written before it does; what the runtime says of a
            # terminal is only that the monitor which should have taken it is gone
            self._save(drop="launcher")
            self._delete_from_runtime(lambda: self._try_launch() if self._starters else None)
            return
        self._save(state="running", pid=pid, ticks=kernel.start_ticks(pid), started_at=time.time_ns(), drop="launcher")
        self._around.announce(self.public())
        self._answer_starters("")
        self._adopt_process(pid, self.record["ticks"])

    def _adopt_process(self, pid: int, ticks: int) -> None:
        if self.pidfd < 0 and kernel.is_alive(pid, ticks):
            with contextlib.suppress(ProcessLookupError):
                self.pidfd = os.pidfd_open(pid)
        self.stdio.watch()
        if self.pidfd < 0:
            status = kernel.zombie_status(pid, ticks)
            self._on_exit(UNKNOWN_EXIT << 8 if status is None else status)
        else:
            self._watch_stranger()

    def _watch_stranger(self) -> None:
        self._loop.watch(self.pidfd, self._on_stranger_gone)

    def _on_stranger_gone(self, events: int, patience: int = 40) -> None:
        """The status shows in /proc until the new parent has reaped it, and on the pidfd from then on."""
        status = kernel.exit_status(self.pidfd)
        if status is None:
            status = kernel.zombie_status(self.record["pid"], self.record["ticks"])
        if status is None and patience:
            self._loop.unwatch(self.pidfd)
            self._loop.later(0.025, lambda: self._on_stranger_gone(0, patience - 1))
            return
        self._on_exit(UNKNOWN_EXIT << 8 if status is None else status)

    def finish_stdin(self) -> None:
        """The first attached input has ended: the container reads end of file, now and after a take-over."""
        if self.stdio.stdin >= 0:
            self.stdio.finish_stdin()
            self._save(stdin_done=True)

    # ── end ──────────────────────────────────────────────────────────────────────────────────────

    def signal(self, number: int) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def kill(self, reply: Reply) -> None:
        """Everything in it; one that is just being started is killed when it has."""
        if "launcher" in self.record:
            self._starters.append(lambda error: self.kill(reply))
            return
        self.signal(signal.SIGKILL)
        self._kill_leftovers()
        reply()

    def _kill_leftovers(self) -> None:
        for path in self.cgroup["procs"]:
            with contextlib.suppress(OSError), open(path) as file:
                for line in file:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(line), signal.SIGKILL)

    def _on_exit(self, status: int) -> None:
        if not self.spec["own_pid_namespace"]:
            self._kill_leftovers()
        self.stdio.drain()
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = 128 + number if number else os.WEXITSTATUS(status)
        self._save(
            state="exited",
            exit_code=code,
            signal=number,
            finished_at=time.time_ns(),
            oom_killed=bool(code) and self._was_out_of_memory(),
        )
        self._close()
        self._around.announce(self.public())

    def _was_out_of_memory(self) -> bool:
        path, key = self.cgroup["oom"]
        with contextlib.suppress(OSError), open(path) as file:
            for line in file:
                name, _, count = line.partition(" ")
                if name == key:
                    return int(count) > 0
        return False

    def _close(self) -> None:
        self.stdio.close()
        if self.pidfd >= 0:
            self._loop.unwatch(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1

    def remove(self, reply: Reply) -> None:
        """Forget an ended container and what the runtime holds of it; a running one is refused."""
        if self.state == "running" or "launcher" in self.record:
            reply(error=f"container {self.id} is running: stop it first")
            return
        self._delete_from_runtime(lambda: self._erase(reply))

    def _delete_from_runtime(self, then: Callable[[], None]) -> None:
        if not os.path.isdir(f"{self._around.runtime_root}/{self.id}"):
            then()
            return
        command = self._command("delete", "--force")
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            pid = spawn(self._around.program, command, (null, null, null))
        finally:
            os.close(null)
        self._loop.child(pid, lambda status: self._forget_in_runtime(then))

    def _forget_in_runtime(self, then: Callable[[], None]) -> None:
        shutil.rmtree(f"{self._around.runtime_root}/{self.id}", ignore_errors=True)
        then()

    def _erase(self, reply: Reply) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.folder, f"{self.folder}.gone")  # at once, so that no half of it is ever adopted
        shutil.rmtree(f"{self.folder}.gone", ignore_errors=True)
        reply()

    def _save(self, *, drop: str = "", **changes: Any) -> None:
        """On disk as soon as can be: a full disk delays the record, not the container's end."""
        self.record = {key: value for key, value in {**self.record, **changes}.items() if key != drop}
        try:
            write_json(f"{self.folder}/state.json", self.record)
        except OSError as error:
            print(f"{self.folder}/state.json: {error}", file=sys.stderr)
            if os.path.isdir(self.folder):
                self._loop.later(_RETRY_SECONDS, self._save)


def runtime_message(path: str) -> str:
    """The last error an OCI runtime wrote to its JSON log."""
    message = ""
    with contextlib.suppress(FileNotFoundError), open(path, errors="replace") as file:
        for line in file:
            _, found, rest = line.partition('"msg":')
            if found and '"error"' in line:
                message = str(json.JSONDecoder().raw_decode(rest.lstrip())[0])
    return message
