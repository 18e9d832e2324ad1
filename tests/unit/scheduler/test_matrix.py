"""The node matrix: rows of nodes, columns of resources, both growing as they are met."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dure.scheduler.matrix import NodeMatrix
from dure.scheduler.needs import GroupTerm, Needs, compile_needs


def node(name: str, **offered: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi", **offered}}}


def test_resource_never_seen_before_gets_a_column() -> None:
    """Symptom: `index 4 is out of bounds for axis 1 with size 4`, and nothing was ever placed on that node."""
    matrix = NodeMatrix()
    matrix.put_node(node("plain"))
    matrix.put_node(node("special", **{"example.com/gpu": "3"}))
    row = matrix.row("special")
    assert row is not None
    assert matrix.allocatable("example.com/gpu")[row] == 3


def labelled(name: str, app: str, zone: str) -> tuple[Needs, GroupTerm, GroupTerm]:
    """What the pod asks, and its group by host and by zone."""
    selector = {"matchLabels": {"app": app}}
    terms = [{"topologyKey": key, "labelSelector": selector} for key in ("host", "zone")]
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    container = {"resources": {"requests": {"cpu": "1"}}}
    meta = {"name": name, "namespace": "default", "labels": {"app": app, "zone": zone}}
    needs = compile_needs({"metadata": meta, "spec": {"containers": [container], "affinity": affinity}})
    return needs, needs.anti_affinity[0], needs.anti_affinity[1]


STEPS = st.lists(st.tuples(st.sampled_from("pnxl"), st.integers(0, 7), st.integers(0, 4)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_what_is_counted_on_the_way_is_what_a_fresh_count_gives(steps: list[tuple[str, int, int]]) -> None:
    """Pods come and go, nodes come, go and change zone: sums kept up to date equal sums made anew."""
    kept, nodes, pods = NodeMatrix(), dict[str, str](), dict[str, tuple[str, str]]()
    for step, first, second in steps:
        name, app = f"n{second}", f"app{first % 3}"
        if step == "p" and name in nodes:
            pods[f"p{first}"] = (name, app)
            kept.put_pod(f"p{first}", name, labelled(f"p{first}", app, "")[0])
        elif step == "x":
            pods.pop(f"p{first}", None)
            kept.remove_pod(f"p{first}")
        elif step == "l":
            nodes.pop(name, None)
            pods = {key: value for key, value in pods.items() if value[0] != name}
            kept.remove_node(name)
        elif step == "n":
            nodes[name] = f"z{first % 2}"
            kept.put_node(zoned(name, nodes[name]))
        assert view(kept, nodes) == view(afresh(nodes, pods), nodes)


def zoned(name: str, zone: str) -> dict[str, Any]:
    made = node(name)
    made["metadata"]["labels"] = {"host": name, "zone": zone}
    return made


def afresh(nodes: dict[str, str], pods: dict[str, tuple[str, str]]) -> NodeMatrix:
    matrix = NodeMatrix()
    for name, zone in nodes.items():
        matrix.put_node(zoned(name, zone))
    for key, (name, app) in pods.items():
        matrix.put_pod(key, name, labelled(key, app, "")[0])
    return matrix


def view(matrix: NodeMatrix, nodes: dict[str, str]) -> list[Any]:
    """All that placing looks at, node by node."""
    found: list[Any] = []
    for app in ("app0", "app1", "app2"):
        needs, by_host, by_zone = labelled("any", app, "")
        repelling = list(matrix.repelling("default", needs.labels))
        for name in sorted(nodes):
            row = matrix.row(name)
            assert row is not None
            counts = [int(matrix.near(term)[row]) for term in (by_host, by_zone)]
            carriers = sorted(int(item[row]) for item in repelling)
            found.append((app, name, counts, carriers, int(matrix.used("cpu")[row]), int(matrix.used("pods")[row])))
    return found
