"""What a node is told at its start and what all its rooms agree on: names, addresses, paths."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CONTAINER_ID_SCHEME = "dure://"

MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node. `home` is the platform's data folder; everything of the node lies below `nodes/<name>`."""

    name: str
    home: Path
    ip: str
    instance: str = "dure"
    pod_cidr: str = ""
    dns_ip: str = "10.96.0.10"
    cluster_domain: str = "cluster.local"
    access_port: int = 10250
    labels: Mapping[str, str] = field(default_factory=dict)
    cpus: int = 0
    """0 takes what the machine has."""
    memory_bytes: int = 0
    storage_bytes: int = 0
    max_pods: int = 110
    runtime_version: str = "dure://0.1.0"
    resolv_conf: Path = Path("/etc/resolv.conf")

    @property
    def root(self) -> Path:
        return self.home / "nodes" / self.name

    @property
    def allocatable(self) -> dict[str, str]:
        """What pods may have of the node, as quantities."""
        amounts = {"cpu": str(self.cpus), "memory": str(self.memory_bytes)}
        return amounts | ({"ephemeral-storage": str(self.storage_bytes)} if self.storage_bytes else {})

    def pod_dir(self, uid: str) -> Path:
        return self.root / "pods" / path_segment(uid)

    def log_dir(self, namespace: str, name: str, uid: str) -> Path:
        """The pod's folder of container logs, named as a kubelet names it."""
        return self.home / "logs" / "pods" / f"{path_segment(namespace)}_{path_segment(name)}_{path_segment(uid)}"

    def cgroup(self, qos: str, uid: str) -> str:
        return f"/{self.instance}/{self.name}/{qos.lower()}/{path_segment(uid)}"


def path_segment(text: str) -> str:
    """`text` if it can only ever be one segment of a path. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9_.]*", text):
        raise ValueError(f"{text!r} cannot be a path segment")
    return text


def machine_architecture() -> str:
    """In Go's names, as images and node labels have it."""
    return MACHINES.get(platform.machine(), platform.machine())


def machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
