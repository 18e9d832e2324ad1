"""The end of everything of one instance: monitor, containers, mounts, cgroups, files.

Works on what the kernel shows (cgroups, mounts) rather than on records, so it also ends what a crash left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
from pathlib import Path

from dure.node.runtimes.oci import kernel
from dure.node.runtimes.oci.cgroups import Cgroups
from dure.node.runtimes.oci.layout import RunDir

_GONE_WITHIN_SECONDS = 10.0


async def destroy(run: RunDir, cgroups: Cgroups, instance: str) -> None:
    """Raises TimeoutError if a process does not die."""
    async with asyncio.timeout(_GONE_WITHIN_SECONDS):
        # while it lives the monitor reaps what is killed; without it, what it was just starting is killed too
        while cgroups.kill(f"/{instance}"):  # noqa: ASYNC110 -- v1 has no event for an empty cgroup
            await asyncio.sleep(0.01)
        await _kill_monitor(run)
        # the kernel lets a cgroup go a moment after its last process; v1 has no event for that
        while not cgroups.remove(f"/{instance}"):
            cgroups.kill(f"/{instance}")
            await asyncio.sleep(0.01)
        _unmount_below(run.root)
        shutil.rmtree(run.root, ignore_errors=True)


def monitor_pid(run_root: str) -> int:
    """The pid of the monitor that holds this folder; 0 if none does."""
    path = RunDir(run_root).lock
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(fd, 32) or 0)
    finally:
        os.close(fd)
    return 0


async def _kill_monitor(run: RunDir) -> None:
    pid = monitor_pid(run.root)
    if not pid:
        return
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, ended.set)
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _unmount_below(root: str) -> None:
    """The deepest and latest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    real = os.path.realpath(root)  # the kernel lists no links
    for point in reversed(points):
        if point.startswith(f"{real}/"):
            with contextlib.suppress(OSError):
                kernel.unmount(point)
