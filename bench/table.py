"""One form for all figures: what was measured, the goal, the peer or limit of the same run, and the ratio to it."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results"


@dataclass(slots=True)
class Row:
    """One line of the table. `ratio` is `value` to `peer_value`, both in `unit`."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    better: Literal["less", "more"] = "less"
    peer: str = ""
    peer_value: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return self.value / self.peer_value if self.peer_value else None

    @property
    def is_reached(self) -> bool | None:
        """None without a goal."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.better == "less" else self.value >= self.goal

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "reached": self.is_reached}


@dataclass(slots=True)
class Section:
    """What one benchmark found; `failure` says why it has nothing more."""

    name: str
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    failure: str = ""


def number(value: float | None) -> str:
    """Three significant digits, no exponent."""
    if value is None:
        return "-"
    size = abs(value)
    return (
        f"{value:,.0f}"
        if size >= 100
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.2f}"
        if size >= 0.1
        else f"{value:.3f}"
    )


def print_head() -> None:
    print(f"\n{'figure':54}{'measured':>10} {'unit':6}{'goal':>9} {'':3}{'peer or limit':>12} {'ratio':>7}")


def print_section(section: Section) -> None:
    print(f"\n{section.name}  ({section.seconds:.0f} s)")
    for row in section.rows:
        goal = "" if row.goal is None else ("≤ " if row.better == "less" else "≥ ") + number(row.goal)
        mark = {None: "", True: "✓", False: "✗"}[row.is_reached]
        ratio = "" if row.ratio is None else number(row.ratio)
        peer = "" if row.peer_value is None else number(row.peer_value)
        facts = "  ".join(f"{name} {_fact(value)}" for name, value in row.facts.items())
        print(f"  {row.name:52}{number(row.value):>10} {row.unit:6}{goal:>9} {mark:3}{peer:>12} {ratio:>7}  {row.peer}")
        if facts:
            print(f"      {facts}")
    if section.failure:
        print(f"  not measured: {section.failure}")


def _fact(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def write_results(path: Path, sections: Iterable[Section]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "load": os.getloadavg(),
        },
        "sections": [
            {
                "name": section.name,
                "seconds": round(section.seconds, 1),
                "failure": section.failure,
                "rows": [row.as_json() for row in section.rows],
            }
            for section in sections
        ],
    }
    path.write_text(json.dumps(report, indent=2) + "\n")
