"""The host's `ip_forward`, switched on while a platform needs it and put back by the last one to leave.

Several platforms may share the machine: who uses it and what was before is kept in one small file under /run.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dure.core.json import dumps, loads

_SWITCH = Path("/proc/sys/net/ipv4/ip_forward")
_DEVICES = Path("/proc/sys/net/ipv4/conf")
_MEMORY = Path("/run/dure-forwarding.json")


def enable(instance: str) -> None:
    """Forward packets for `instance`. Safe to repeat."""
    with _locked():
        memory = _read()
        if memory is None:
            memory = {"boot": _boot(), "was": _SWITCH.read_text().strip(), "devices": _forwarding(), "users": []}
        memory["users"] = sorted({*memory["users"], instance})
        _MEMORY.write_bytes(dumps(memory))
        if _SWITCH.read_text().strip() != "1":
            _SWITCH.write_text("1")


def disable(instance: str) -> None:
    """`instance` needs it no more; the last user restores what the first one found. Safe to repeat."""
    with _locked():
        memory = _read()
        if memory is None or instance not in memory["users"]:
            return
        memory["users"].remove(instance)
        if memory["users"]:
            _MEMORY.write_bytes(dumps(memory))
            return
        if memory["was"] == "0":
            # this also clears the switch of every device, so those that had it on get it back
            _SWITCH.write_text("0")
            for name in memory["devices"]:
                switch = _DEVICES / name / "forwarding"
                if switch.exists():
                    switch.write_text("1")
        _MEMORY.unlink(missing_ok=True)


def _forwarding() -> list[str]:
    found = (path.name for path in _DEVICES.iterdir() if (path / "forwarding").read_text().strip() == "1")
    return sorted(name for name in found if name != "all")


def _read() -> dict[str, Any] | None:
    """What is remembered; None if nothing is, or it is from before a reboot."""
    try:
        memory: dict[str, Any] = loads(_MEMORY.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return memory if memory.get("boot") == _boot() else None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def _locked() -> Iterator[None]:
    handle = os.open(_MEMORY.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
