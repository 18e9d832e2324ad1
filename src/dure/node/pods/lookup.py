"""Finds the container a client means, for logs, exec, attach and port-forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dure.core.errors import BadRequest, NotFound
from dure.core.json import Obj
from dure.node.model import NodeConfig
from dure.node.pods.container_files import ContainerFiles
from dure.node.pods.model import all_containers, container_named, is_alive, main_containers, reported_statuses
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
    waiting: str
    """Why it does not run: the reason in its status, empty when there is none."""
    log_path: str
    """Of the newest run."""
    previous_log_path: str
    """Of the run before; empty when there was none."""
    tty: bool
    stdin: bool
    stdin_once: bool
    host_network: bool


@dataclass(frozen=True, slots=True)
class PodTarget:
    """One pod, for port-forward."""

    uid: str
    host_network: bool


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
            waiting=_waiting_reason(worker.pod, name),
            log_path=str(files.log_path(name, attempt)),
            previous_log_path=str(files.log_path(name, attempt - 1)) if attempt > 0 else "",
            tty=bool(entry.get("tty")),
            stdin=bool(entry.get("stdin")),
            stdin_once=bool(entry.get("stdinOnce")),
            host_network=worker.operations.on_host_network,
        )

    def resolve_pod(self, namespace: str, pod: str) -> PodTarget:
        """Raises NotFound."""
        worker = self._find(namespace, pod, "")
        return PodTarget(worker.operations.uid, worker.operations.on_host_network)

    def _find(self, namespace: str, pod: str, uid: str) -> PodWorker:
        # a pod that is already gone from the API may still be ending under the name of its successor
        for worker in sorted(self._workers.values(), key=lambda worker: worker.is_gone):
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


def _reported(pod: Obj, name: str) -> Obj:
    return next((entry for entry in reported_statuses(pod) if entry.get("name") == name), {})


def _reported_attempt(pod: Obj, name: str) -> int:
    return int(_reported(pod, name).get("restartCount") or 0)


def _waiting_reason(pod: Obj, name: str) -> str:
    waiting = (_reported(pod, name).get("state") or {}).get("waiting") or {}
    return str(waiting.get("reason") or "")
