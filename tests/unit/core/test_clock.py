"""Times as Kubernetes writes them, and a clock that follows the loop."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.core.clock import LoopClock, SystemClock, parse_rfc3339, rfc3339, rfc3339_micro, rfc3339_nano


def test_formats() -> None:
    assert rfc3339(1_769_851_800.9) == "2026-01-31T09:30:00Z"
    assert rfc3339_micro(1_769_851_800.25) == "2026-01-31T09:30:00.250000Z"
    assert rfc3339_nano(1_769_851_800_000_000_007) == "2026-01-31T09:30:00.000000007Z"


@given(st.integers(0, 4_000_000_000))
def test_seconds_round_trip(seconds: int) -> None:
    assert parse_rfc3339(rfc3339(seconds)) == seconds


def test_micros_round_trip() -> None:
    assert parse_rfc3339(rfc3339_micro(1234.567891)) == pytest.approx(1234.567891, abs=1e-6)


def test_nanoseconds_are_read_too() -> None:
    assert parse_rfc3339("2026-01-31T09:30:00.123456789Z") == pytest.approx(1_769_851_800.123456)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-31", "2026-01-31T09:30:00"])
def test_what_is_not_rfc3339_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_rfc3339(text)


async def test_loop_clock_follows_the_loop() -> None:
    clock = LoopClock(start=1000)
    await asyncio.sleep(60)
    assert clock.time() == pytest.approx(1060)


def test_system_clock_is_now() -> None:
    assert SystemClock().time() > 1_700_000_000
