"""The first process of a PID namespace that several containers share.

It is forked from the monitor, so it shares the monitor's memory and needs no program in any image: an empty root, no
descriptors, no privileges. With SIGCHLD ignored the kernel reaps the orphans it inherits.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from dure.node.runtimes.oci import kernel
from dure.node.runtimes.oci.layout import read_json, write_json
from dure.node.runtimes.oci.shim_spawn import reset_signals

_NOBODY = 65534


def hold_pid_namespace(folder: str, cgroup_procs: Sequence[str]) -> int:
    """The pid of the holder for the sandbox in `folder`, started if it does not run."""
    path = f"{folder}/pause.json"
    known = read_json(path)
    if known and kernel.is_alive(known["pid"], known["ticks"]):
        return int(known["pid"])
    pid = _start(folder, cgroup_procs)
    write_json(path, {"pid": pid, "ticks": kernel.start_ticks(pid)})
    return pid


def _start(folder: str, cgroup_procs: Sequence[str]) -> int:
    source, target = os.pipe()
    between = os.fork()
    if between == 0:
        _leave_pid_namespace(folder, cgroup_procs, target)
    os.close(target)
    with open(source) as file:
        text = file.read()
    os.waitpid(between, 0)
    if not text.isdigit():
        raise OSError(f"no process for the shared PID namespace: {text or 'it ended at once'}")
    if not kernel.is_alive(int(text), kernel.start_ticks(int(text))):
        raise OSError("the process for the shared PID namespace ended at once")
    return int(text)


def _leave_pid_namespace(folder: str, cgroup_procs: Sequence[str], target: int) -> None:
    """In the first child: never returns. What it writes is the holder's pid, or why there is none."""
    try:
        for path in cgroup_procs:
            with open(path, "w") as file:
                file.write("0")
        kernel.unshare(kernel.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            _pause(folder)
        os.write(target, str(pid).encode())
    except BaseException as error:
        os.write(target, str(error).encode())
    os._exit(0)


def _pause(folder: str) -> None:
    """In the holder: never returns."""
    try:
        os.setsid()
        reset_signals()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        kernel.set_process_name("dure-pause")
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC)
        kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("none", folder, "tmpfs", kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
        kernel.pivot_root(folder)
        kernel.renounce_privileges()
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        os.closerange(0, 1 << 16)
        while True:
            signal.pause()
    finally:
        os._exit(1)
