"""Pods placed a second on 5,000 nodes, the algorithm alone; goals are five times the floors of upstream's own tests.

Upstream measures its whole scheduler, bindings included: that part is in the figures of `pods`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from bench.measure import interleaved
from bench.platform import Platform
from bench.scheduler import PROFILES, by_loop, by_matrix
from bench.table import Row

_NODES, _ROUNDS, _SECONDS = 5000, 3, 1.0
_FLOORS = {"basic": 680, "hard spreading": 460, "anti-affinity": 60}
_LOOP = "plain loop, resources only"


async def run(_: Platform) -> AsyncIterator[Row]:
    contenders = {_LOOP: by_loop(_NODES, _SECONDS)}
    contenders |= {name: by_matrix(_NODES, make, _SECONDS) for name, make in PROFILES.items()}
    figures = {figure.name: figure for figure in await interleaved(contenders, _ROUNDS)}
    for name in PROFILES:
        goal = 5 * _FLOORS[name] if name in _FLOORS else None
        facts = {"p99 ms": figures[name].p99_milliseconds}
        yield Row(
            f"placing on {_NODES:,} nodes, {name}", figures[name].per_second, "1/s", goal, "more", _LOOP,
            figures[_LOOP].per_second, facts,
        )  # fmt: skip
