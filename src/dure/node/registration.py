"""The Node object as a kubelet registers and keeps it. Pure."""

from __future__ import annotations

import os
import platform
from typing import Any

import dure
from dure.api.quantities import format_bytes
from dure.core.clock import rfc3339
from dure.core.json import Obj
from dure.node.model import NodeConfig, machine_architecture

PRESSURES = {
    "MemoryPressure": ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
}
KUBELET_VERSION = dure.KUBERNETES_VERSION


def node_labels(config: NodeConfig) -> dict[str, str]:
    architecture = machine_architecture()
    return {
        "beta.kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "kubernetes.io/hostname": config.name,
        "kubernetes.io/os": "linux",
        **config.labels,
    }


def new_node(config: NodeConfig) -> Obj:
    """Without its status, which has its own endpoint."""
    spec: Obj = {"providerID": f"dure://{config.instance}/{config.name}"}
    if config.pod_cidr:
        spec |= {"podCIDR": config.pod_cidr, "podCIDRs": [config.pod_cidr]}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": config.name, "labels": node_labels(config)},
        "spec": spec,
    }


def node_status(config: NodeConfig, old: Obj | None, now: float, *, boot_id: str, machine_id: str) -> dict[str, Any]:
    """The whole status; transition times are kept where the condition is unchanged."""
    amounts = {
        "cpu": str(config.cpus),
        "ephemeral-storage": format_bytes(config.storage_bytes),
        "hugepages-2Mi": "0",
        "memory": format_bytes(config.memory_bytes),
        "pods": str(config.max_pods),
    }
    return {
        "capacity": amounts,
        "allocatable": amounts,
        "addresses": [
            {"type": "InternalIP", "address": config.ip},
            {"type": "Hostname", "address": config.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.access_port}},
        "nodeInfo": node_info(config, boot_id, machine_id),
        "conditions": node_conditions((old or {}).get("status") or {}, rfc3339(now)),
    }


def node_conditions(old_status: dict[str, Any], now: str) -> list[dict[str, Any]]:
    old = {entry["type"]: entry for entry in old_status.get("conditions") or []}
    entries = [(kind, "False", *texts) for kind, texts in PRESSURES.items()]
    entries.append(("Ready", "True", "KubeletReady", "kubelet is posting ready status"))
    own = [_condition(old, now, *entry) for entry in entries]
    kinds = {entry["type"] for entry in own}
    return [*(entry for entry in old.values() if entry["type"] not in kinds), *own]


def _condition(
    old: dict[str, dict[str, Any]], now: str, kind: str, status: str, reason: str, message: str
) -> dict[str, Any]:
    before = old.get(kind) or {}
    since = before.get("lastTransitionTime", now) if before.get("status") == status else now
    return {
        "type": kind,
        "status": status,
        "lastHeartbeatTime": now,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    }


def node_info(config: NodeConfig, boot_id: str, machine_id: str) -> dict[str, str]:
    return {
        "architecture": machine_architecture(),
        "bootID": boot_id,
        "containerRuntimeVersion": config.runtime_version,
        "kernelVersion": os.uname().release,
        "kubeProxyVersion": "",
        "kubeletVersion": KUBELET_VERSION,
        "machineID": machine_id,
        "operatingSystem": "linux",
        "osImage": _os_image(),
        "systemUUID": machine_id,
    }


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def lease(config: NodeConfig, node_uid: str, renewed_at: str) -> Obj:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": config.name,
            "namespace": "kube-node-lease",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": config.name, "uid": node_uid}],
        },
        "spec": {"holderIdentity": config.name, "leaseDurationSeconds": 40, "renewTime": renewed_at},
    }
