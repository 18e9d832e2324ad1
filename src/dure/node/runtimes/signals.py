"""Signal names as images and pods spell them."""

from __future__ import annotations

import signal

from dure.node.ports import RuntimeFailure


def signal_number(name: str) -> int:
    """For `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`. Raises RuntimeFailure."""
    text = name.upper().removeprefix("SIG")
    if text.isdigit() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    base, sign, offset = text.partition("+") if "+" in text else text.partition("-")
    if base in ("RTMIN", "RTMAX") and (not sign or offset.isdigit()):
        number = int(signal.SIGRTMIN if base == "RTMIN" else signal.SIGRTMAX)
        return number + (int(offset or 0) if sign != "-" else -int(offset))
    try:
        return int(signal.Signals[f"SIG{text}"])
    except KeyError as error:
        raise RuntimeFailure(f"signal {name!r}: such as SIGTERM, 15 or SIGRTMIN+3") from error
