"""Which node a pod goes to, or why to none: pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dure.scheduler.filters import feasible, reasons
from dure.scheduler.matrix import NodeMatrix
from dure.scheduler.needs import Needs
from dure.scheduler.scores import score


@dataclass(frozen=True, slots=True)
class Verdict:
    """The chosen node, or the message that says why there is none."""

    node: str = ""
    message: str = ""


def choose(matrix: NodeMatrix, needs: Needs, tie: int = 0) -> Verdict:
    """The best node for the pod; `tie` picks among equals."""
    if not len(matrix):
        return Verdict(message="no nodes available to schedule pods")
    able = feasible(matrix, needs)
    rows = np.flatnonzero(able)
    if not len(rows):
        detail = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons(matrix, needs).items()))
        return Verdict(message=f"0/{len(matrix)} nodes are available: {detail}.")
    if len(rows) == 1:
        return Verdict(node=matrix.names[rows[0]])
    scores = score(matrix, needs, able)[rows]
    best = rows[scores >= scores.max() - 1e-9]
    return Verdict(node=matrix.names[best[tie % len(best)]])
