"""Which nodes can take a pod, why the others cannot, and which of them is best: pure.

Filters and scores are those of upstream's default profile, in upstream's words.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dure.api.selectors import Requirement
from dure.scheduler.matrix import Mask, NodeMatrix, Numbers
from dure.scheduler.needs import CPU, MEMORY, Needs, NodeTerm, Spread

Scores = npt.NDArray[np.float64]

_WILDCARD = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The chosen node, or the message that says why there is none."""

    node: str = ""
    message: str = ""


def choose(matrix: NodeMatrix, needs: Needs, tie: int = 0) -> Verdict:
    """The best node for the pod; `tie` picks among equals."""
    total = len(matrix)
    if total == 0:
        return Verdict(message="no nodes available to schedule pods")
    reasons: Counter[str] = Counter()
    feasible = _filter(matrix, needs, reasons)
    if not feasible.any():
        detail = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        return Verdict(message=f"0/{total} nodes are available: {detail}.")
    rows = np.flatnonzero(feasible)
    if len(rows) == 1:
        return Verdict(node=matrix.names[rows[0]])
    scores = _score(matrix, needs, rows)
    best = rows[scores >= scores.max() - 1e-9]
    return Verdict(node=matrix.names[best[tie % len(best)]])


def _filter(matrix: NodeMatrix, needs: Needs, reasons: Counter[str]) -> Mask:
    left = matrix.alive.copy()

    def narrow(keep: Mask, reason: str) -> None:
        lost = int((left & ~keep).sum())
        if lost:
            reasons[reason] += lost
        np.logical_and(left, keep, out=left)

    if matrix.unschedulable.any() and not _tolerates(
        needs, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    ):
        narrow(~matrix.unschedulable, "node(s) were unschedulable")
    _filter_taints(matrix, needs, left, reasons)
    if needs.node_selector or needs.node_terms is not None:
        narrow(_node_affinity(matrix, needs), "node(s) didn't match Pod's node affinity/selector")
    if needs.host_ports:
        narrow(_free_ports(matrix, needs, left), "node(s) didn't have free ports for the requested pod ports")
    _filter_resources(matrix, needs, left, reasons)
    for spread in needs.spreads:
        if spread.hard:
            codes, _ = matrix.domains(spread.term.topology_key)
            narrow(codes >= 0, "node(s) didn't match pod topology spread constraints (missing required label)")
            narrow(_within_skew(matrix, needs, spread), "node(s) didn't match pod topology spread constraints")
    _filter_pod_affinity(matrix, needs, left, reasons)
    return left


def _tolerates(needs: Needs, taint: dict[str, str]) -> bool:
    return any(toleration.tolerates(taint) for toleration in needs.tolerations)


