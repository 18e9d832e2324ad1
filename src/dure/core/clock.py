"""Time as a value that is passed in, so that tests own it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """`time` is seconds since the epoch; sleeping is `asyncio.sleep`, whose loop tests make virtual."""

    def time(self) -> float: ...


class SystemClock:
    """The machine's own clock."""

    def time(self) -> float:
        return time.time()


class LoopClock:
    """Follows the running loop's time from `start`: under a virtual loop, virtual time."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start

    def time(self) -> float:
        return self._start + asyncio.get_running_loop().time()


def rfc3339(seconds: float) -> str:
    """`meta/v1.Time`: whole seconds, UTC, as in 2026-01-31T09:30:00Z."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(seconds: float) -> str:
    """`meta/v1.MicroTime`: six digits, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def rfc3339_nano(nanoseconds: int) -> str:
    """Nine digits, UTC, as container logs carry it."""
    whole, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch; raises ValueError on anything that is not RFC 3339."""
    stamp = datetime.fromisoformat(text)
    if stamp.tzinfo is None:
        raise ValueError(f"time {text!r} has no zone")
    return stamp.timestamp()
