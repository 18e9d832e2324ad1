"""The monitor: one process a machine that starts containers, keeps their logs and exit codes, and outlives the agent.

    python -m dure.node.runtimes.oci.shim <run dir> [<descriptor of the handed-over list>]

Standard library alone, one thread, no polling. It may be killed at any moment: everything it must not forget is on
disk first, container stdio is named pipes, and its successor takes over (`adopt`). Requests are answered by number;
each may be sent again to a successor. The lock file names the pid of the one that runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TextIO, cast

from dure.node.runtimes.oci import kernel
from dure.node.runtimes.oci.frames import Frames, Message
from dure.node.runtimes.oci.layout import RunDir, read_json, write_json
from dure.node.runtimes.oci.shim_container import Container, Surroundings
from dure.node.runtimes.oci.shim_exec import Execution
from dure.node.runtimes.oci.shim_loop import READ, WRITE, Loop
from dure.node.runtimes.oci.shim_pause import hold_pid_namespace
from dure.node.runtimes.oci.shim_spawn import Program

_LOG_BYTES = 1 << 20


class NoSuchContainer(Exception):
    """Neither known nor on disk."""


class Peer:
    """One connected agent."""

    def __init__(self, loop: Loop, sock: socket.socket, on_message: Callable[[Peer, Message, list[int]], None]) -> None:
        self._loop = loop
        self._frames = Frames(sock)
        self._on_message = on_message
        self._waiting = False
        self.executions: dict[int, Execution] = {}
        self.on_gone: Callable[[Peer], None] = lambda peer: None
        loop.watch(sock.fileno(), self._on_ready)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        try:
            done = self._frames.send(message, fds)
        except OSError:
            self._loop.later(0, self.close)
            return
        if not done and not self._waiting:
            self._waiting = True
            self._loop.watch(self._frames.sock.fileno(), self._on_ready, READ | WRITE)

    def _on_ready(self, events: int) -> None:
        try:
            if events & WRITE and self._frames.flush():
                self._waiting = False
                self._loop.watch(self._frames.sock.fileno(), self._on_ready)
            if events & ~WRITE:
                for message, fds in self._frames.receive():
                    self._on_message(self, message, fds)
        except OSError:
            self.close()

    def close(self) -> None:
        if self._frames.sock.fileno() < 0:
            return
        self._loop.unwatch(self._frames.sock.fileno())
        self._frames.close()
        for execution in self.executions.values():
            execution.kill()
        self.on_gone(self)


class Shim:
    """Containers, peers, and the requests between them."""

    def __init__(self, run: RunDir, loop: Loop, program: Program) -> None:
        self._run = run
        self._loop = loop
        self._around = Surroundings(loop, program, run.runtime, self._announce)
        self._containers: dict[str, Container] = {}
        self._peers: list[Peer] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def take_over(self, handed: dict[str, dict[str, int]]) -> None:
        """Every container on disk goes on; descriptors of containers that are gone are closed."""
        for name in os.listdir(self._run.containers):
            if os.path.exists(f"{self._run.container(name)}/spec.json") and "." not in name:
                fds = handed.pop(name, {})
                try:
                    container = self._containers[name] = Container(self._around, self._run.container(name))
                    container.adopt(fds.get("pidfd", -1), fds.get("terminal", -1))
                except Exception:  # one that cannot be read must not cost the others their monitor
                    traceback.print_exc(file=sys.stderr)
        for fds in handed.values():
            for fd in fds.values():
                os.close(fd)

    def listen(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._run.socket)
        self._listener.bind(self._run.socket)
        self._listener.listen(16)
        self._listener.setblocking(False)
        self._loop.watch(self._listener.fileno(), self._on_connection)

    def _on_connection(self, events: int) -> None:
        sock, _ = self._listener.accept()
        peer = Peer(self._loop, sock, self._on_message)
        peer.on_gone = self._peers.remove
        self._peers.append(peer)

    def _announce(self, state: Message) -> None:
        for peer in tuple(self._peers):
            peer.send({"event": "state", "state": state})

    def _on_message(self, peer: Peer, message: Message, fds: list[int]) -> None:
        def reply(error: str = "", with_fds: Sequence[int] = (), **values: Any) -> None:
            peer.send({"reply": message["number"], "error": error, **values}, with_fds)

        try:
            getattr(self, f"_do_{message['do']}")(peer, message, fds, reply)
        except NoSuchContainer as error:
            reply(error=str(error))
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            reply(error=f"monitor: {type(error).__name__}: {error}")

    def _find(self, message: Message) -> Container:
        """Also one whose folder has come since. Raises NoSuchContainer."""
        container_id = message["id"]
        container = self._containers.get(container_id)
        if container is None:
            if not os.path.exists(f"{self._run.container(container_id)}/spec.json"):
                raise NoSuchContainer(f"container {container_id} does not exist")
            container = self._containers[container_id] = Container(self._around, self._run.container(container_id))
        return container

    # ── requests: what `client` may ask ──────────────────────────────────────────────────────────

    def _do_list(self, peer: Peer, message: Message, fds: list[int], reply: Any) -> None:
        reply(containers=[container.public() for container in self._containers.values()])

    def _do_load(self, peer: Peer, message: Message, fds: list[int], reply: Any) -> None:
        known = message["id"] in self._containers
        container = self._find(message)
        if not known:
            self._announce(container.public())
        reply()

    def _do_start(self, peer: Peer, message: Message, fds: list[int], reply: Any) -> None:
        self._find(message).start(reply)

    def _do_signal(self, peer: Peer, message: Message, fds: list[int], reply: Any) -> None:
        self._find(message).signal(message["signal"])
        reply()

    def _do_kill(self, peer: Peer, message: Message, fds: list[int], reply: Any) -> None:
        self._find(message).kill(reply)

    def _do_remove(self, peer: Peer, message: Message, fds: list[int], reply: Any) -> None:
        container = self._containers.get(message["id"])
        if container is None:
            reply()
            return

        def on_removed(error: str = "") -> None:
            if not error:
                self._containers.pop(message["id"], None)
            reply(error=error)

        container.remove(on_removed)

    def _do_keep(self, peer: Peer, message: Message, fds: list[int], reply: Any) -> None:
        """Descriptors for the agent to keep, so that a container's last words outlive this process."""
        container = self._find(message)
        held = {"pidfd": container.pidfd, **container.stdio.held()}
        names = [name for name, fd in held.items() if fd >= 0]
        reply(names=names, with_fds=[held[name] for name in names])

    def _do_attach(self, peer: Peer, message: Message, fds: list[int], reply: Any) -> None:
        container = self._find(message)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        entrance = container.stdio.terminal if container.stdio.terminal >= 0 else container.stdio.stdin
        with theirs:
            reply(with_fds=[theirs.fileno(), *([entrance] if entrance >= 0 else [])])
        container.stdio.attach(ours)

    def _do_finish_stdin(self, peer: Peer, message: Message, fds: list[int], reply: Any) -> None:
        self._find(message).finish_stdin()
        reply()

    def _do_exec(self, peer: Peer, message: Message, fds: list[int], reply: Any) -> None:
        container = self._find(message)
        if container.state != "running":
            for fd in fds:
                os.close(fd)
            reply(error=f"container {container.id} is {container.state}, not running")
            return

        def on_started(error: str, terminal: int) -> None:
            if error:
                peer.executions.pop(execution.number, None)
            reply(error=error, execution=execution.number, with_fds=[terminal] if terminal >= 0 else [])

        def on_exit(code: int) -> None:
            peer.executions.pop(execution.number, None)
            peer.send({"event": "exec", "execution": execution.number, "exit_code": code})

        execution = Execution(self._around, container, on_started, on_exit)
        peer.executions[execution.number] = execution
        try:
            execution.start(message["process"], fds)
        except OSError as error:
            on_started(f"{container.id}: {error}", -1)

    def _do_exec_kill(self, peer: Peer, message: Message, fds: list[int], reply: Any) -> None:
        execution = peer.executions.get(message["execution"])
        if execution is not None:
            execution.kill()
        reply()

    def _do_pause(self, peer: Peer, message: Message, fds: list[int], reply: Any) -> None:
        reply(pid=hold_pid_namespace(self._run.sandbox(message["pod_uid"]), message["procs"]))