def _filter_taints(matrix: NodeMatrix, needs: Needs, left: Mask, reasons: Counter[str]) -> None:
    for row in np.flatnonzero(left & matrix.tainted):
        for taint in matrix.taints[row]:
            if taint.get("effect") == "PreferNoSchedule" or _tolerates(needs, taint):
                continue
            left[row] = False
            reasons[f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value') or ''}}}"] += 1
            break


def _term_mask(matrix: NodeMatrix, term: NodeTerm) -> Mask:
    mask = matrix.alive.copy()
    if not term.labels and not term.fields:
        return np.zeros_like(mask)
    for requirement in term.labels:
        mask &= _label_mask(matrix, requirement)
    for requirement in term.fields:
        mask &= matrix.mask(("field", requirement), lambda _, name, r=requirement: r.matches({r.key: name}))  # type: ignore[misc]
    return mask


def _label_mask(matrix: NodeMatrix, requirement: Requirement) -> Mask:
    return matrix.mask(requirement, lambda labels, _: requirement.matches(labels))


def _node_affinity(matrix: NodeMatrix, needs: Needs) -> Mask:
    mask = matrix.alive.copy()
    for key, value in needs.node_selector.items():
        mask &= _label_mask(matrix, Requirement(key, "In", frozenset({value})))
    if needs.node_name:
        only = np.zeros_like(mask)
        row = matrix.row(needs.node_name)
        if row is not None:
            only[row] = True
        return mask & only
    if needs.node_terms is not None:
        any_term = np.zeros_like(mask)
        for term in needs.node_terms:
            any_term |= _term_mask(matrix, term)
        mask &= any_term
    return mask


def _free_ports(matrix: NodeMatrix, needs: Needs, left: Mask) -> Mask:
    mask = matrix.alive.copy()
    for row in np.flatnonzero(left):
        taken = matrix.ports[row]
        mask[row] = not any(_ports_clash(want, held) for want in needs.host_ports for held in taken)
    return mask


def _ports_clash(want: tuple[str, str, int], held: tuple[str, str, int]) -> bool:
    same = want[1:] == held[1:]
    return same and (want[0] == held[0] or _WILDCARD in (want[0], held[0]))


def _filter_resources(matrix: NodeMatrix, needs: Needs, left: Mask, reasons: Counter[str]) -> None:
    fits = matrix.alive.copy()
    for resource, amount in needs.requests.items():
        if not amount:
            continue
        column = matrix.column(resource)
        enough = matrix.allocatable[:, column] - matrix.used[:, column] >= amount
        lost = int((left & ~enough).sum())
        if lost:
            reasons["Too many pods" if resource == "pods" else f"Insufficient {resource}"] += lost
        fits &= enough
    np.logical_and(left, fits, out=left)


def _eligible(matrix: NodeMatrix, needs: Needs) -> Mask:
    """Nodes that count as domains of a spread: those the pod's node affinity admits."""
    if needs.node_selector or needs.node_terms is not None:
        return _node_affinity(matrix, needs)
    return matrix.alive


def _within_skew(matrix: NodeMatrix, needs: Needs, spread: Spread) -> Mask:
    codes, domains = matrix.domains(spread.term.topology_key)
    counted = _eligible(matrix, needs) & (codes >= 0)
    if not counted.any():
        return np.zeros(len(codes), np.bool_)
    count = matrix.counts(spread.term)
    sums = np.bincount(codes[counted], weights=count[counted], minlength=domains)
    present = np.unique(codes[counted])
    lowest = 0 if len(present) < spread.min_domains else sums[present].min()
    own = 1 if spread.term.covers(needs.namespace, needs.labels) else 0
    here = np.where(codes >= 0, sums[np.maximum(codes, 0)], 0)
    return (codes >= 0) & (here + own - lowest <= spread.max_skew)


def _filter_pod_affinity(matrix: NodeMatrix, needs: Needs, left: Mask, reasons: Counter[str]) -> None:
    def narrow(keep: Mask, reason: str) -> None:
        lost = int((left & ~keep).sum())
        if lost:
            reasons[reason] += lost
        np.logical_and(left, keep, out=left)

    for term in needs.affinity:
        count = matrix.counts(term)
        near = matrix.per_domain(term, count) > 0
        first = not count.any() and term.covers(needs.namespace, needs.labels)
        codes, _ = matrix.domains(term.topology_key)
        narrow((codes >= 0) if first else near, "node(s) didn't match pod affinity rules")
    for term in needs.anti_affinity:
        narrow(matrix.per_domain(term, matrix.counts(term)) == 0, "node(s) didn't match pod anti-affinity rules")
    for term, held in matrix.repelling().items():
        if term.covers(needs.namespace, needs.labels) and held.any():
            away = matrix.per_domain(term, held) == 0
            narrow(away, "node(s) didn't satisfy existing pods anti-affinity rules")


def _score(matrix: NodeMatrix, needs: Needs, rows: Numbers) -> Scores:
    scores = _least_allocated(matrix, needs, rows) + _balanced(matrix, needs, rows)
    scores += 3 * _taint_preference(matrix, needs, rows)
    if needs.preferred_nodes:
        scores += 2 * _preferred_nodes(matrix, needs, rows)
    soft = [spread for spread in needs.spreads if not spread.hard]
    if soft:
        scores += 2 * _spread_score(matrix, soft, rows)
    if needs.preferred_affinity:
        scores += 2 * _preferred_affinity(matrix, needs, rows)
    return scores


def _fractions(matrix: NodeMatrix, needs: Needs, rows: Numbers) -> Scores:
    columns = np.array([matrix.column(CPU), matrix.column(MEMORY)])
    wants = np.array([max(needs.requests.get(CPU, 0), 100), max(needs.requests.get(MEMORY, 0), 200 << 20)])
    cells = np.ix_(rows, columns)
    shares: Scores = np.clip((matrix.used[cells] + wants) / np.maximum(matrix.allocatable[cells], 1), 0, 1)
    return shares


def _least_allocated(matrix: NodeMatrix, needs: Needs, rows: Numbers) -> Scores:
    return np.asarray((1 - _fractions(matrix, needs, rows)).mean(axis=1) * 100)


def _balanced(matrix: NodeMatrix, needs: Needs, rows: Numbers) -> Scores:
    return np.asarray((1 - _fractions(matrix, needs, rows).std(axis=1)) * 100)


def _normalised(raw: Scores, *, reverse: bool = False) -> Scores:
    top = raw.max(initial=0)
    if top == 0:
        return np.full(len(raw), 100.0) if reverse else raw
    scaled: Scores = raw * 100 / top
    return 100 - scaled if reverse else scaled


def _taint_preference(matrix: NodeMatrix, needs: Needs, rows: Numbers) -> Scores:
    raw = np.zeros(len(rows))
    for index, row in enumerate(rows):
        raw[index] = sum(
            taint.get("effect") == "PreferNoSchedule" and not _tolerates(needs, taint) for taint in matrix.taints[row]
        )
    return _normalised(raw, reverse=True)


def _preferred_nodes(matrix: NodeMatrix, needs: Needs, rows: Numbers) -> Scores:
    raw = np.zeros(len(matrix.alive))
    for term in needs.preferred_nodes:
        raw += term.weight * _term_mask(matrix, term)
    return _normalised(raw[rows])


def _spread_score(matrix: NodeMatrix, spreads: list[Spread], rows: Numbers) -> Scores:
    raw = np.zeros(len(rows))
    for spread in spreads:
        _codes, domains = matrix.domains(spread.term.topology_key)
        weight = np.log(domains + 2)
        raw += matrix.per_domain(spread.term, matrix.counts(spread.term))[rows] * weight
    low, high = raw.min(), raw.max()
    return np.full(len(rows), 100.0) if high == low else np.asarray(100 * (high - raw) / (high - low))


def _preferred_affinity(matrix: NodeMatrix, needs: Needs, rows: Numbers) -> Scores:
    raw = np.zeros(len(matrix.alive))
    for term in needs.preferred_affinity:
        raw += term.weight * matrix.per_domain(term, matrix.counts(term))
    here = raw[rows]
    low, high = here.min(), here.max()
    return np.zeros(len(rows)) if high == low else np.asarray(100 * (here - low) / (high - low))
