"""From a container's and its sandbox's wishes to an OCI `config.json`: pure.

OCI runtime specification 1.0.2, config.md and config-linux.md; defaults as a Kubernetes container runtime has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dure.node.ports import ContainerSpec, Mount, Resources, SandboxSpec, Security
from dure.node.runtimes.oci.cgroups import cpu_weight
from dure.node.runtimes.oci.choice import Host
from dure.node.runtimes.oci.seccomp import default_profile

Config = dict[str, Any]

_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = tuple(f"CAP_{name}" for name in _NAMES.split())
"""In the kernel's order: the index is the bit."""

_DEFAULT_NAMES = """
AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID
SYS_CHROOT
"""
_DEFAULT_CAPABILITIES = frozenset(f"CAP_{name}" for name in _DEFAULT_NAMES.split())
_MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OPEN_FILES = 1 << 20
_PROPAGATION_ORDER = ("private", "rslave", "rshared")


@dataclass(frozen=True)
class Device:
    """A device node of the host."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Joined:
    """Namespace files the container enters; empty means the host's, and for `pid` a new one of its own."""

    ipc: str
    uts: str
    pid: str
    shm: str
    """The pod's /dev/shm."""


def build_config(
    spec: ContainerSpec,
    sandbox: SandboxSpec,
    joined: Joined,
    host: Host,
    *,
    devices: Sequence[Device] = (),
    seccomp: Config | None = None,
    machine: str = "x86_64",
) -> Config:
    """`seccomp` is the profile the caller has read where `spec.security.seccomp` names a file."""
    security = spec.security
    capabilities = allowed_capabilities(security, host)
    linux: Config = {
        "cgroupsPath": container_cgroup(sandbox, spec.id),
        "namespaces": _namespaces(sandbox, joined, host),
        "resources": _resources(spec.resources, security, devices, host),
        "devices": [_device(device) for device in devices],
        "rootfsPropagation": _root_propagation(spec.mounts),
    }
    if not security.privileged and not security.unmasked_proc:
        linux["maskedPaths"], linux["readonlyPaths"] = _MASKED, _READ_ONLY
    profile = _seccomp(security, capabilities, seccomp, machine)
    if profile:
        linux["seccomp"] = profile
    return {
        "ociVersion": "1.0.2",
        "process": _process(spec, sandbox, capabilities, host),
        "root": {"path": spec.rootfs, "readonly": security.read_only_root},
        "mounts": _mounts(spec, joined, host),
        "linux": linux,
    }


def exec_process(config: Config, args: Sequence[str], *, tty: bool) -> Config:
    """`process.json` for another process in the container that was made from `config`."""
    process = dict(config["process"])
    env = process["env"]
    if tty and not any(entry.startswith("TERM=") for entry in env):
        env = [*env, "TERM=xterm"]
    return {**process, "args": list(args), "terminal": tty, "env": env}


def container_cgroup(sandbox: SandboxSpec, container_id: str) -> str:
    return f"{sandbox.cgroup}/{container_id}"


def allowed_capabilities(security: Security, host: Host) -> list[str]:
    """What the container gets: the defaults, added to and dropped from, but never more than this process has."""
    available = [name for bit, name in enumerate(CAPABILITIES) if host.capabilities >> bit & 1]
    added = {_capability(name) for name in security.add_capabilities}
    dropped = {_capability(name) for name in security.drop_capabilities}
    if security.privileged or "CAP_ALL" in added:
        wanted = set(available)
    else:
        wanted = set() if "CAP_ALL" in dropped else set(_DEFAULT_CAPABILITIES)
    if not security.privileged:
        wanted = (wanted | added) - (dropped - added)
    return [name for name in available if name in wanted]


def _capability(name: str) -> str:
    name = name.upper()
    return name if name.startswith("CAP_") else f"CAP_{name}"


def _process(spec: ContainerSpec, sandbox: SandboxSpec, capabilities: list[str], host: Host) -> Config:
    security = spec.security
    files = min(host.open_files, _OPEN_FILES)
    oom_score = spec.resources.oom_score_adj
    return {
        "terminal": spec.tty,
        "user": {"uid": security.uid, "gid": security.gid, "additionalGids": list(security.groups)},
        "args": list(spec.args),
        "env": _environment(spec, sandbox.hostname),
        "cwd": spec.working_dir or "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        "noNewPrivileges": security.no_new_privileges and not security.privileged,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": files, "hard": files}],
        "oomScoreAdj": oom_score if host.may_exceed else max(oom_score, host.oom_score_adj),
    }


