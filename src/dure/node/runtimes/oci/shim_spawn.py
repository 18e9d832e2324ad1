"""Starts runtime processes from the monitor, which has one thread and may therefore fork.

On a hybrid cgroup host crun needs a view without the v2 hierarchy: a mount namespace of its own in which an empty
tmpfs lies over it. Every other mount keeps its propagation, so volumes mounted later still come and go.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dure.node.runtimes.oci import kernel


@dataclass(frozen=True)
class Program:
    """The OCI runtime as `choice` found it; travels as JSON."""

    path: str
    name: str
    hide: str = ""
    """The v2 mount point to cover, or nothing."""

    def command(self, root: str, log: str, *args: str) -> list[str]:
        manager = ["--cgroup-manager=cgroupfs"] if self.name == "crun" else []
        return [self.path, *manager, f"--root={root}", f"--log={log}", "--log-format=json", *args]


def spawn(
    program: Program,
    argv: Sequence[str],
    stdio: tuple[int, int, int],
    before: Callable[[int], None] | None = None,
) -> int:
    """Start it with these descriptors as its first three. `before(pid)` runs before the program does; if this
    process dies in it, the program never runs."""
    gate, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        _become(program, argv, stdio, gate)
    os.close(gate)
    try:
        if before is not None:
            before(pid)
        os.write(go, b"g")
    finally:
        os.close(go)
    return pid


def _become(program: Program, argv: Sequence[str], stdio: tuple[int, int, int], gate: int) -> None:
    """In the child: never returns."""
    try:
        os.setsid()
        if not os.read(gate, 1):
            os._exit(126)
        reset_signals()
        for number, fd in enumerate(stdio):
            os.dup2(fd, number)
        if program.hide:
            _cover(program.hide)
        os.execve(argv[0], list(argv), {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
    except BaseException as error:
        os.write(2, f"{argv[0]}: {error}\n".encode())
    os._exit(126)


def reset_signals() -> None:
    """Python ignores SIGPIPE, and an ignored signal stays ignored through exec."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _cover(path: str) -> None:
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("", os.path.dirname(path), flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("none", path, "tmpfs")
