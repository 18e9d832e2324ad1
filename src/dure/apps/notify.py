"""How a daemon tells its supervisor what it has reached: JSON lines on an inherited pipe."""

from __future__ import annotations

import os

from dure.core.json import dumps

NOTIFY_FD = "DURE_NOTIFY_FD"
SUPERVISOR_PID = "DURE_SUPERVISOR_PID"


def supervisor_pid() -> int:
    """Who started this daemon; 0 without a supervisor."""
    return int(os.environ.get(SUPERVISOR_PID) or 0)


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
