"""How a daemon tells its supervisor what it has reached: JSON lines on an inherited pipe."""

from __future__ import annotations

import os

from dure.core.json import dumps

NOTIFY_FD = "DURE_NOTIFY_FD"


def notify(step: str, *, ready: bool = False, error: str = "", mend: str = "") -> None:
    """Report a step; without a supervisor (the variable unset) nobody is told."""
    descriptor = os.environ.get(NOTIFY_FD)
    if descriptor is None:
        return
    line = dumps({"step": step, "ready": ready, "error": error, "mend": mend}) + b"\n"
    try:
        os.write(int(descriptor), line)
    except BrokenPipeError:
        os.environ.pop(NOTIFY_FD, None)
