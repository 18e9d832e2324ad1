"""cgroups of pods and containers on v1, hybrid and v2 hosts.

The OCI runtime makes and limits the container's cgroup; the pod's above it is made here, and so are usage, kills and
removal. Paths are absolute below each hierarchy's root (`/dure/<node>/<qos>/<uid>/<container>`), whatever cgroup this
process is in. Linux Documentation/admin-guide/cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from dure.core.errors import ConfigError
from dure.node.ports import Resources, Usage

Mode = Literal["v1", "hybrid", "v2"]

_UNLIMITED_SHARES = 2


@dataclass(frozen=True)
class Hierarchies:
    """Where cgroups are mounted."""

    mode: Mode
    controllers: dict[str, str]
    """v1 controller → mount point; empty on v2."""
    roots: tuple[str, ...]
    """Every mount point that can hold a cgroup of ours, v2 included."""
    unified: str = ""
    """The v2 mount point."""


def parse_hierarchies(mounts: str, cgroups: str) -> Hierarchies:
    """From /proc/mounts and /proc/cgroups. Raises ConfigError if there are no cgroups."""
    known = {line.split()[0] for line in cgroups.splitlines() if line and not line.startswith("#")}
    controllers: dict[str, str] = {}
    roots: list[str] = []
    unified = ""
    for line in mounts.splitlines():
        _, point, kind, options, *_ = line.split()
        if kind == "cgroup" and point not in roots:
            roots.append(point)
            controllers.update({name: point for name in options.split(",") if name in known})
        elif kind == "cgroup2" and not unified:
            unified = point
            roots.append(point)
    if not roots:
        raise ConfigError("no cgroup file system is mounted", "mount -t cgroup2 none /sys/fs/cgroup")
    mode: Mode = "v2" if not controllers else "hybrid" if unified else "v1"
    return Hierarchies(mode, controllers, tuple(roots), unified)


def find_hierarchies() -> Hierarchies:
    return parse_hierarchies(Path("/proc/mounts").read_text(), Path("/proc/cgroups").read_text())


@dataclass(frozen=True)
class Signs:
    """Where the monitor looks for a container's processes and for a kill by lack of memory."""

    procs: tuple[str, ...]
    oom: tuple[str, str]


class Cgroups(Protocol):
    """What differs between v1 and v2."""

    def ensure(self, path: str, resources: Resources | None = None) -> None:
        """Make a cgroup: with limits one that holds others, without one that holds processes."""
        ...

    def update(self, path: str, resources: Resources) -> None: ...

    def usage(self, path: str) -> Usage | None: ...

    def signs(self, path: str) -> Signs: ...

    def pids(self, path: str) -> list[int]:
        """Every process in it and below."""
        ...

    def kill(self, path: str) -> int:
        """SIGKILL to every process in it and below; how many there were."""
        ...

    def remove(self, path: str) -> bool:
        """Drop it and all below; False while something still lives in it."""
        ...


def open_cgroups(hierarchies: Hierarchies) -> Cgroups:
    return CgroupsV2(hierarchies) if hierarchies.mode == "v2" else CgroupsV1(hierarchies)


