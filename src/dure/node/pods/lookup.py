"""Finds the container a client means, for logs, exec, attach and port-forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dure.core.errors import BadRequest, NotFound
from dure.core.json import Obj
from dure.node.model import NodeConfig
from dure.node.pods.container_files import ContainerFiles
from dure.node.pods.model import all_containers, container_named, is_alive, main_containers
from dure.node.pods.worker import PodWorker

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True, slots=True)
class Target:
    """One container of one pod, as it is now."""

    pod_uid: str
    pod_ip: str
    container: str
    container_id: str
    """Of the newest run; empty when there was none."""
    running: bool
    log_path: str
    """Of the newest run."""
    previous_log_path: str
    """Of the run before; empty when there was none."""
    tty: bool
    stdin: bool
    stdin_once: bool
    netns: str = ""
    host_network: bool = False


class PodLookup:
    """Reads the workers of one node."""

    def __init__(self, config: NodeConfig, workers: Mapping[str, PodWorker]) -> None:
        self._config = config
        self._workers = workers

    def resolve(self, namespace: str, pod: str, container: str = "", *, uid: str = "") -> Target:
        """`container` may be empty: the pod's default one. Raises NotFound, BadRequest."""
        worker = self._find(namespace, pod, uid)
        entry = _container(worker.pod, container)
        name, state = entry["name"], worker.state
        runs = state.of(name)
        newest = runs[0] if runs else None
        files = ContainerFiles.of(self._config, worker.pod)
        attempt = newest.attempt if newest else _reported_attempt(worker.pod, name)
        return Target(
            pod_uid=worker.operations.uid,
            pod_ip=state.ip or str((worker.pod.get("status") or {}).get("podIP") or ""),
            container=name,
            container_id=newest.id if newest else "",
            running=newest is not None and is_alive(newest),
            log_path=str(files.log_path(name, attempt)),
            previous_log_path=str(files.log_path(name, attempt - 1)) if attempt > 0 else "",
            tty=bool(entry.get("tty")),
            stdin=bool(entry.get("stdin")),
            stdin_once=bool(entry.get("stdinOnce")),
            host_network=worker.operations.on_host_network,
        )

    def _find(self, namespace: str, pod: str, uid: str) -> PodWorker:
        for worker in self._workers.values():
            meta = worker.pod["metadata"]
            if meta["name"] == pod and meta.get("namespace", "") == namespace and uid in ("", meta["uid"]):
                return worker
        raise NotFound(f'pods "{pod}" not found', details={"name": pod, "kind": "pods"})


def _container(pod: Obj, name: str) -> Obj:
    if name:
        found = container_named(pod, name)
        if found is None:
            raise BadRequest(f"container {name} is not valid for pod {pod['metadata']['name']}")
        return found
    chosen = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    if chosen and (found := container_named(pod, chosen)) is not None:
        return found
    if len(main_containers(pod)) == 1:
        return main_containers(pod)[0]
    names = " ".join(item["name"] for item in all_containers(pod))
    raise BadRequest(f"a container name must be specified for pod {pod['metadata']['name']}, choose one of: [{names}]")


def _reported_attempt(pod: Obj, name: str) -> int:
    status = pod.get("status") or {}
    for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for entry in status.get(field) or []:
            if entry.get("name") == name:
                return int(entry.get("restartCount") or 0)
    return 0