def _environment(spec: ContainerSpec, hostname: str) -> list[str]:
    names = {entry.partition("=")[0] for entry in spec.env}
    defaults = [_PATH, f"HOSTNAME={hostname}", *(["TERM=xterm"] if spec.tty else [])]
    return [entry for entry in defaults if entry.partition("=")[0] not in names] + list(spec.env)


def _namespaces(sandbox: SandboxSpec, joined: Joined, host: Host) -> list[Config]:
    namespaces: list[Config] = [{"type": "mount"}, {"type": "network", "path": sandbox.netns}]
    namespaces.append({"type": "uts", "path": joined.uts})
    if joined.ipc:
        namespaces.append({"type": "ipc", "path": joined.ipc})
    if joined.pid:
        namespaces.append({"type": "pid", "path": joined.pid})
    elif not sandbox.host_pid:
        namespaces.append({"type": "pid"})
    if host.cgroup_mode == "v2":
        namespaces.append({"type": "cgroup"})
    return namespaces


def _mounts(spec: ContainerSpec, joined: Joined, host: Host) -> list[Config]:
    access = "rw" if spec.security.privileged else "ro"
    hidden = ["nosuid", "noexec", "nodev"]
    defaults = [
        _mount("/proc", "proc", "proc", hidden),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/dev/mqueue", "mqueue", "mqueue", hidden),
        _mount("/dev/shm", "bind", joined.shm, ["rbind", "rprivate", "nosuid", "nodev", "noexec", "rw"]),
        _mount("/sys", "sysfs", "sysfs", [*hidden, access]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*hidden, "relatime", access]),
    ]
    own = sorted(spec.mounts, key=lambda mount: mount.target.rstrip("/").count("/"))
    taken = {mount.target.rstrip("/") for mount in own}
    return [mount for mount in defaults if mount["destination"] not in taken] + [_bind(mount) for mount in own]


def _mount(destination: str, kind: str, source: str, options: list[str]) -> Config:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _bind(mount: Mount) -> Config:
    propagation = "rprivate" if mount.propagation == "private" else mount.propagation
    return _mount(mount.target, "bind", mount.source, ["rbind", propagation, "ro" if mount.read_only else "rw"])


def _root_propagation(mounts: Sequence[Mount]) -> str:
    """A mount can propagate only as far as the root does."""
    most = max((_PROPAGATION_ORDER.index(mount.propagation) for mount in mounts), default=0)
    return ("rprivate", "rslave", "shared")[most]


def _resources(resources: Resources, security: Security, devices: Sequence[Device], host: Host) -> Config:
    every = {"allow": security.privileged, "access": "rwm"}
    allowed = [
        {"allow": True, "type": device.kind, "major": device.major, "minor": device.minor, "access": "rwm"}
        for device in devices
        if not security.privileged
    ]
    cpu: dict[str, int] = {"shares": max(resources.cpu_shares, 2), "period": resources.cpu_period}
    if resources.cpu_quota:
        cpu["quota"] = resources.cpu_quota
    built: Config = {"devices": [every, *allowed], "cpu": cpu}
    if resources.memory_bytes:
        built["memory"] = {"limit": resources.memory_bytes}
    if resources.pids:
        built["pids"] = {"limit": resources.pids}
    if host.cgroup_mode == "v2":
        # shares are converted here, for the runtimes differ in their rounding
        built["unified"] = {"cpu.weight": str(cpu_weight(cpu.pop("shares"))), "memory.oom.group": "1"}
    return built


def _device(device: Device) -> Config:
    return {
        "path": device.path,
        "type": device.kind,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }


def _seccomp(
    security: Security, capabilities: Sequence[str], profile: Mapping[str, Any] | None, machine: str
) -> Config | None:
    if security.privileged or security.seccomp == "Unconfined":
        return None
    if security.seccomp == "RuntimeDefault":
        return default_profile(capabilities, machine)
    return dict(profile or {})
