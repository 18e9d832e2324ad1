"""The built-in kinds: the table of resources joined with a strategy and columns for each.

A kind without a line in `entries` is served by a StandardStrategy made from the table alone.
"""

from __future__ import annotations

from typing import Any

from dure.api.columns import columns_of
from dure.api.kind import Kind, Kinds, Strategy, Subresource
from dure.api.kinds.entries import ENTRIES, PLAIN, Entry
from dure.api.kinds.strategy import StandardStrategy
from dure.api.meta import GroupVersionKind
from dure.api.schemas import Schemas

_CONNECT = frozenset({"create", "get"})
_PROXY = frozenset({"create", "delete", "get", "patch", "update"})
_STREAMS = {
    ("", "pods"): (
        ("attach", _CONNECT, "PodAttachOptions"),
        ("exec", _CONNECT, "PodExecOptions"),
        ("portforward", _CONNECT, "PodPortForwardOptions"),
        ("proxy", _PROXY, "PodProxyOptions"),
    ),
    ("", "services"): (("proxy", _PROXY, "ServiceProxyOptions"),),
    ("", "nodes"): (("proxy", _PROXY, "NodeProxyOptions"),),
}
"""Subresources that are connections; the table, made from typed clients, has no such."""

_PREFERRED_FIRST = {("autoscaling", "v2"): 0}


def builtin_kinds() -> Kinds:
    """A fresh registry of everything the server has of itself."""
    kinds = Kinds()
    rows = Schemas.load().resources
    for row in sorted(rows, key=lambda row: _PREFERRED_FIRST.get((row["group"], row["version"]), 1)):
        kinds.add(_kind(row))
    return kinds


def _kind(row: dict[str, Any]) -> Kind:
    group, version, plural = row["group"], row["version"], row["plural"]
    entry = ENTRIES.get((group, plural, version)) or ENTRIES.get((group, plural), PLAIN)
    names = Schemas.load().by_gvk
    return Kind(
        group=group,
        version=version,
        kind=row["kind"],
        plural=plural,
        namespaced=row["namespaced"],
        strategy=_strategy(row, entry),
        singular=row["kind"].lower(),
        short_names=entry.short_names,
        categories=entry.categories,
        verbs=frozenset(row["verbs"]),
        subresources=_subresources(row),
        columns=columns_of(group, row["kind"]),
        schema=names[group, version, row["kind"]],
        conversion=entry.conversion,
    )


def _strategy(row: dict[str, Any], entry: Entry) -> Strategy:
    make = entry.strategy
    if make is StandardStrategy:
        has_status = any(sub["name"] == "status" for sub in row["subresources"])
        return StandardStrategy(namespaced=row["namespaced"], has_status=has_status, has_generation=entry.generation)
    return make(namespaced=row["namespaced"])


def _subresources(row: dict[str, Any]) -> tuple[Subresource, ...]:
    group, version = row["group"], row["version"]
    found = [
        Subresource(sub["name"], frozenset(sub["verbs"]), GroupVersionKind(*sub["kind"])) for sub in row["subresources"]
    ]
    for name, verbs, kind in _STREAMS.get((group, row["plural"]), ()):
        found.append(Subresource(name, verbs, GroupVersionKind(group, version, kind)))
    return tuple(sorted(found, key=lambda sub: sub.name))
