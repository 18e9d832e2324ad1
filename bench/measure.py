"""Shared by all benchmarks: interleaved rounds, medians, latencies, CPU of whole process trees, one form of report.

Contenders run in turn, round after round, so that a busy machine slows all of them alike; read the ratios.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Sample:
    """One contender in one round. Latencies in seconds."""

    operations: int
    seconds: float
    cpu_seconds: float
    latencies: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Figure:
    """The medians of a contender's rounds."""

    name: str
    per_second: float
    cpu_microseconds: float
    p50_milliseconds: float
    p99_milliseconds: float
    rounds: int


Contender = Callable[[], Awaitable[Sample]]


async def interleaved(contenders: Mapping[str, Contender], rounds: int) -> list[Figure]:
    """Every contender once a round, each round in another order."""
    names = list(contenders)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            samples[name].append(await contenders[name]())
    return [_figure(name, samples[name]) for name in names]


def _figure(name: str, samples: Sequence[Sample]) -> Figure:
    def median(value: Callable[[Sample], float]) -> float:
        return statistics.median(value(sample) for sample in samples)

    return Figure(
        name,
        per_second=round(median(lambda sample: sample.operations / sample.seconds), 1),
        cpu_microseconds=round(median(lambda sample: sample.cpu_seconds / max(1, sample.operations) * 1e6), 1),
        p50_milliseconds=round(median(lambda sample: percentile(sample.latencies, 50)) * 1e3, 3),
        p99_milliseconds=round(median(lambda sample: percentile(sample.latencies, 99)) * 1e3, 3),
        rounds=len(samples),
    )


def percentile(values: Iterable[float], percent: float) -> float:
    """Nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


class Stopwatch:
    """Wall time and CPU time of process trees, from entering to leaving."""

    def __init__(self, *roots: int) -> None:
        self._roots = roots or (os.getpid(),)
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._cpu = cpu_seconds(self._roots)
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self.cpu_seconds = cpu_seconds(self._roots) - self._cpu


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of these processes and all below them, ended children included."""
    return sum(_ticks(pid) for pid in tree(roots)) / _TICK


def memory_kilobytes(roots: Iterable[int]) -> int:
    """Proportional set size of these processes and all below them."""
    return sum(_proportional(pid) for pid in tree(roots))


def tree(roots: Iterable[int]) -> set[int]:
    """Process ids of `roots` and their descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _ticks(pid: int) -> int:
    stat = _stat(pid)
    return sum(int(value) for value in stat[11:15])


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def report(title: str, figures: Sequence[Figure], against: str = "", **facts: Any) -> dict[str, Any]:
    """Print a table and give the same as JSON; ratios are to the contender called `against`."""
    base = next((figure.per_second for figure in figures if figure.name == against), 0.0)
    print(f"\n{title}")
    print(f"  {'':38}{'per second':>12}{'ratio':>8}{'p50 ms':>10}{'p99 ms':>10}{'CPU us':>9}")
    rows = []
    for figure in figures:
        ratio = round(figure.per_second / base, 2) if base else None
        shown = f"{ratio:.2f}" if ratio is not None else "-"
        print(
            f"  {figure.name:38}{figure.per_second:>12,.0f}{shown:>8}"
            f"{figure.p50_milliseconds:>10.2f}{figure.p99_milliseconds:>10.2f}{figure.cpu_microseconds:>9.0f}"
        )
        rows.append({**asdict(figure), "ratio": ratio})
    for name, value in facts.items():
        print(f"  {name.replace('_', ' ')}: {value}")
    return {"title": title, "against": against, "figures": rows, **facts}


def write_json(path: str, reports: Sequence[Mapping[str, Any]]) -> None:
    """To a file, or to the screen for `-`."""
    text = json.dumps({"cores": os.cpu_count(), "load": os.getloadavg(), "reports": reports}, indent=2)
    if path == "-":
        print(text)
    else:
        Path(path).write_text(text + "\n")
