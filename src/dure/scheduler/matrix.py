"""The cluster as arrays: one column a node, kept up to date pod by pod.

Places in the arrays ("rows", one a node) are reused after a node leaves; `alive` masks them. Nothing here waits
or does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dure.api.meta import labels_of, name_of
from dure.api.quantities import milli, whole
from dure.core.json import Obj
from dure.scheduler.groups import Domains, GroupIndex, Numbers, Tally
from dure.scheduler.needs import CPU, EPHEMERAL, MEMORY, PODS, Group, GroupTerm, Needs

Mask = npt.NDArray[np.bool_]
Shares = npt.NDArray[np.float64]

_FIRST = (CPU, MEMORY, EPHEMERAL, PODS)
_MOST_TALLIES = 5000


class NodeMatrix:
    """Allocatable and used resources, labels, taints, host ports and group counts of all nodes."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._rows: dict[str, int] = {}
        self._free_rows: list[int] = []
        self._lines: dict[str, int] = {name: index for index, name in enumerate(_FIRST)}
        self._allocatable: Numbers = np.zeros((len(_FIRST), 0), np.int64)
        self._used: Numbers = np.zeros((len(_FIRST), 0), np.int64)
        """Resource by node, so that one resource of all nodes lies together."""
        self._inverse: dict[str, Shares] = {}
        self.alive: Mask = np.zeros(0, np.bool_)
        self.unschedulable: Mask = np.zeros(0, np.bool_)
        self.tainted: Mask = np.zeros(0, np.bool_)
        """By taints that keep pods out."""
        self.disliked: Mask = np.zeros(0, np.bool_)
        """By taints that pods only would rather not have."""
        self.labels: list[Mapping[str, str]] = []
        self.taints: list[list[dict[str, Any]]] = []
        self.ports: list[dict[tuple[str, str, int], int]] = []
        self._pods: dict[str, tuple[int, Needs]] = {}
        self._masks: dict[Any, Mask] = {}
        self._domains: dict[str, Domains] = {}
        self._tallies: GroupIndex[Group, Tally] = GroupIndex()
        self._repelling: GroupIndex[tuple[Group, str], Tally] = GroupIndex()
        """By group and topology: pods that carry such an anti-affinity, where they stand."""

    def __len__(self) -> int:
        return len(self._rows)

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
        self._inverse.clear()
        self._allocatable[:, row] = 0
        for resource, amount in (status.get("allocatable") or status.get("capacity") or {}).items():
            line = self._line(resource)
            self._allocatable[line, row] = milli(amount) if resource == CPU else whole(amount)
        labels = labels_of(node)
        if self.labels[row] != labels or not self.alive[row]:
            self.labels[row] = labels
            self._masks.clear()
            self._domains.clear()
        self.taints[row] = spec.get("taints") or []
        effects = {taint.get("effect") for taint in self.taints[row]}
        self.tainted[row] = bool(effects - {"PreferNoSchedule"})
        self.disliked[row] = "PreferNoSchedule" in effects
        self.unschedulable[row] = bool(spec.get("unschedulable"))
        self.alive[row] = True

    def remove_node(self, name: str) -> None:
        row = self._rows.pop(name, None)
        if row is None:
            return
        for key in [key for key, (at, _) in self._pods.items() if at == row]:
            self.remove_pod(key)
        self.alive[row] = self.unschedulable[row] = self.tainted[row] = self.disliked[row] = False
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
                self._grow(max(16, row + row // 4))
        self._rows[name] = row
        return row

    def _grow(self, size: int) -> None:
        more = size - len(self.alive)
        self._allocatable = np.pad(self._allocatable, ((0, 0), (0, more)))
        self._used = np.pad(self._used, ((0, 0), (0, more)))
        self.alive = np.pad(self.alive, (0, more))
        self.unschedulable = np.pad(self.unschedulable, (0, more))
        self.tainted = np.pad(self.tainted, (0, more))
        self.disliked = np.pad(self.disliked, (0, more))
        for tally in (*self._tallies.values(), *self._repelling.values()):
            tally.grow(more)
        self._masks.clear()
        self._domains.clear()

    def _line(self, resource: str) -> int:
        """The line of a resource, made on first sight."""
        index = self._lines.get(resource)
        if index is None:
            index = self._lines[resource] = len(self._lines)
            self._allocatable = np.pad(self._allocatable, ((0, 1), (0, 0)))
            self._used = np.pad(self._used, ((0, 1), (0, 0)))
        return index

    def allocatable(self, resource: str) -> Numbers:
        """Of every node; a view."""
        line = self._line(resource)  # may make the arrays anew
        found: Numbers = self._allocatable[line]
        return found

    def inverse(self, resource: str) -> Shares:
        """One through allocatable: multiplying is far cheaper than dividing."""
        found = self._inverse.get(resource)
        if found is None:
            found = self._inverse[resource] = 1 / np.maximum(self.allocatable(resource), 1)
        return found

    def used(self, resource: str) -> Numbers:
        """By the pods on every node; a view."""
        line = self._line(resource)
        found: Numbers = self._used[line]
        return found

    # ── pods ──

    def put_pod(self, key: str, node: str, needs: Needs) -> bool:
        """Charge a pod to its node; whether that is news. A pod on an unknown node is ignored until the node comes."""
        row = self._rows.get(node)
        if key in self._pods:
            at, before = self._pods[key]
            if at == row and before.requests == needs.requests and before.labels == needs.labels:
                return False
            self.remove_pod(key)
        if row is None:
            return False
        self._pods[key] = (row, needs)
        self._charge(row, needs, 1)
        return True

    def remove_pod(self, key: str) -> bool:
        """Whether it was on a node, so that there is room now."""
        found = self._pods.pop(key, None)
        if found is not None:
            self._charge(*found, -1)
        return found is not None

    def _charge(self, row: int, needs: Needs, sign: int) -> None:
        for resource, amount in needs.requests.items():
            line = self._line(resource)
            self._used[line, row] += sign * amount
        for port in needs.host_ports:
            self.ports[row][port] = self.ports[row].get(port, 0) + sign
            if self.ports[row][port] == 0:
                del self.ports[row][port]
        for _, tally in self._tallies.covering(needs.namespace, needs.labels):
            tally.change(row, sign)
        for term in needs.anti_affinity:
            key = (term.group, term.topology_key)
            held = self._repelling.get(key) or self._repelling.put(key, term.group, Tally(len(self.alive)))
            held.change(row, sign)
            if not held.total:
                self._repelling.remove(key)

    # ── groups and domains ──

    def tally(self, group: Group) -> Tally:
        """How many pods of the group there are and where; counted once, then kept."""
        found = self._tallies.get(group)
        if found is None:
            if len(self._tallies) >= _MOST_TALLIES:
                self._tallies.clear()
            found = self._tallies.put(group, group, Tally(len(self.alive)))
            for row, needs in self._pods.values():
                if group.covers(needs.namespace, needs.labels):
                    found.change(row, 1)
        return found

    def near(self, term: GroupTerm) -> Numbers:
        """For each node how many pods of the group its domain holds; 0 without the label."""
        return self._per_node(self.tally(term.group), term.topology_key)

    def repelling(self, namespace: str, labels: Mapping[str, str]) -> Iterator[Numbers]:
        """For each anti-affinity of pods already placed that means such a pod: its carriers in each node's domain."""
        for (_, topology_key), tally in self._repelling.covering(namespace, labels):
            yield self._per_node(tally, topology_key)

    def _per_node(self, tally: Tally, topology_key: str) -> Numbers:
        domains = self.domains(topology_key)
        found: Numbers = tally.sums(topology_key, domains)[domains.codes]
        return found

    def domains(self, topology_key: str) -> Domains:
        """The nodes by their value of that label."""
        found = self._domains.get(topology_key)
        if found is None:
            codes = np.full(len(self.alive), -1, np.int64)
            seen: dict[str, int] = {}
            for row, labels in enumerate(self.labels):
                if self.alive[row] and topology_key in labels:
                    codes[row] = seen.setdefault(labels[topology_key], len(seen))
            found = self._domains[topology_key] = Domains(codes, len(seen))
        return found

    def mask(self, key: Any, holds: Callable[[Mapping[str, str], str], bool]) -> Mask:
        """Which nodes satisfy a question about labels and name, remembered under `key` until labels change."""
        found = self._masks.get(key)
        if found is None:
            found = np.zeros(len(self.alive), np.bool_)
            for row, labels in enumerate(self.labels):
                found[row] = self.alive[row] and holds(labels, self.names[row])
            self._masks[key] = found
        return found
