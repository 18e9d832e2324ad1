"""Which nodes can take a pod, each filter with the reason it gives for the others: pure.

Filters are those of upstream's default profile, in upstream's words and order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dure.api.selectors import Requirement
from dure.scheduler.matrix import Mask, NodeMatrix
from dure.scheduler.needs import Needs, NodeTerm, Spread

_WILDCARD = "0.0.0.0"
_UNSCHEDULABLE = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
_SPREAD = "node(s) didn't match pod topology spread constraints"

Filters = Iterator[tuple[Mask, str]]
"""Which nodes pass, and why the others do not."""


def feasible(matrix: NodeMatrix, needs: Needs) -> Mask:
    """The nodes that pass every filter."""
    left = matrix.alive.copy()
    for keep, _ in _filters(matrix, needs, left):
        left &= keep
    return left


def reasons(matrix: NodeMatrix, needs: Needs) -> Counter[str]:
    """How many nodes each reason keeps out; a node counts where it fails first, by resources for each it lacks."""
    found: Counter[str] = Counter()
    left = matrix.alive.copy()
    before, resources = left.copy(), set(_resource_reasons(needs))
    for keep, reason in _filters(matrix, needs, left):
        if reason not in resources:
            before = left.copy()
        lost = int((before & ~keep).sum())
        if lost:
            found[reason] += lost
        left &= keep
    return found


def _filters(matrix: NodeMatrix, needs: Needs, left: Mask) -> Filters:
    """One after another; `left` is what has passed so far, and spares the costlier ones work."""
    if matrix.unschedulable.any() and not tolerates(needs, _UNSCHEDULABLE):
        yield ~matrix.unschedulable, "node(s) were unschedulable"
    yield from _taints(matrix, needs, left)
    if needs.node_selector or needs.node_terms is not None:
        yield node_affinity(matrix, needs), "node(s) didn't match Pod's node affinity/selector"
    if needs.host_ports:
        yield _free_ports(matrix, needs, left), "node(s) didn't have free ports for the requested pod ports"
    for resource, amount in needs.requests.items():
        if amount:
            room = matrix.allocatable(resource) - matrix.used(resource)
            yield room >= amount, _lack_of(resource)
    for spread in needs.spreads:
        if spread.hard:
            yield matrix.domains(spread.term.topology_key).codes >= 0, f"{_SPREAD} (missing required label)"
            yield _within_skew(matrix, needs, spread), _SPREAD
    yield from _pod_affinity(matrix, needs)


def _lack_of(resource: str) -> str:
    return "Too many pods" if resource == "pods" else f"Insufficient {resource}"


def _resource_reasons(needs: Needs) -> list[str]:
    """But the first, which begins the group."""
    return [_lack_of(resource) for resource, amount in needs.requests.items() if amount][1:]


def tolerates(needs: Needs, taint: Mapping[str, Any]) -> bool:
    return any(toleration.tolerates(taint) for toleration in needs.tolerations)


def _taints(matrix: NodeMatrix, needs: Needs, left: Mask) -> Filters:
    rows: dict[str, list[int]] = {}
    for row in np.flatnonzero(left & matrix.tainted):
        for taint in matrix.taints[row]:
            if taint.get("effect") != "PreferNoSchedule" and not tolerates(needs, taint):
                reason = f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value') or ''}}}"
                rows.setdefault(reason, []).append(int(row))
                break
    for reason, those in rows.items():
        keep = np.ones(len(left), np.bool_)
        keep[those] = False
        yield keep, reason


def term_mask(matrix: NodeMatrix, term: NodeTerm) -> Mask:
    """Nodes one node selector term admits; an empty one admits none."""
    if not term.labels and not term.fields:
        return np.zeros(len(matrix.alive), np.bool_)
    mask = matrix.alive.copy()
    for requirement in term.labels:
        mask &= _label_mask(matrix, requirement)
    for requirement in term.fields:
        mask &= matrix.mask(("field", requirement), lambda _, name, r=requirement: r.matches({r.key: name}))  # type: ignore[misc]
    return mask


def _label_mask(matrix: NodeMatrix, requirement: Requirement) -> Mask:
    return matrix.mask(requirement, lambda labels, _: requirement.matches(labels))


def node_affinity(matrix: NodeMatrix, needs: Needs) -> Mask:
    """Nodes the pod's own selector and required affinity admit."""
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
            any_term |= term_mask(matrix, term)
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


def _within_skew(matrix: NodeMatrix, needs: Needs, spread: Spread) -> Mask:
    """Domains that count are those of nodes the pod's node affinity admits."""
    domains = matrix.domains(spread.term.topology_key)
    tally = matrix.tally(spread.term.group)
    sums, present = tally.sums(spread.term.topology_key, domains), np.arange(domains.count)
    if needs.node_selector or needs.node_terms is not None:
        counted = node_affinity(matrix, needs) & (domains.codes >= 0)
        sums = np.bincount(domains.codes[counted], weights=tally.nodes[counted], minlength=domains.count + 1)
        present = np.unique(domains.codes[counted])
    if not len(present):
        return np.zeros(len(domains.codes), np.bool_)
    lowest = 0 if len(present) < spread.min_domains else sums[present].min()
    own = 1 if spread.term.group.covers(needs.namespace, needs.labels) else 0
    within: Mask = (sums + (own - lowest) <= spread.max_skew)[domains.codes]
    return within & (domains.codes >= 0)


def _pod_affinity(matrix: NodeMatrix, needs: Needs) -> Filters:
    for term in needs.affinity:
        starts_it = not matrix.tally(term.group).total and term.group.covers(needs.namespace, needs.labels)
        keep = matrix.domains(term.topology_key).codes >= 0 if starts_it else matrix.near(term) > 0
        yield keep, "node(s) didn't match pod affinity rules"
    for term in needs.anti_affinity:
        yield matrix.near(term) == 0, "node(s) didn't match pod anti-affinity rules"
    for carriers in matrix.repelling(needs.namespace, needs.labels):
        yield carriers == 0, "node(s) didn't satisfy existing pods anti-affinity rules"
