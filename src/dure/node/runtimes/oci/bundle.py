"""A container's folder: configuration, pipes and records, made beside its name and renamed into place."""

from __future__ import annotations

import os
import shutil
import stat
import time
from dataclasses import asdict

from dure.core.json import loads
from dure.node.ports import ContainerSpec, SandboxSpec, Security
from dure.node.runtimes.oci.cgroups import Cgroups
from dure.node.runtimes.oci.choice import Host
from dure.node.runtimes.oci.filters import CompiledFilters
from dure.node.runtimes.oci.layout import RunDir, write_json
from dure.node.runtimes.oci.spec import Config, Device, Joined, build_config, container_cgroup


class Bundles:
    """Writes what the monitor and the OCI runtime read."""

    def __init__(self, run: RunDir, host: Host, cgroups: Cgroups, filters: CompiledFilters) -> None:
        self._run = run
        self._host = host
        self._cgroups = cgroups
        self._filters = filters

    def write(self, spec: ContainerSpec, sandbox: SandboxSpec, namespaces: Joined) -> None:
        """Raises OSError; a folder that is there is complete."""
        folder = self._run.container(spec.id)
        scratch = f"{folder}.new"
        shutil.rmtree(scratch, ignore_errors=True)
        os.mkdir(scratch, 0o700)
        config = self._config(spec, sandbox, namespaces)
        self._filters.annotate(spec.id, config)
        write_json(f"{scratch}/config.json", config)
        self._make_pipes(spec, scratch)
        write_json(f"{scratch}/state.json", {"state": "created", "created_at": time.time_ns()})
        signs = self._cgroups.signs(container_cgroup(sandbox, spec.id))
        own_pid_namespace = not namespaces.pid and not sandbox.host_pid
        written = {**asdict(spec), "own_pid_namespace": own_pid_namespace}
        write_json(f"{scratch}/spec.json", {"spec": written, "cgroup": asdict(signs)})
        os.rename(scratch, folder)

    def _make_pipes(self, spec: ContainerSpec, scratch: str) -> None:
        for name in ("stdout", "stderr", *(["stdin"] if spec.stdin else [])):
            os.mkfifo(f"{scratch}/{name}", 0o600)
            # so that the container's own user may open /dev/stdout again
            os.chown(f"{scratch}/{name}", spec.security.uid, spec.security.gid)

    def _config(self, spec: ContainerSpec, sandbox: SandboxSpec, namespaces: Joined) -> Config:
        paths = host_device_paths() if spec.security.privileged else spec.devices
        return build_config(
            spec,
            sandbox,
            namespaces,
            self._host,
            devices=[device for path in paths if (device := read_device(path)) is not None],
            seccomp=_read_profile(spec.security),
            machine=os.uname().machine,
        )


def _read_profile(security: Security) -> Config | None:
    if security.privileged or security.seccomp in ("RuntimeDefault", "Unconfined"):
        return None
    with open(security.seccomp, "rb") as file:
        profile: Config = loads(file.read())
    return profile


def read_device(path: str) -> Device | None:
    """None if there is no device node at `path`."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISCHR(found.st_mode) and not stat.S_ISBLK(found.st_mode):
        return None
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b"
    number = found.st_rdev
    mode = stat.S_IMODE(found.st_mode)
    return Device(path, kind, os.major(number), os.minor(number), mode, found.st_uid, found.st_gid)


def host_device_paths() -> list[str]:
    """Every device of the host, for a privileged container; terminals and shared memory are its own."""
    own = {"pts", "shm", "mqueue", "console", "ptmx", "fd", "stdin", "stdout", "stderr"}
    found = []
    for folder, folders, files in os.walk("/dev"):
        folders[:] = [name for name in folders if name not in own]
        found += [f"{folder}/{name}" for name in files if name not in own and not os.path.islink(f"{folder}/{name}")]
    return sorted(found)
