"""Exponential back-off as a kubelet keeps it: 10 s doubling to 5 min, forgotten after 10 quiet minutes. Pure."""

from __future__ import annotations

from dure.node.pods.model import Backoff

INITIAL_SECONDS = 10.0
MAX_SECONDS = 300.0
FORGET_SECONDS = 2 * MAX_SECONDS


def due_at(backoff: Backoff | None, event_at: float) -> float:
    """When what failed at `event_at` may be tried again."""
    if backoff is None or _is_stale(backoff, event_at):
        return event_at
    return event_at + backoff.delay


def grown(backoff: Backoff | None, event_at: float, now: float) -> Backoff:
    """The back-off after one more try at `now` for a failure at `event_at`."""
    if backoff is None or _is_stale(backoff, event_at):
        return Backoff(INITIAL_SECONDS, now)
    return Backoff(min(backoff.delay * 2, MAX_SECONDS), now)


def _is_stale(backoff: Backoff, event_at: float) -> bool:
    return event_at - backoff.updated_at > FORGET_SECONDS


def format_delay(seconds: float) -> str:
    """As Go prints a duration: `10s`, `1m20s`, `5m0s`."""
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
