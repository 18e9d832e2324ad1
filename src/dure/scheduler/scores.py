"""How well each node would suit a pod, 0 to 100 by each view, weighted as in upstream's default profile: pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dure.scheduler.filters import term_mask, tolerates
from dure.scheduler.matrix import Mask, NodeMatrix
from dure.scheduler.needs import CPU, MEMORY, Needs, Spread

Scores = npt.NDArray[np.float64]

_LEAST_CPU, _LEAST_MEMORY = 100, 200 << 20
"""What a pod that asks for nothing is taken to need."""


def score(matrix: NodeMatrix, needs: Needs, able: Mask) -> Scores:
    """Of every node; only those that are `able` mean anything."""
    scores = _resources(matrix, needs)
    if matrix.disliked.any():
        scores += 3 * _fewest_disliked(matrix, needs, able)
    if needs.preferred_nodes:
        scores += 2 * _preferred_nodes(matrix, needs, able)
    soft = [spread for spread in needs.spreads if not spread.hard]
    if soft:
        scores += 2 * _spread(matrix, soft, able)
    if needs.preferred_affinity:
        scores += 2 * _preferred_affinity(matrix, needs, able)
    return scores


def _resources(matrix: NodeMatrix, needs: Needs) -> Scores:
    """Most room left (LeastAllocated), and cpu and memory used alike (BalancedAllocation)."""
    cpu = _share(matrix, CPU, max(needs.requests.get(CPU, 0), _LEAST_CPU))
    memory = _share(matrix, MEMORY, max(needs.requests.get(MEMORY, 0), _LEAST_MEMORY))
    scores: Scores = 200 - 50 * (cpu + memory) - 50 * np.abs(cpu - memory)
    return scores


def _share(matrix: NodeMatrix, resource: str, wanted: int) -> Scores:
    share: Scores = (matrix.used(resource) + wanted) * matrix.inverse(resource)
    return np.minimum(share, 1, out=share)


def _of_most(raw: Scores, able: Mask) -> Scores:
    """0 to 100 in proportion to the largest."""
    top = raw[able].max(initial=0)
    scores: Scores = raw * (100 / top) if top else raw
    return scores


def _between(raw: Scores, able: Mask, *, fewer_is_better: bool) -> Scores | float:
    """0 to 100 from the worst to the best."""
    shown = raw[able]
    low, high = shown.min(), shown.max()
    if low == high:
        return 0.0
    scores: Scores = (high - raw if fewer_is_better else raw - low) * (100 / (high - low))
    return scores


def _fewest_disliked(matrix: NodeMatrix, needs: Needs, able: Mask) -> Scores:
    raw = np.zeros(len(able))
    for row in np.flatnonzero(able & matrix.disliked):
        raw[row] = sum(
            taint.get("effect") == "PreferNoSchedule" and not tolerates(needs, taint) for taint in matrix.taints[row]
        )
    return 100 - _of_most(raw, able)


def _preferred_nodes(matrix: NodeMatrix, needs: Needs, able: Mask) -> Scores:
    raw = np.zeros(len(able))
    for term in needs.preferred_nodes:
        raw += term.weight * term_mask(matrix, term)
    return _of_most(raw, able)


def _spread(matrix: NodeMatrix, spreads: Sequence[Spread], able: Mask) -> Scores | float:
    raw = np.zeros(len(able))
    for spread in spreads:
        weight = np.log(matrix.domains(spread.term.topology_key).count + 2)
        raw += matrix.near(spread.term) * weight
    return _between(raw, able, fewer_is_better=True)


def _preferred_affinity(matrix: NodeMatrix, needs: Needs, able: Mask) -> Scores | float:
    raw = np.zeros(len(able))
    for term in needs.preferred_affinity:
        raw += term.weight * matrix.near(term)
    return _between(raw, able, fewer_is_better=False)
