"""Startup, liveness and readiness probes: one task each, as long as its container runs; results are told at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dure.core.clock import Clock
from dure.core.json import Obj
from dure.node.pods.contact import Contact, Outcome
from dure.node.ports import ContainerState

ProbeKind = Literal["startup", "liveness", "readiness"]
KINDS: tuple[ProbeKind, ...] = ("startup", "liveness", "readiness")

Report = Callable[[str, ProbeKind, bool], None]
"""(container id, kind, healthy): called when a threshold has been crossed."""

Complain = Callable[[Obj, ProbeKind, str], None]
"""(container, kind, message): called for every failed probe."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds and counts with Kubernetes' defaults."""

    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int

    @staticmethod
    def of(probe: Obj) -> Timing:
        return Timing(
            float(probe.get("initialDelaySeconds") or 0),
            float(probe.get("periodSeconds") or 10),
            float(probe.get("timeoutSeconds") or 1),
            int(probe.get("successThreshold") or 1),
            int(probe.get("failureThreshold") or 3),
        )


class Tally:
    """Counts equal outcomes in a row. Pure."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._last: bool | None = None
        self._count = 0

    def add(self, ok: bool) -> bool | None:
        """The verdict once its threshold is met, else None."""
        self._count = self._count + 1 if ok == self._last else 1
        self._last = ok
        threshold = self._timing.success_threshold if ok else self._timing.failure_threshold
        return ok if self._count >= threshold else None


@dataclass(slots=True)
class ProbeRun:
    """One probe of one running container."""

    container: Obj
    run: ContainerState
    kind: ProbeKind
    contact: Contact
    clock: Clock
    report: Report
    complain: Complain

    async def loop(self) -> None:
        """Until cancelled, or for a startup probe until it has said yes."""
        probe = self.container[f"{self.kind}Probe"]
        timing, told = Timing.of(probe), None
        tally = Tally(timing)
        age = self.clock.time() - self.run.started_at / 1e9
        await asyncio.sleep(max(0.0, timing.initial_delay - age))
        while True:
            outcome = await self.contact.perform(probe, self.container, self.run.id, timing.timeout)
            if not outcome.ok:
                self.complain(self.container, self.kind, _complaint(self.kind, outcome))
            verdict = tally.add(outcome.ok)
            if verdict is not None and verdict != told:
                told = verdict
                self.report(self.run.id, self.kind, verdict)
                if self.kind == "startup" and verdict:
                    return
            await asyncio.sleep(timing.period)


def _complaint(kind: ProbeKind, outcome: Outcome) -> str:
    return f"{kind.capitalize()} probe failed: {outcome.message}"
