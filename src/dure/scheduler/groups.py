"""Groups of pods, and how many of each stand on every node: counted once, then kept up to date pod by pod.

Pods find the groups they belong to by their labels, so that thousands of groups cost a pod nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from dure.scheduler.needs import Group

Numbers = npt.NDArray[np.int64]
K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class GroupIndex(Generic[K, T]):
    """Things kept per group, found by the pods a group covers."""

    def __init__(self) -> None:
        self._items: dict[K, tuple[Group, T]] = {}
        self._anchored: dict[tuple[str, str], dict[K, None]] = {}
        """Keys of groups that require a certain label."""
        self._loose: dict[K, None] = {}

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: K) -> T | None:
        found = self._items.get(key)
        return found[1] if found else None

    def values(self) -> Iterator[T]:
        return (item for _, item in self._items.values())

    def put(self, key: K, group: Group, item: T) -> T:
        self._items[key] = (group, item)
        anchor = group.anchor
        (self._loose if anchor is None else self._anchored.setdefault(anchor, {}))[key] = None
        return item

    def remove(self, key: K) -> None:
        group, _ = self._items.pop(key)
        anchor = group.anchor
        if anchor is None:
            del self._loose[key]
            return
        keys = self._anchored[anchor]
        del keys[key]
        if not keys:
            del self._anchored[anchor]

    def clear(self) -> None:
        self._items.clear()
        self._anchored.clear()
        self._loose.clear()

    def covering(self, namespace: str, labels: Mapping[str, str]) -> Iterator[tuple[K, T]]:
        """Those whose group has a pod with these labels."""
        for keys in (self._loose, *(self._anchored.get(pair, {}) for pair in labels.items())):
            for key in keys:
                group, item = self._items[key]
                if group.covers(namespace, labels):
                    yield key, item


class Domains:
    """The nodes by their value of one label. `codes`: each node's domain, -1 without the label."""

    __slots__ = ("codes", "count")

    def __init__(self, codes: Numbers, count: int) -> None:
        self.codes = codes
        self.count = count


class Tally:
    """Pods of one group: on each node, and in each domain of the topologies asked for."""

    __slots__ = ("_sums", "nodes", "total")

    def __init__(self, size: int) -> None:
        self.nodes: Numbers = np.zeros(size, np.int64)
        self.total = 0
        self._sums: dict[str, tuple[Domains, Numbers]] = {}

    def change(self, row: int, by: int) -> None:
        self.nodes[row] += by
        self.total += by
        for domains, sums in self._sums.values():
            if domains.codes[row] >= 0:
                sums[domains.codes[row]] += by

    def grow(self, more: int) -> None:
        self.nodes = np.pad(self.nodes, (0, more))
        self._sums.clear()

    def sums(self, topology_key: str, domains: Domains) -> Numbers:
        """Pods in each domain; one more place at the end, always 0, is where the code -1 points."""
        found = self._sums.get(topology_key)
        if found is None or found[0] is not domains:
            known = domains.codes >= 0
            counted = np.bincount(domains.codes[known], weights=self.nodes[known], minlength=domains.count + 1)
            found = self._sums[topology_key] = (domains, counted.astype(np.int64))
        return found[1]
