"""The cluster as arrays: one row a node, kept up to date pod by pod.

Rows are reused after a node leaves; `alive` masks them. Nothing here waits or does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dure.api.meta import labels_of, name_of
from dure.api.quantities import milli, whole
from dure.core.json import Obj
from dure.scheduler.needs import CPU, EPHEMERAL, MEMORY, PODS, GroupTerm, Needs

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

_FIRST = (CPU, MEMORY, EPHEMERAL, PODS)


class NodeMatrix:
    """Allocatable and used resources, labels, taints, host ports and group counts of all nodes."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._rows: dict[str, int] = {}
        self._free_rows: list[int] = []
        self.columns: dict[str, int] = {name: index for index, name in enumerate(_FIRST)}
        self.allocatable: Numbers = np.zeros((0, len(_FIRST)), np.int64)
        self.used: Numbers = np.zeros((0, len(_FIRST)), np.int64)
        self.alive: Mask = np.zeros(0, np.bool_)
        self.unschedulable: Mask = np.zeros(0, np.bool_)
        self.tainted: Mask = np.zeros(0, np.bool_)
        self.labels: list[Mapping[str, str]] = []
        self.taints: list[list[dict[str, Any]]] = []
        self.ports: list[dict[tuple[str, str, int], int]] = []
        self._pods: dict[str, tuple[int, Needs]] = {}
        self._masks: dict[Any, Mask] = {}
        self._domains: dict[str, tuple[Numbers, int]] = {}
        self._counts: dict[GroupTerm, Numbers] = {}
        self._repelling: dict[GroupTerm, Numbers] = {}

    def __len__(self) -> int:
        return int(self.alive.sum())

    def row(self, node: str) -> int | None:
        return self._rows.get(node)

    # ── nodes ──

    def put_node(self, node: Obj) -> None:
        """Add a node or take over its changes."""
        name = name_of(node)
        row = self._rows.get(name)
        if row is None:
            row = self._new_row(name)
        status, spec = node.get("status") or {}, node.get("spec") or {}
        offered = status.get("allocatable") or status.get("capacity") or {}
        self.allocatable[row] = 0
        for resource, amount in offered.items():
            column = self.column(resource)  # first, for it may put a wider array in place
            self.allocatable[row, column] = milli(amount) if resource == CPU else whole(amount)
        labels = labels_of(node)
        if self.labels[row] != labels or not self.alive[row]:
            self.labels[row] = labels
            self._masks.clear()
            self._domains.clear()
        self.taints[row] = spec.get("taints") or []
        self.tainted[row] = any(taint.get("effect") != "PreferNoSchedule" for taint in self.taints[row])
        self.unschedulable[row] = bool(spec.get("unschedulable"))
        self.alive[row] = True

    def remove_node(self, name: str) -> None:
        row = self._rows.pop(name, None)
        if row is None:
            return
        for key in [key for key, (at, _) in self._pods.items() if at == row]:
            self.remove_pod(key)
        self.alive[row] = False
        self.labels[row] = {}
        self._free_rows.append(row)
        self._masks.clear()
        self._domains.clear()

    def _new_row(self, name: str) -> int:
        if self._free_rows:
            row = self._free_rows.pop()
            self.names[row] = name
        else:
            row = len(self.names)
            self.names.append(name)
            self.labels.append({})
            self.taints.append([])
            self.ports.append({})
            if row >= len(self.alive):
                self._grow(max(16, 2 * row))
        self._rows[name] = row
        return row

    def _grow(self, size: int) -> None:
        more = size - len(self.alive)
        self.allocatable = np.pad(self.allocatable, ((0, more), (0, 0)))
        self.used = np.pad(self.used, ((0, more), (0, 0)))
        self.alive = np.pad(self.alive, (0, more))
        self.unschedulable = np.pad(self.unschedulable, (0, more))
        self.tainted = np.pad(self.tainted, (0, more))
        self._counts = {term: np.pad(count, (0, more)) for term, count in self._counts.items()}
        self._repelling = {term: np.pad(count, (0, more)) for term, count in self._repelling.items()}
        self._masks.clear()
        self._domains.clear()

    def column(self, resource: str) -> int:
        """The column of a resource, made on first sight."""
        index = self.columns.get(resource)
        if index is None:
            index = self.columns[resource] = len(self.columns)
            self.allocatable = np.pad(self.allocatable, ((0, 0), (0, 1)))
            self.used = np.pad(self.used, ((0, 0), (0, 1)))
        return index

    # ── pods ──

    def put_pod(self, key: str, node: str, needs: Needs) -> None:
        """Charge a pod to its node; a pod on an unknown node is ignored until the node comes."""
        row = self._rows.get(node)
        if key in self._pods:
            at, before = self._pods[key]
            if at == row and before.requests == needs.requests and before.labels == needs.labels:
                return
            self.remove_pod(key)
        if row is None:
            return
        self._pods[key] = (row, needs)
        self._charge(row, needs, 1)

    def remove_pod(self, key: str) -> None:
        found = self._pods.pop(key, None)
        if found is not None:
            self._charge(*found, -1)

    def _charge(self, row: int, needs: Needs, sign: int) -> None:
        for resource, amount in needs.requests.items():
            column = self.column(resource)
            self.used[row, column] += sign * amount
        for port in needs.host_ports:
            self.ports[row][port] = self.ports[row].get(port, 0) + sign
            if self.ports[row][port] == 0:
                del self.ports[row][port]
        for term, count in self._counts.items():
            if term.covers(needs.namespace, needs.labels):
                count[row] += sign
        for term in needs.anti_affinity:
            held = self._repelling.get(term)
            if held is None:
                held = self._repelling[term] = np.zeros(len(self.alive), np.int64)
            held[row] += sign

    def counts(self, term: GroupTerm) -> Numbers:
        """How many pods of the group each node holds; counted once, then kept."""
        found = self._counts.get(term)
        if found is None:
            if len(self._counts) > 2000:
                self._counts.clear()
            found = self._counts[term] = np.zeros(len(self.alive), np.int64)
            for row, needs in self._pods.values():
                if term.covers(needs.namespace, needs.labels):
                    found[row] += 1
        return found

    def repelling(self) -> Mapping[GroupTerm, Numbers]:
        """Anti-affinity of pods already placed: how many pods on each node carry the term."""
        return self._repelling

    # ── labels and domains ──

    def mask(self, key: Any, holds: Callable[[Mapping[str, str], str], bool]) -> Mask:
        """Which nodes satisfy a question about labels and name, remembered under `key` until labels change."""
        found = self._masks.get(key)
        if found is None:
            found = np.zeros(len(self.alive), np.bool_)
            for row, labels in enumerate(self.labels):
                found[row] = self.alive[row] and holds(labels, self.names[row])
            self._masks[key] = found
        return found

    def domains(self, topology_key: str) -> tuple[Numbers, int]:
        """For each node the number of its domain, -1 without the label; and how many domains there are."""
        found = self._domains.get(topology_key)
        if found is None:
            codes = np.full(len(self.alive), -1, np.int64)
            seen: dict[str, int] = {}
            for row, labels in enumerate(self.labels):
                if self.alive[row] and topology_key in labels:
                    codes[row] = seen.setdefault(labels[topology_key], len(seen))
            found = self._domains[topology_key] = (codes, len(seen))
        return found

    def per_domain(self, term: GroupTerm, count: Numbers) -> Numbers:
        """For each node the sum of `count` over its domain; 0 without the label."""
        codes, domains = self.domains(term.topology_key)
        known = codes >= 0
        sums = np.bincount(codes[known], weights=count[known], minlength=domains).astype(np.int64)
        result = np.zeros(len(codes), np.int64)
        result[known] = sums[codes[known]]
        return result
