"""Placing one pod on a matrix of nodes."""

from typing import Any

from dure.scheduler.matrix import NodeMatrix
from dure.scheduler.needs import compile_needs
from dure.scheduler.rules import choose


def node(name: str, *, cpu: str = "4", memory: str = "8Gi", **spec: Any) -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": name, **spec.pop("labels", {})}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": "110"}},
    }


def pod(name: str = "p", *, cpu: str = "100m", labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "resources": {"requests": {"cpu": cpu}}}
    return {
        "metadata": {"name": name, "namespace": "default", "labels": labels or {}},
        "spec": {"containers": [container], **spec},
    }


def matrix(*nodes: dict[str, Any]) -> NodeMatrix:
    made = NodeMatrix()
    for item in nodes:
        made.put_node(item)
    return made


def place(made: NodeMatrix, item: dict[str, Any]) -> str:
    """Chooses, charges, and returns the node or the message."""
    verdict = choose(made, compile_needs(item))
    if verdict.node:
        made.put_pod(item["metadata"]["name"], verdict.node, compile_needs(item))
    return verdict.node or verdict.message


def test_no_node_at_all() -> None:
    assert place(matrix(), pod()) == "no nodes available to schedule pods"


def test_pod_goes_where_there_is_most_room() -> None:
    made = matrix(node("small", cpu="1"), node("large", cpu="8"))
    assert place(made, pod()) == "large"


def test_message_counts_each_reason() -> None:
    taint = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
    made = matrix(node("a", cpu="1"), node("b", taints=[taint]), node("c", unschedulable=True))
    assert place(made, pod(cpu="2")) == (
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {dedicated: db}, "
        "1 node(s) were unschedulable."
    )


def test_a_node_that_lacks_two_resources_says_both() -> None:
    item = pod(cpu="8")
    item["spec"]["containers"][0]["resources"]["requests"]["memory"] = "64Gi"
    made = matrix(node("a"), node("b", memory="128Gi"))
    assert place(made, item) == "0/2 nodes are available: 1 Insufficient memory, 2 Insufficient cpu."


def test_nodes_that_would_rather_not_are_taken_last() -> None:
    taint = {"key": "spot", "effect": "PreferNoSchedule"}
    made = matrix(node("spot", taints=[taint]), node("plain"))
    assert [place(made, pod(str(number))) for number in range(3)] == ["plain"] * 3


def test_toleration_opens_a_tainted_node() -> None:
    taint = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
    toleration = {"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoSchedule"}
    assert place(matrix(node("b", taints=[taint])), pod(tolerations=[toleration])) == "b"


def test_node_selector_and_affinity() -> None:
    made = matrix(node("plain"), node("fast", labels={"disk": "ssd"}))
    assert place(made, pod(nodeSelector={"disk": "ssd"})) == "fast"
    term = {"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    assert place(made, pod("q", affinity={"nodeAffinity": required})) == "plain"


def test_host_port_is_held_by_one_pod_a_node() -> None:
    made = matrix(node("a"))
    ported = pod("one")
    ported["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 8080}]
    again = {**ported, "metadata": {**ported["metadata"], "name": "two"}}
    assert place(made, ported) == "a"
    assert "didn't have free ports" in place(made, again)


def test_hard_spread_keeps_the_skew() -> None:
    made = matrix(node("a", labels={"zone": "1"}), node("b", labels={"zone": "2"}, cpu="1"))
    constraint = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    items = [pod(str(n), labels={"app": "web"}, topologySpreadConstraints=[constraint]) for n in range(4)]
    assert sorted(place(made, item) for item in items) == ["a", "a", "b", "b"]


def test_pods_of_one_owner_spread_by_default() -> None:
    made = matrix(node("a"), node("b"))
    owner = {"kind": "ReplicaSet", "name": "web", "uid": "1", "controller": True}
    items = [pod(str(n), labels={"app": "web"}) for n in range(4)]
    for item in items:
        item["metadata"]["ownerReferences"] = [owner]
    assert sorted(place(made, item) for item in items) == ["a", "a", "b", "b"]


def test_anti_affinity_holds_both_ways() -> None:
    made = matrix(node("a"))
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}
    against = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    assert place(made, pod("first", labels={"app": "db"}, affinity=against)) == "a"
    assert "anti-affinity" in place(made, pod("second", labels={"app": "db"}))
    assert "anti-affinity" in place(made, pod("third", labels={"app": "db"}, affinity=against))


def test_affinity_follows_the_group_and_may_start_it() -> None:
    made = matrix(node("a"), node("b"))
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}
    near = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    first = place(made, pod("first", labels={"app": "web"}, affinity=near))
    assert first in ("a", "b")
    assert place(made, pod("second", labels={"app": "web"}, affinity=near)) == first


def test_removed_pod_gives_its_room_back() -> None:
    made = matrix(node("a", cpu="1"))
    assert place(made, pod("one", cpu="1")) == "a"
    assert place(made, pod("two", cpu="1")) == "0/1 nodes are available: 1 Insufficient cpu."
    made.remove_pod("one")
    assert place(made, pod("two", cpu="1")) == "a"


def test_init_containers_count_at_their_peak() -> None:
    item = pod(cpu="100m")
    item["spec"]["initContainers"] = [{"name": "i", "resources": {"requests": {"cpu": "2"}}}]
    assert compile_needs(item).requests == {"cpu": 2000, "pods": 1}


def test_extended_resource_is_a_column_like_any_other() -> None:
    made = matrix(node("a"))
    item = pod()
    item["spec"]["containers"][0]["resources"]["requests"]["example.com/gpu"] = "1"
    assert place(made, item) == "0/1 nodes are available: 1 Insufficient example.com/gpu."
