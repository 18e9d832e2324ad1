"""A pod's shared namespaces without a process to hold them.

A thread of its own unshares ipc and uts and bind-mounts them under the sandbox's folder, then ends: a thread that has
moved must never start others, for they would inherit where it is. The network namespace comes by path. Only a shared
PID namespace needs a process; the monitor forks it (`shim_pause`).

The folder is complete when `sandbox.json` is there; every step may be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dure.node.ports import Resources, RuntimeFailure, SandboxSpec
from dure.node.runtimes.oci import kernel
from dure.node.runtimes.oci.layout import RunDir, read_json, write_json
from dure.node.runtimes.oci.spec import Joined

_SHM_OPTIONS = "mode=1777,size=65536k"


def read_sandbox(run: RunDir, pod_uid: str) -> SandboxSpec | None:
    written = read_json(f"{run.sandbox(pod_uid)}/sandbox.json")
    return None if written is None else _decode(written)


def list_sandboxes(run: RunDir) -> list[SandboxSpec]:
    found = (read_sandbox(run, name) for name in sorted(os.listdir(run.sandboxes)))
    return [spec for spec in found if spec is not None]


def _decode(written: Mapping[str, Any]) -> SandboxSpec:
    return SandboxSpec(**{**written, "resources": Resources(**written["resources"])})


def joined(run: RunDir, spec: SandboxSpec) -> Joined:
    """The namespace files of a sandbox, for a container's configuration."""
    folder = run.sandbox(spec.pod_uid)
    return Joined(
        ipc="" if spec.host_ipc else f"{folder}/ipc",
        uts=f"{folder}/uts",
        pid=f"{folder}/pid" if spec.share_pid and not spec.host_pid else "",
        shm="/dev/shm" if spec.host_ipc else f"{folder}/shm",
    )


async def make_namespaces(run: RunDir, spec: SandboxSpec) -> None:
    """ipc, uts, /dev/shm and sysctls. Raises RuntimeFailure."""
    folder = run.sandbox(spec.pod_uid)
    os.makedirs(f"{folder}/shm", exist_ok=True)
    try:
        if not spec.host_ipc and not os.path.ismount(f"{folder}/shm"):
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            kernel.mount("shm", f"{folder}/shm", "tmpfs", flags, _SHM_OPTIONS)
        await _in_thread(lambda: _make(folder, spec))
    except OSError as error:
        raise RuntimeFailure(f"sandbox of pod {spec.namespace}/{spec.name}: {error}", "CreatePodSandbox") from error


def finish_sandbox(run: RunDir, spec: SandboxSpec) -> None:
    write_json(f"{run.sandbox(spec.pod_uid)}/sandbox.json", asdict(spec))


def join_pid_namespace(run: RunDir, spec: SandboxSpec, pid: int) -> None:
    _bind(f"/proc/{pid}/ns/pid", f"{run.sandbox(spec.pod_uid)}/pid")


def drop_namespaces(run: RunDir, pod_uid: str) -> None:
    """Unmount and forget; safe to repeat and on half a sandbox."""
    folder = run.sandbox(pod_uid)
    for name in ("ipc", "uts", "pid", "shm"):
        with contextlib.suppress(OSError):
            while True:  # once for every time it was mounted
                kernel.unmount(f"{folder}/{name}")
    shutil.rmtree(folder, ignore_errors=True)


def _make(folder: str, spec: SandboxSpec) -> None:
    """In the throw-away thread."""
    wanted = [name for name in ("uts", "ipc") if not (name == "ipc" and spec.host_ipc)]
    if not all(_is_namespace(f"{folder}/{name}") for name in wanted):
        kernel.unshare(kernel.CLONE_NEWUTS | (0 if spec.host_ipc else kernel.CLONE_NEWIPC))
        socket.sethostname(spec.hostname[:64])
        for name in wanted:
            _bind(f"/proc/self/task/{threading.get_native_id()}/ns/{name}", f"{folder}/{name}")
    if spec.sysctls:
        kernel.setns(spec.netns)
        if not spec.host_ipc:
            kernel.setns(f"{folder}/ipc")
        for name, value in spec.sysctls.items():
            Path("/proc/sys", name.replace(".", "/")).write_text(value)


def _bind(source: str, target: str) -> None:
    with contextlib.suppress(OSError):  # a namespace from an earlier, killed attempt
        kernel.unmount(target)
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    kernel.mount(source, target, flags=kernel.MS_BIND)


def _is_namespace(path: str) -> bool:
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/uts").st_dev
    except FileNotFoundError:
        return False


async def _in_thread(work: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        try:
            work()
        except BaseException as error:
            loop.call_soon_threadsafe(settle, error)
        else:
            loop.call_soon_threadsafe(settle, None)

    threading.Thread(target=run, name="dure-sandbox", daemon=True).start()
    await done
