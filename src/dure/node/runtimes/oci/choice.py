"""Which OCI runtime works on this host, and what it must not ask the kernel for.

`read_host` looks, `choose` decides. Found by measurement: crun refuses a hybrid host unless the v2 side is covered;
on v2 crun needs CAP_SYS_RESOURCE for its device program and runc does not; without that capability both fail on a
lower oom_score_adj than their own.
"""

from __future__ import annotations

import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

from dure.core.errors import ConfigError
from dure.node.runtimes.oci.cgroups import Mode, find_hierarchies
from dure.node.runtimes.oci.shim_spawn import Program

_CAP_SYS_RESOURCE = 24
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Host:
    """What the choice and every container's configuration depend on."""

    cgroup_mode: Mode
    unified: str
    crun: str
    runc: str
    capabilities: int
    """Bit mask of what this process may hand on."""
    oom_score_adj: int
    """Our own; without CAP_SYS_RESOURCE none below it."""
    open_files: int
    """The hard limit."""

    @property
    def may_exceed(self) -> bool:
        """CAP_SYS_RESOURCE: limits and oom scores beyond our own."""
        return bool(self.capabilities >> _CAP_SYS_RESOURCE & 1)


def read_host() -> Host:
    hierarchies = find_hierarchies()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return Host(
        cgroup_mode=hierarchies.mode,
        unified=hierarchies.unified,
        crun=shutil.which("crun", path=_PATH) or "",
        runc=shutil.which("runc", path=_PATH) or "",
        capabilities=int(status["CapPrm"], 16) & int(status["CapBnd"], 16),
        oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    )


def choose(host: Host) -> Program:
    """crun where it works, for a third of the time and CPU; else runc. Raises ConfigError."""
    if host.crun and not (host.cgroup_mode == "v2" and not host.may_exceed):
        return Program(host.crun, "crun", hide=host.unified if host.cgroup_mode == "hybrid" else "")
    if host.runc:
        return Program(host.runc, "runc")
    if host.crun:
        raise ConfigError("crun does not work here without CAP_SYS_RESOURCE on cgroup v2", "apt-get install runc")
    raise ConfigError("no OCI runtime is installed", "apt-get install crun")
