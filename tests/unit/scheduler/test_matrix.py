"""The node matrix: rows of nodes, columns of resources, both growing as they are met."""

from __future__ import annotations

from typing import Any

from dure.scheduler.matrix import NodeMatrix


def node(name: str, **offered: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi", **offered}}}


def test_resource_never_seen_before_gets_a_column() -> None:
    """Symptom: `index 4 is out of bounds for axis 1 with size 4`, and nothing was ever placed on that node."""
    matrix = NodeMatrix()
    matrix.put_node(node("plain"))
    matrix.put_node(node("special", **{"example.com/gpu": "3"}))
    row = matrix.row("special")
    assert row is not None
    assert matrix.allocatable[row, matrix.column("example.com/gpu")] == 3
