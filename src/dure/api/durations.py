"""Durations for people, as `apimachinery/pkg/util/duration.HumanDuration` writes them."""

from __future__ import annotations

from dure.core.clock import parse_rfc3339

UNKNOWN = "<unknown>"


def human_duration(seconds: float) -> str:
    """Two units while that says more, one from there on: 95s, 4m12s, 37m, 5h20m, 3d4h, 2y17d."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 120:
        return f"{whole}s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 24 * 8:
        return _two(days, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{days}d"
    if hours < 24 * 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def since(stamp: str | None, now: float) -> str:
    """How long ago a timestamp was; `<unknown>` without one."""
    if not stamp:
        return UNKNOWN
    try:
        return human_duration(now - parse_rfc3339(stamp))
    except ValueError:
        return UNKNOWN
