"""Whether what was applied has come to be, and what it still waits for: pure, from objects as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dure.api.meta import condition, controller_of, name_of
from dure.core.json import Obj

WORKLOADS = {
    "Deployment": "deployments.apps",
    "ReplicaSet": "replicasets.apps",
    "Job": "jobs.batch",
    "Pod": "pods",
    "Service": "services",
    "PersistentVolumeClaim": "persistentvolumeclaims",
}
"""Kinds that have something to wait for."""

_HOPELESS = {"ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"}


def waiting_for(obj: Obj) -> str:
    """What the object still lacks, empty when it is as asked."""
    match obj["kind"]:
        case "Deployment":
            return _deployment(obj)
        case "ReplicaSet":
            wanted = int(obj["spec"].get("replicas", 1))
            ready = int((obj.get("status") or {}).get("readyReplicas") or 0)
            return "" if ready >= wanted else f"{ready}/{wanted} ready"
        case "Job":
            done = condition(obj, "Complete")
            return "" if done and done["status"] == "True" else "running"
        case "Pod":
            phase = (obj.get("status") or {}).get("phase")
            known = condition(obj, "Ready")
            fine = phase == "Succeeded" or (known and known["status"] == "True")
            return "" if fine else str(phase or "Pending")
        case "Service":
            return "" if obj["spec"].get("type") != "LoadBalancer" or addresses(obj) else "not published yet"
        case "PersistentVolumeClaim":
            return "" if (obj.get("status") or {}).get("phase") == "Bound" else "not bound yet"
    return ""


def _deployment(obj: Obj) -> str:
    status, wanted = obj.get("status") or {}, int(obj["spec"].get("replicas", 1))
    if int(status.get("observedGeneration") or 0) < int(obj["metadata"].get("generation") or 0):
        return "not seen yet"
    updated, ready = int(status.get("updatedReplicas") or 0), int(status.get("availableReplicas") or 0)
    if updated < wanted:
        return f"{updated}/{wanted} updated"
    if int(status.get("replicas") or 0) > updated:
        return f"{int(status['replicas']) - updated} old still there"
    return "" if ready >= wanted else f"{ready}/{wanted} ready"


def failure_of(obj: Obj) -> str:
    """Why it will never be as asked, empty when it still may."""
    failed = condition(obj, "Failed") if obj["kind"] == "Job" else None
    if failed and failed["status"] == "True":
        return str(failed.get("message") or failed.get("reason"))
    progressing = condition(obj, "Progressing") if obj["kind"] == "Deployment" else None
    current = int((obj.get("status") or {}).get("observedGeneration") or 0) >= int(
        obj["metadata"].get("generation") or 0
    )
    if current and progressing and progressing.get("reason") == "ProgressDeadlineExceeded":
        return str(progressing["message"])
    return ""


def trouble_of(pod: Obj) -> tuple[str, bool]:
    """What a pod's containers complain of, and whether time alone cannot mend it."""
    status = pod.get("status") or {}
    for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (entry.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason") or ""
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            text = f"{entry['name']}: {reason}"
            if waiting.get("message"):
                text += f": {waiting['message']}"
            if ended := (entry.get("lastState") or {}).get("terminated"):
                text += f"; it ended with {_ending(ended)}"
            return text, reason in _HOPELESS
    scheduled = condition(pod, "PodScheduled")
    if scheduled and scheduled["status"] == "False":
        return str(scheduled.get("message") or scheduled.get("reason")), False
    return "", False


def _ending(ended: dict[str, Any]) -> str:
    """As in `exit code 1 (Error): no database`; the message is what the container left, if anything."""
    text = f"exit code {ended.get('exitCode')} ({ended.get('reason') or 'Error'})"
    lines = str(ended.get("message") or "").strip().splitlines()
    return f"{text}: {lines[-1]}" if lines else text


def pods_of(obj: Obj, pods: Sequence[Obj], sets: Sequence[Obj]) -> list[Obj]:
    """The pods a workload stands for."""
    names = {name_of(obj)}
    if obj["kind"] == "Deployment":
        names = {name_of(item) for item in sets if (controller_of(item) or {}).get("name") == name_of(obj)}
    return [pod for pod in pods if (controller_of(pod) or {}).get("name") in names]


def addresses(service: Obj) -> list[str]:
    """URLs of a published LoadBalancer Service."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    found = []
    for entry in ingress:
        for port in service["spec"].get("ports") or []:
            found.append(_url(entry, port))
    return found


def _url(entry: dict[str, Any], port: dict[str, Any]) -> str:
    host = entry.get("ip") or entry.get("hostname")
    number = int(port["port"])
    if number == 443 or (port.get("appProtocol") or port.get("name")) == "https":
        return f"https://{host}" + ("" if number == 443 else f":{number}")
    return f"http://{host}" + ("" if number == 80 else f":{number}")
