"""One container as the monitor keeps it: created → running → exited, each step on disk before it is told.

    start   go-ahead recorded with the runtime's pid, then the runtime runs
    running the pid file and the runtime's success; the record carries pid and start time
    exited  the status of a child, or PIDFD_GET_INFO for one inherited from a killed monitor, else 255

A container id is started at most once.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from dure.node.runtimes.oci import kernel
from dure.node.runtimes.oci.layout import read_json, write_json
from dure.node.runtimes.oci.shim_log import CriLog
from dure.node.runtimes.oci.shim_loop import EDGE, READ, Loop
from dure.node.runtimes.oci.shim_output import Attachment, Peeker, PipeOutput, TerminalOutput
from dure.node.runtimes.oci.shim_spawn import Program, spawn

UNKNOWN_EXIT = 255
START_FAILED_EXIT = 128

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
        self.terminal = -1
        self.stdin = -1
        self._log: CriLog | None = None
        self.outputs: list[PipeOutput | TerminalOutput] = []
        self.attached: list[Attachment] = []
        self._starters: list[Reply] = []
        self._enders: list[Callable[[], None]] = []

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
                self._launch()

    def _launch(self) -> None:
        self._open_stdio()
        for name in ("pid", "runtime.log"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.folder}/{name}")
        arguments = ["run", "--detach", "--bundle", self.folder, "--pid-file", f"{self.folder}/pid"]
        console = None
        if self.spec["tty"]:
            console = self._listen_for_terminal()
            arguments += ["--console-socket", console.getsockname()]
        command = self._around.program.command(
            self._around.runtime_root, f"{self.folder}/runtime.log", *arguments, self.id
        )
        stdio = self._container_stdio()
        self._loop.claim()
        try:
            pid = spawn(self._around.program, command, stdio, self._record_launcher)
        except BaseException:
            self._loop.release()
            raise
        finally:
            for fd in set(stdio):
                os.close(fd)
        self._loop.child(pid, lambda status: self._on_launched(status, console))

    def _record_launcher(self, pid: int) -> None:
        self._save(launcher=[pid, kernel.start_ticks(pid)])

    def _open_stdio(self) -> None:
        """The monitor's ends of the pipes and the log; also for a container taken over."""
        if self._log is None:
            self._log = CriLog(self.spec["log_path"])
        if self.spec["stdin"] and not self.spec["tty"] and not self.record.get("stdin_done") and self.stdin < 0:
            # read-write, so that opening does not wait for a reader
            self.stdin = os.open(f"{self.folder}/stdin", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        if not self.spec["tty"] and not self.outputs:
            for name in ("stdout", "stderr"):
                fd = os.open(f"{self.folder}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self.outputs.append(PipeOutput(name, fd, self._around.peeker))

    def _container_stdio(self) -> tuple[int, int, int]:
        if self.spec["tty"]:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            return null, null, null
        source = f"{self.folder}/stdin" if self.spec["stdin"] else "/dev/null"
        return (
            os.open(source, os.O_RDONLY | os.O_CLOEXEC),
            # read-write: the container is a reader of its own pipes, so no SIGPIPE when the monitor is gone
            os.open(f"{self.folder}/stdout", os.O_RDWR | os.O_CLOEXEC),
            os.open(f"{self.folder}/stderr", os.O_RDWR | os.O_CLOEXEC),
        )

    def _listen_for_terminal(self) -> socket.socket:
        return listen_for_terminal(os.path.dirname(self._around.runtime_root))

    def _on_launched(self, status: int, console: socket.socket | None) -> None:
        try:
            if console is not None:
                self.terminal = take_terminal(console)
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
        self._watch_outputs()
        self._around.announce(self.public())
        self._answer_starters("")
        if self._loop.is_child(pid):
            self._loop.child(pid, self._on_exit)
        else:
            self._watch_stranger()

    def _fail_start(self, status: int) -> None:
        said = b"".join(output.empty() for output in self.outputs if isinstance(output, PipeOutput))
        message = runtime_message(f"{self.folder}/runtime.log") or said.decode(errors="replace").strip()
        message = message or f"{self._around.program.name} ended with wait status {status}"
        self._save(
            state="exited", message=message, exit_code=START_FAILED_EXIT, finished_at=time.time_ns(), drop="launcher"
        )
        self._close_stdio()
        self._around.announce(self.public())
        self._answer_starters(message)

    def _answer_starters(self, error: str) -> None:
        starters, self._starters = self._starters, []
        for reply in starters:
            reply(error=error)

    # ── taking over what a killed monitor left ───────────────────────────────────────────────────

    def adopt(self, pidfd: int, terminal: int) -> None:
        """Go on from the record. The descriptors were kept by the agent; -1 where it had none."""
        self.pidfd, self.terminal = pidfd, terminal
        if self.state == "running":
            self._open_stdio()
            self._adopt_process(self.record["pid"], self.record["ticks"])
        elif self.state == "created" and "launcher" in self.record:
            self._open_stdio()
            pid, ticks = self.record["launcher"]
            if kernel.start_ticks(pid) != ticks:
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
        if not pid and runtime_message(f"{self.folder}/runtime.log"):
            self._fail_start(1)
            return
        if not pid:  # nothing of the container has run: the pid is written before it does
            self._save(drop="launcher")
            self._delete_from_runtime(lambda: self._launch() if self._starters else None)
            return
        self._save(state="running", pid=pid, ticks=kernel.start_ticks(pid), started_at=time.time_ns(), drop="launcher")
        self._around.announce(self.public())
        self._answer_starters("")
        self._adopt_process(pid, self.record["ticks"])

    def _adopt_process(self, pid: int, ticks: int) -> None:
        if self.pidfd < 0 and ticks and kernel.start_ticks(pid) == ticks:
            with contextlib.suppress(ProcessLookupError):
                self.pidfd = os.pidfd_open(pid)
        if self.spec["tty"] and self.terminal >= 0:
            self.outputs.append(TerminalOutput(self.terminal))
        self._watch_outputs()
        if self.pidfd < 0:
            self._on_exit(UNKNOWN_EXIT << 8)
        else:
            self._watch_stranger()

    def _watch_stranger(self) -> None:
        self._loop.watch(self.pidfd, self._on_stranger_gone)

    def _on_stranger_gone(self, events: int, patience: int = 40) -> None:
        """The kernel knows the status once the new parent has reaped it, a moment after the end."""
        status = kernel.exit_status(self.pidfd)
        if status is None and patience:
            self._loop.unwatch(self.pidfd)
            self._loop.later(0.025, lambda: self._on_stranger_gone(0, patience - 1))
            return
        self._on_exit(UNKNOWN_EXIT << 8 if status is None else status)

    # ── output ───────────────────────────────────────────────────────────────────────────────────

    def _watch_outputs(self) -> None:
        if self.spec["tty"] and self.terminal >= 0 and not self.outputs:
            self.outputs.append(TerminalOutput(self.terminal))
        for output in self.outputs:
            self._loop.watch(output.fd, functools.partial(self._on_output, output), READ | EDGE)

    def _on_output(self, output: PipeOutput | TerminalOutput, events: int) -> None:
        self._pump(output)

    def _pump(self, output: PipeOutput | TerminalOutput) -> None:
        if self._log is None or any(attachment.blocked for attachment in self.attached):
            return
        if output.pump(self._log, self.attached):
            self._loop.later(0, lambda: self._pump(output))

    def attach(self, sock: socket.socket) -> None:
        def on_gone() -> None:
            self.attached.remove(attachment)

        attachment = Attachment(self._loop, sock, self._pump_all, on_gone)
        self.attached.append(attachment)
        if self.state == "exited":
            attachment.end()

    def _pump_all(self) -> None:
        for output in self.outputs:
            self._pump(output)

    def finish_stdin(self) -> None:
        """The first attached input has ended: the container reads end of file, now and after a take-over."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1
            self._save(stdin_done=True)

    # ── end ──────────────────────────────────────────────────────────────────────────────────────

    def signal(self, number: int) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._kill_leftovers()

    def _kill_leftovers(self) -> None:
        for path in self.cgroup["procs"]:
            with contextlib.suppress(OSError), open(path) as file:
                for line in file:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(line), signal.SIGKILL)

    def _on_exit(self, status: int) -> None:
        if not self.spec["own_pid_namespace"]:
            self._kill_leftovers()
        if self._log is not None:
            for output in self.outputs:
                while output.pump(self._log, self.attached, last=True):
                    pass
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = 128 + number if number else os.WEXITSTATUS(status)
        self._save(
            state="exited",
            exit_code=code,
            signal=number,
            finished_at=time.time_ns(),
            oom_killed=bool(code) and self._was_out_of_memory(),
        )
        self._close_stdio()
        self._around.announce(self.public())
        enders, self._enders = self._enders, []
        for ender in enders:
            ender()

    def _was_out_of_memory(self) -> bool:
        path, key = self.cgroup["oom"]
        with contextlib.suppress(OSError), open(path) as file:
            for line in file:
                name, _, count = line.partition(" ")
                if name == key:
                    return int(count) > 0
        return False

    def _close_stdio(self) -> None:
        for attachment in tuple(self.attached):
            attachment.end()
        for output in self.outputs:
            self._loop.unwatch(output.fd)
            os.close(output.fd)
        if not self.outputs and self.terminal >= 0:
            os.close(self.terminal)
        self.outputs, self.terminal = [], -1
        if self.pidfd >= 0:
            self._loop.unwatch(self.pidfd)
            os.close(self.pidfd)
        if self.stdin >= 0:
            os.close(self.stdin)
        self.pidfd = self.stdin = -1
        if self._log is not None:
            self._log.close()
            self._log = None

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
        command = self._around.program.command(
            self._around.runtime_root, f"{self.folder}/runtime.log", "delete", "--force", self.id
        )
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
        self.record = {key: value for key, value in {**self.record, **changes}.items() if key != drop}
        write_json(f"{self.folder}/state.json", self.record)


def runtime_message(path: str) -> str:
    """The last error an OCI runtime wrote to its JSON log."""
    message = ""
    with contextlib.suppress(FileNotFoundError), open(path, errors="replace") as file:
        for line in file:
            _, found, rest = line.partition('"msg":')
            if found and '"error"' in line:
                message = str(json.JSONDecoder().raw_decode(rest.lstrip())[0])
    return message


def listen_for_terminal(folder: str) -> socket.socket:
    """Where a runtime sends the controlling end of a terminal; short, for a socket path has 107 bytes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = f"{folder}/tty-{time.monotonic_ns():x}"
    listener.bind(path)
    listener.listen(1)
    listener.setblocking(False)
    return listener


def take_terminal(listener: socket.socket) -> int:
    """The descriptor the runtime has sent before it ended; -1 if none."""
    os.unlink(listener.getsockname())
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return -1
    finally:
        listener.close()
    with connection:
        connection.setblocking(False)
        try:
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return -1
    return fds[0] if fds else -1