def _detach() -> int:
    """Go on as an orphan in a session of its own. The starter's process waits for one byte on what is returned."""
    source, target = os.pipe()
    if os.fork():
        os.close(target)
        os._exit(0 if os.read(source, 1) else 1)
    os.close(source)
    os.setsid()
    return target


def _lock(run: RunDir) -> bool:
    """False if another monitor has it. Held until this process ends."""
    fd = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    os.pwrite(fd, f"{os.getpid():<10}\n".encode(), 0)  # over the last one: that takes no room on a full disk
    return True


class _Complaints:
    """Standard error that never fails: the log may lie on the very disk that is full."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="replace"))
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def _redirect(run: RunDir) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.stat(run.log).st_size > _LOG_BYTES:
            os.rename(run.log, f"{run.log}.1")
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number, fd in enumerate((null, log, log)):
        os.dup2(fd, number)
    os.close(null)
    os.close(log)
    sys.stderr = cast(TextIO, _Complaints())


def _forget_other_boot(run: RunDir) -> None:
    now = kernel.boot_id()
    if read_json(run.boot_id) not in (None, now):
        for folder in (run.containers, run.sandboxes, run.runtime, run.filters):
            shutil.rmtree(folder, ignore_errors=True)
        run.make()
    if read_json(run.boot_id) != now:
        write_json(run.boot_id, now)


def _handed_over(argv: Sequence[str]) -> dict[str, dict[str, int]]:
    if len(argv) < 3:
        return {}
    with open(int(argv[2])) as file:
        handed: dict[str, dict[str, int]] = json.load(file)
    return handed


def _close_others(wanted: set[int]) -> None:
    """Whatever else the starter has let through, knowingly or not."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in wanted:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(fd)
    for fd in wanted:
        os.set_inheritable(fd, False)


def main(argv: Sequence[str]) -> int:
    run = RunDir(os.path.abspath(argv[1]))
    run.make()
    handed = _handed_over(argv)
    _close_others({fd for fds in handed.values() for fd in fds.values()})
    ready = _detach()
    if not _lock(run):
        os.write(ready, b"r")  # somebody else is the monitor: connect to that one
        return 0
    _redirect(run)
    _forget_other_boot(run)
    kernel.set_process_name("dure-shim")
    kernel.become_subreaper()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    loop = Loop()
    shim = Shim(run, loop, Program(**read_json(run.monitor)))
    shim.take_over(handed)
    shim.listen()
    os.write(ready, b"r")
    os.close(ready)
    loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
