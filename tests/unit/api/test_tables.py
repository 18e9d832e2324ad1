"""What `kubectl get` prints, row by row."""

# ruff: noqa: E501 - tables of whole rows, one a line
from __future__ import annotations

from typing import Any

import pytest

from dure.api.durations import human_duration
from dure.api.kinds import builtin_kinds
from dure.api.tables import make_table
from dure.core.clock import parse_rfc3339
from dure.core.json import Obj

KINDS = builtin_kinds()
NOW = parse_rfc3339("2026-01-01T01:00:00Z")
CREATED = "2026-01-01T00:55:00Z"


def row(resource: str, obj: Obj, *, wide: bool = False) -> list[Any]:
    """The cells kubectl would show."""
    meta = {"name": "x", "creationTimestamp": CREATED, **obj.get("metadata", {})}
    table = make_table(KINDS.resource(resource), [{**obj, "metadata": meta}], NOW)
    shown = [column["priority"] == 0 or wide for column in table["columnDefinitions"]]
    cells = table["rows"][0]["cells"]
    return [cell for cell, show in zip(cells, shown, strict=True) if show]


def heading(resource: str, *, wide: bool = False) -> list[str]:
    columns = make_table(KINDS.resource(resource), [], NOW)["columnDefinitions"]
    return [column["name"].upper() for column in columns if column["priority"] == 0 or wide]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-0.5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (192, "3m12s"), (600, "10m"),
        (10799, "179m"), (10800, "3h"), (11100, "3h5m"), (28800, "8h"), (172799, "47h"), (172800, "2d"),
        (176400, "2d1h"), (8 * 86400, "8d"), (729 * 86400, "729d"), (731 * 86400, "2y1d"), (3000 * 86400, "8y"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_headings() -> None:
    assert heading("pods") == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert heading("pods", wide=True)[5:] == ["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]
    assert heading("deployments.apps", wide=True) == [
        "NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR",
    ]  # fmt: skip
    assert heading("services", wide=True) == [
        "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR",
    ]  # fmt: skip
    assert heading("nodes", wide=True) == [
        "NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION",
        "CONTAINER-RUNTIME",
    ]  # fmt: skip
    assert heading("events") == ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert heading("jobs.batch") == ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"]
    assert heading("roles.rbac.authorization.k8s.io") == ["NAME", "CREATED AT"]
    assert heading("podcertificaterequests.certificates.k8s.io") == ["NAME", "AGE"]


def running(name: str = "c", restarts: int = 0, *, ready: bool = True, **last: Any) -> Obj:
    return {
        "name": name,
        "ready": ready,
        "restartCount": restarts,
        "state": {"running": {}},
        "lastState": last,
    }


def waiting(reason: str, restarts: int = 0) -> Obj:
    return {"name": "c", "restartCount": restarts, "state": {"waiting": {"reason": reason}}}


def ended(code: int, reason: str = "", **more: Any) -> Obj:
    return {"name": "c", "state": {"terminated": {"exitCode": code, "reason": reason, **more}}}


def pod_row(spec: Obj | None = None, metadata: Obj | None = None, **status: Any) -> list[Any]:
    obj = {"metadata": metadata or {}, "spec": spec or {"containers": [{"name": "c"}]}, "status": status}
    return row("pods", obj)[1:4]


def test_pods_at_work() -> None:
    assert pod_row(phase="Pending") == ["0/1", "Pending", "0"]
    assert pod_row(phase="Pending", containerStatuses=[waiting("ContainerCreating")])[1] == "ContainerCreating"
    assert pod_row(phase="Running", containerStatuses=[running()]) == ["1/1", "Running", "0"]
    assert pod_row(phase="Running", containerStatuses=[waiting("CrashLoopBackOff", 4)]) == [
        "0/1",
        "CrashLoopBackOff",
        "4",
    ]


def test_a_restart_says_when() -> None:
    status = running(restarts=3, terminated={"finishedAt": "2026-01-01T00:55:00Z"})
    assert pod_row(phase="Running", containerStatuses=[status]) == ["1/1", "Running", "3 (5m ago)"]


def test_pods_that_ended() -> None:
    assert pod_row(phase="Succeeded", containerStatuses=[ended(0, "Completed")])[1] == "Completed"
    assert pod_row(phase="Failed", containerStatuses=[ended(1, "Error")])[1] == "Error"
    assert pod_row(phase="Failed", containerStatuses=[ended(3)])[1] == "ExitCode:3"
    assert pod_row(phase="Failed", containerStatuses=[ended(137, signal=9)])[1] == "Signal:9"
    assert pod_row(phase="Failed", reason="Evicted")[1] == "Evicted"


def test_one_of_two_ended() -> None:
    spec = {"containers": [{"name": "a"}, {"name": "b"}]}
    statuses = [ended(0, "Completed"), running("b")]
    assert pod_row(spec, phase="Running", containerStatuses=statuses)[:2] == ["1/2", "NotReady"]
    ready = [{"type": "Ready", "status": "True"}]
    assert pod_row(spec, phase="Running", containerStatuses=statuses, conditions=ready)[1] == "Running"


def test_a_pod_that_is_being_deleted() -> None:
    assert pod_row(metadata={"deletionTimestamp": CREATED}, phase="Running")[1] == "Terminating"
    assert pod_row(metadata={"deletionTimestamp": CREATED}, phase="Running", reason="NodeLost")[1] == "Unknown"


def test_init_containers() -> None:
    spec = {"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "c"}]}
    started = {"name": "i", "state": {"running": {}}}
    assert pod_row(spec, phase="Pending", initContainerStatuses=[started])[1] == "Init:0/2"
    done = {"name": "i", "state": {"terminated": {"exitCode": 0}}}
    assert pod_row(spec, phase="Pending", initContainerStatuses=[done, started])[1] == "Init:1/2"
    failed = {"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    assert pod_row(spec, phase="Pending", initContainerStatuses=[failed])[1] == "Init:Error"
    assert pod_row(spec, phase="Pending", initContainerStatuses=[waiting("CrashLoopBackOff")])[1] == (
        "Init:CrashLoopBackOff"
    )


def test_a_sidecar_counts_as_a_container() -> None:
    spec = {"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "c"}]}
    sidecar = {"name": "s", "started": True, "ready": True, "restartCount": 1, "state": {"running": {}}}
    cells = pod_row(spec, phase="Running", initContainerStatuses=[sidecar], containerStatuses=[running()])
    assert cells == ["2/2", "Running", "1"]


def test_rows_of_ended_pods_are_marked() -> None:
    pod = {"metadata": {"name": "p"}, "status": {"phase": "Succeeded"}}
    table = make_table(KINDS.resource("pods"), [pod], NOW)
    assert table["rows"][0]["conditions"][0]["reason"] == "Completed"


@pytest.mark.parametrize(
    ("spec", "status", "cells"),
    [
        ({"type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [{"port": 80, "protocol": "TCP"}]}, {}, ["ClusterIP", "10.96.0.1", "<none>", "80/TCP"]),
        ({"type": "ClusterIP", "clusterIP": "None"}, {}, ["ClusterIP", "None", "<none>", "<none>"]),
        ({"type": "NodePort", "clusterIP": "10.96.0.1", "ports": [{"port": 80, "nodePort": 30080, "protocol": "UDP"}]}, {}, ["NodePort", "10.96.0.1", "<none>", "80:30080/UDP"]),
        ({"type": "LoadBalancer", "clusterIP": "10.96.0.1"}, {}, ["LoadBalancer", "10.96.0.1", "<pending>", "<none>"]),
        ({"type": "LoadBalancer", "clusterIP": "10.96.0.1"}, {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}, ["LoadBalancer", "10.96.0.1", "127.0.0.1", "<none>"]),
        ({"type": "ExternalName", "externalName": "e.com"}, {}, ["ExternalName", "<none>", "e.com", "<none>"]),
    ],
)  # fmt: skip
def test_services(spec: Obj, status: Obj, cells: list[str]) -> None:
    assert row("services", {"spec": spec, "status": status})[1:5] == cells


def test_deployments() -> None:
    template = {"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}}
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    status = {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}
    assert row("deployments.apps", {"spec": spec, "status": status}, wide=True) == [
        "x", "2/3", 3, 2, "5m", "a,b", "i,j", "app=web",
    ]  # fmt: skip


def test_nodes() -> None:
    node = {
        "metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "worker"}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.37.0"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        },
    }
    assert row("nodes", node, wide=True) == [
        "x", "Ready,SchedulingDisabled", "control-plane,worker", "5m", "v1.37.0", "10.0.0.1", "<none>", "<unknown>",
        "<unknown>", "<unknown>",
    ]  # fmt: skip


def test_jobs() -> None:
    spec = {"completions": 3, "template": {"spec": {"containers": []}}}
    status = {"succeeded": 1, "startTime": "2026-01-01T00:58:00Z"}
    assert row("jobs.batch", {"spec": spec, "status": status}) == ["x", "Running", "1/3", "2m", "5m"]
    status = {
        **status,
        "completionTime": "2026-01-01T00:58:30Z",
        "conditions": [{"type": "Complete", "status": "True"}],
    }
    assert row("jobs.batch", {"spec": spec, "status": status})[1:4] == ["Complete", "1/3", "30s"]


def test_events() -> None:
    event = {
        "type": "Warning",
        "reason": "BackOff",
        "message": "m\n",
        "involvedObject": {"kind": "Pod", "name": "p"},
        "firstTimestamp": "2026-01-01T00:50:00Z",
        "lastTimestamp": "2026-01-01T00:59:30Z",
        "count": 4,
        "source": {"component": "kubelet", "host": "n"},
    }
    assert row("events", event, wide=True) == [
        "30s", "Warning", "BackOff", "pod/p", "", "kubelet, n", "m", "10m", 4, "x",
    ]  # fmt: skip


def test_endpoints_are_shortened() -> None:
    addresses = [{"ip": f"10.0.0.{index}"} for index in range(1, 6)]
    subsets = [{"addresses": addresses, "ports": [{"port": 80}]}]
    assert row("endpoints", {"subsets": subsets})[1] == "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."
    assert row("endpoints", {})[1] == "<none>"


def test_other_kinds() -> None:
    assert row("configmaps", {"data": {"a": "b"}, "binaryData": {"c": "d"}}) == ["x", 2, "5m"]
    assert row("secrets", {"type": "Opaque", "data": {"a": "b"}}) == ["x", "Opaque", 1, "5m"]
    assert row("namespaces", {"status": {"phase": "Active"}}) == ["x", "Active", "5m"]
    subjects = [{"kind": "ServiceAccount", "name": "s", "namespace": "n"}, {"kind": "User", "name": "u"}]
    binding = {"roleRef": {"kind": "Role", "name": "r"}, "subjects": subjects}
    assert row("rolebindings.rbac.authorization.k8s.io", binding, wide=True) == ["x", "Role/r", "5m", "u", "", "n/s"]
    claim = {
        "spec": {"volumeName": "v", "storageClassName": "c"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
    }
    assert row("persistentvolumeclaims", claim) == ["x", "Bound", "v", "1Gi", "RWO", "c", "<unset>", "5m"]


def test_every_kinds_columns_stand_an_empty_object() -> None:
    for kind in KINDS:
        table = make_table(kind, [{"metadata": {"name": "x"}}], NOW)
        assert len(table["rows"][0]["cells"]) == len(table["columnDefinitions"])


def test_what_comes_with_each_row() -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": []}}
    kind = KINDS.resource("pods")
    assert make_table(kind, [pod], NOW, "Object")["rows"][0]["object"] == pod
    assert "object" not in make_table(kind, [pod], NOW, "None")["rows"][0]
    assert make_table(kind, [pod], NOW)["rows"][0]["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "p"},
    }
