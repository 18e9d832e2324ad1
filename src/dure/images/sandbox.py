"""Run one command inside a workspace while an image is made: crun or runc, host network, Docker's capabilities.

What the host needs for reaching its package sources (name servers, apt's proxy and certificates) is lent through
mounts below /dev, which is no part of any layer, and so leaves no trace in the image.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dure.core.aio import finish
from dure.core.json import Obj, dumps
from dure.images.errors import ImageError
from dure.images.kernel import open_in_root
from dure.images.workshop import Workspace

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LENT = "/dev/.build"
"""Where lent files appear inside."""
_UNIFIED = Path("/sys/fs/cgroup/unified")
_LINE_LIMIT = 1 << 16
_CAPABILITIES = [
    *("CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD"),
    *(
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ),
]
"""Docker's default set."""


@dataclass(frozen=True, slots=True)
class Command:
    """`lent` maps paths below `/dev/.build` (or absolute folders of the image) to host paths, read-only.

    `caches` maps absolute folders to host folders that may be written; `memory` are folders kept in memory.
    """

    args: Sequence[str]
    env: Mapping[str, str]
    working_dir: str = "/"
    uid: int = 0
    gid: int = 0
    groups: Sequence[int] = ()
    lent: Mapping[str, str] = field(default_factory=dict)
    caches: Mapping[str, str] = field(default_factory=dict)
    memory: Sequence[str] = ()
    network: bool = True
    """The host's; False leaves only a loopback."""


async def run_command(workspace: Workspace, command: Command, output: Callable[[str], None]) -> int:
    """Run to the end, giving `output` each line; the exit code. Killed if cancelled. Raises ImageError."""
    name = f"build-{uuid.uuid4().hex[:12]}"
    bundle = workspace.folder / name
    state = workspace.folder / f"{name}-state"
    stubs = _missing_targets(workspace)
    bundle.mkdir()
    (bundle / "config.json").write_bytes(dumps(_bundle_config(workspace.root, command)))
    runtime = _runtime_command(find_runtime(), state)
    process = await asyncio.create_subprocess_exec(
        *runtime, "run", "--bundle", str(bundle), name,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        limit=_LINE_LIMIT,
    )  # fmt: skip
    try:
        await _forward_lines(process, output)
        return await process.wait()
    finally:
        await finish(_end(process, runtime, name), within=20)
        for folder in (bundle, state):
            shutil.rmtree(folder, ignore_errors=True)
        _remove_stubs(workspace.upper, stubs)


async def _forward_lines(process: asyncio.subprocess.Process, output: Callable[[str], None]) -> None:
    assert process.stdout is not None
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:  # longer than the limit: asyncio has dropped what it held
            continue
        if not line:
            return
        text = line.decode(errors="replace").rstrip("\r\n")
        output(text.rpartition("\r")[2])  # of a progress bar, its end


async def _end(process: asyncio.subprocess.Process, runtime: Sequence[str], name: str) -> None:
    """Nothing of the container is left, however it ended."""
    if process.returncode is not None:
        return
    killer = await asyncio.create_subprocess_exec(
        *runtime, "delete", "--force", name, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    await killer.wait()
    if process.returncode is None:
        process.kill()
    await process.wait()


def find_runtime() -> str:
    """The path of crun or runc. Raises ImageError."""
    for name in ("crun", "runc"):
        found = shutil.which(name)
        if found:
            return found
    raise ImageError("no container runtime: install crun or runc (apt-get install crun)")


def _runtime_command(runtime: str, state: Path) -> list[str]:
    command = [runtime, "--root", str(state)]
    if not runtime.endswith("crun"):
        return command
    command.append("--cgroup-manager=disabled")
    if not os.path.ismount(_UNIFIED):
        return command
    # crun refuses a host with both cgroup versions: hide the second one from it
    hide = f'mount -t tmpfs none {_UNIFIED} && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", hide, "sh", *command]


def _missing_targets(workspace: Workspace) -> list[str]:
    """Mount points the runtime will make in the upper folder, the deepest first."""
    wanted = ["etc/resolv.conf", "etc/hosts", "etc", "proc", "sys", "dev"]
    return [path for path in wanted if not os.path.lexists(workspace.root / path)]


def _remove_stubs(upper: Path, stubs: Sequence[str]) -> None:
    """Take away what only the mounts needed; what the command has put there belongs to the image."""
    root_fd = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for stub in stubs:
            folder, _, name = stub.rpartition("/")
            with suppress(OSError):
                parent = open_in_root(root_fd, folder, os.O_PATH | os.O_DIRECTORY)
                try:
                    _remove_empty(parent, name)
                finally:
                    os.close(parent)
    finally:
        os.close(root_fd)


def _remove_empty(parent: int, name: str) -> None:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        os.rmdir(name, dir_fd=parent)
    elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
        os.unlink(name, dir_fd=parent)


def _bind(source: str, target: str, *, writable: bool = False) -> Obj:
    options = ["rbind", "rw" if writable else "ro", "nosuid", "nodev"]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def _mounts(command: Command) -> list[Obj]:
    mounts: list[Obj] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev", "mode=1777"]},
        {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro", "nosuid", "nodev"]},
    ]
    host = [_bind(path, path) for path in ("/etc/resolv.conf", "/etc/hosts") if Path(path).exists()]
    lent = [
        _bind(source, target if target.startswith("/") else f"{LENT}/{target}")
        for target, source in command.lent.items()
    ]
    caches = [_bind(source, target, writable=True) for target, source in command.caches.items()]
    memory = [{"destination": target, "type": "tmpfs", "source": "tmpfs"} for target in command.memory]
    return mounts + host + lent + caches + memory


def _bundle_config(root: Path, command: Command) -> Obj:
    env = {"PATH": DEFAULT_PATH, **command.env}
    kinds = ["bounding"] if command.uid else ["bounding", "effective", "permitted"]
    namespaces = ["pid", "ipc", "uts", "mount"] + ([] if command.network else ["network"])
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": command.uid, "gid": command.gid, "additionalGids": list(command.groups), "umask": 0o22},
            "args": list(command.args),
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": command.working_dir or "/",
            "capabilities": dict.fromkeys(kinds, _CAPABILITIES),
            "noNewPrivileges": False,
        },
        "root": {"path": str(root), "readonly": False},
        "hostname": "build",
        "mounts": _mounts(command),
        "linux": {
            "namespaces": [{"type": kind} for kind in namespaces],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def read_in_root(root: Path, path: str, limit: int = 1 << 20) -> bytes | None:
    """A file of an untrusted tree, links followed inside it; None if it is not there."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    finally:
        os.close(root_fd)
    with os.fdopen(fd, "rb") as file:
        return file.read(limit) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
