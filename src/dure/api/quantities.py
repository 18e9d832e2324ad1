"""Resource quantities: `500m`, `64Mi`, `1e3`, exact.

Format: Kubernetes' `resource.Quantity`.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

_FORM = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$")
_SCALE = {
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
    "m": Decimal("0.001"),
    "u": Decimal("0.000001"),
    "n": Decimal("0.000000001"),
}


@lru_cache(maxsize=4096)
def parse_quantity(text: str | int | float) -> Decimal:
    """Exact value. Raises ValueError with Kubernetes' wording."""
    match = _FORM.match(str(text))
    if not match:
        raise ValueError(
            "quantities must match the regular expression "
            r"'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    number, suffix = match.groups()
    if suffix and suffix[0] in "eE" and len(suffix) > 1:
        return Decimal(number) * Decimal(10) ** int(suffix[1:])
    return Decimal(number) * _SCALE[suffix or ""]


def milli(text: str | int | float) -> int:
    """Thousandths, rounded up: CPU."""
    return int((parse_quantity(text) * 1000).to_integral_value(ROUND_CEILING))


def whole(text: str | int | float) -> int:
    """Units, rounded up: bytes and counts."""
    return int(parse_quantity(text).to_integral_value(ROUND_CEILING))


def format_milli(value: int) -> str:
    """CPU in canonical form: `250m`, `2`."""
    return str(value // 1000) if value % 1000 == 0 else f"{value}m"


def format_bytes(value: int) -> str:
    """Bytes in the largest binary unit that keeps them exact."""
    for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
        unit = int(_SCALE[suffix])
        if value and value % unit == 0:
            return f"{value // unit}{suffix}"
    return str(value)


@lru_cache(maxsize=4096)
def canonical_quantity(text: str | int | float) -> str:
    """As a Kubernetes server writes it back: no fraction, the largest suffix of its own family. Raises ValueError."""
    value = parse_quantity(text)
    match = _FORM.match(str(text))
    suffix = (match.group(2) if match else "") or ""
    if suffix.endswith("i") and abs(value) >= 1024:
        return format_bytes(whole(text))
    exponent = len(suffix) > 1 and suffix[0] in "eE"
    nanos = int((value * 10**9).to_integral_value(ROUND_CEILING))
    power = -9
    while nanos and nanos % 1000 == 0 and power < 18:
        nanos, power = nanos // 1000, power + 3
    if not nanos:
        return "0"
    if exponent:
        return f"{nanos}e{power}" if power else str(nanos)
    return f"{nanos}{'numkMGTPE'[power // 3 + 3] if power < 0 else ('' if not power else 'kMGTPE'[power // 3 - 1])}"