class _Trees:
    """What works alike on every hierarchy."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        self._hierarchies = hierarchies

    def pids(self, path: str) -> list[int]:
        found: set[int] = set()
        for root in self._hierarchies.roots:
            for folder in _bottom_up(f"{root}{path}"):
                found.update(_read_numbers(f"{folder}/cgroup.procs"))
        return sorted(found)

    def kill(self, path: str) -> int:
        pids = self.pids(path)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids)

    def remove(self, path: str) -> bool:
        gone = True
        for root in self._hierarchies.roots:
            for folder in _bottom_up(f"{root}{path}"):
                try:
                    os.rmdir(folder)
                except FileNotFoundError:
                    continue
                except OSError:
                    gone = False
        return gone


class CgroupsV1(_Trees):
    """One hierarchy a controller; also on hybrid hosts, whose v2 side holds nothing we limit."""

    _pod_controllers = ("cpu", "cpuacct", "memory", "pids")

    def _file(self, controller: str, path: str, name: str) -> str:
        root = self._hierarchies.controllers.get(controller, "")
        return f"{root}{path}/{name}" if root else ""

    def ensure(self, path: str, resources: Resources | None = None) -> None:
        for controller in self._pod_controllers:
            root = self._hierarchies.controllers.get(controller)
            if root:
                os.makedirs(f"{root}{path}", exist_ok=True)
        if resources is not None:
            self.update(path, resources)

    def update(self, path: str, resources: Resources) -> None:
        period = resources.cpu_period or 100_000
        _write(self._file("cpu", path, "cpu.shares"), max(resources.cpu_shares, _UNLIMITED_SHARES))
        _write(self._file("cpu", path, "cpu.cfs_period_us"), period)
        _write(self._file("cpu", path, "cpu.cfs_quota_us"), resources.cpu_quota or -1)
        _write(self._file("memory", path, "memory.limit_in_bytes"), resources.memory_bytes or -1)
        _write(self._file("pids", path, "pids.max"), resources.pids or "max")

    def usage(self, path: str) -> Usage | None:
        cpu = _read_numbers(self._file("cpuacct", path, "cpuacct.usage"))
        memory = _read_numbers(self._file("memory", path, "memory.usage_in_bytes"))
        if not cpu or not memory:
            return None
        inactive = _read_field(self._file("memory", path, "memory.stat"), "total_inactive_file")
        return Usage(cpu[0], max(0, memory[0] - inactive))

    def signs(self, path: str) -> Signs:
        for controller in ("pids", "memory", "cpu"):
            procs = self._file(controller, path, "cgroup.procs")
            if procs:
                break
        return Signs((procs,) if procs else (), (self._file("memory", path, "memory.oom_control"), "oom_kill"))


class CgroupsV2(_Trees):
    """One hierarchy; a controller must be handed down at every step of the way."""

    def _path(self, path: str) -> str:
        return f"{self._hierarchies.unified}{path}"

    def ensure(self, path: str, resources: Resources | None = None) -> None:
        root = self._hierarchies.unified
        available = _read_text(f"{root}/cgroup.controllers").split()
        wanted = [name for name in ("cpuset", "cpu", "io", "memory", "pids") if name in available]
        folder = root
        for part in ["", *path.strip("/").split("/")]:
            folder = f"{folder}/{part}" if part else folder
            os.makedirs(folder, exist_ok=True)
            if folder == self._path(path) and resources is None:
                return  # a cgroup with processes cannot hand controllers on
            for name in wanted:  # one by one: a controller that is refused does not take the others along
                _write(f"{folder}/cgroup.subtree_control", f"+{name}")
        if resources is not None:
            self.update(path, resources)

    def update(self, path: str, resources: Resources) -> None:
        folder = self._path(path)
        period = resources.cpu_period or 100_000
        _write(f"{folder}/cpu.weight", cpu_weight(resources.cpu_shares))
        _write(f"{folder}/cpu.max", f"{resources.cpu_quota or 'max'} {period}")
        _write(f"{folder}/memory.max", resources.memory_bytes or "max")
        _write(f"{folder}/pids.max", resources.pids or "max")

    def usage(self, path: str) -> Usage | None:
        folder = self._path(path)
        if not os.path.isdir(folder):
            return None
        memory = _read_numbers(f"{folder}/memory.current")
        inactive = _read_field(f"{folder}/memory.stat", "inactive_file")
        cpu = _read_field(f"{folder}/cpu.stat", "usage_usec")
        return Usage(cpu * 1000, max(0, (memory[0] if memory else 0) - inactive))

    def signs(self, path: str) -> Signs:
        folder = self._path(path)
        return Signs((f"{folder}/cgroup.procs",), (f"{folder}/memory.events", "oom_kill"))

    def kill(self, path: str) -> int:
        count = len(self.pids(path))
        if not _write(f"{self._path(path)}/cgroup.kill", 1):
            return super().kill(path)
        return count


def cpu_weight(shares: int) -> int:
    """v2's 1..10000 for v1's 2..262144."""
    shares = min(max(shares, 2), 262144)
    return 1 + (shares - 2) * 9999 // 262142


def _bottom_up(folder: str) -> Iterator[str]:
    for current, _, _ in os.walk(folder, topdown=False):
        yield current


def _write(path: str, value: object) -> bool:
    """False where the kernel has no such file or refuses: a limit that cannot be had does not stop a pod."""
    if not path:
        return False
    try:
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, str(value).encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _read_text(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _read_numbers(path: str) -> list[int]:
    return [int(word) for word in _read_text(path).split() if word.isdigit()]


def _read_field(path: str, name: str) -> int:
    return _field(_read_text(path).splitlines(), name)


def _field(lines: Iterable[str], name: str) -> int:
    for line in lines:
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
