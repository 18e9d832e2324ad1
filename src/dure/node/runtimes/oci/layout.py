"""What lies where in the runtime's folder, and how it is written; shared by agent and monitor, standard library alone.

    boot_id  lock  shim.sock  shim.log  monitor.json
    sandboxes/<pod uid>/   sandbox.json  shm/  ipc  uts  pid   (bind-mounted namespaces)
    containers/<id>/       spec.json  config.json  state.json  stdin stdout stderr  pid  runtime.log
    runtime/               the OCI runtime's own state
    filters/               compiled system call filters

A file is written whole beside its name and renamed; a folder is complete when its `sandbox.json` or `spec.json`
is there. The folder does not survive a reboot: whoever finds another boot id empties it.
"""

from __future__ import annotations

import json
import os
from typing import Any


class RunDir:
    """Paths below one runtime folder."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.socket = f"{root}/shim.sock"
        self.lock = f"{root}/lock"
        self.log = f"{root}/shim.log"
        self.boot_id = f"{root}/boot_id"
        self.monitor = f"{root}/monitor.json"
        self.sandboxes = f"{root}/sandboxes"
        self.containers = f"{root}/containers"
        self.runtime = f"{root}/runtime"
        self.filters = f"{root}/filters"

    def sandbox(self, pod_uid: str) -> str:
        return f"{self.sandboxes}/{pod_uid}"

    def container(self, container_id: str) -> str:
        return f"{self.containers}/{container_id}"

    def make(self) -> None:
        for path in (self.root, self.sandboxes, self.containers, self.runtime):
            os.makedirs(path, mode=0o700, exist_ok=True)


def write_json(path: str, value: Any) -> None:
    """Whole or not at all, as far as a killed process is concerned."""
    scratch = f"{path}.tmp"
    with open(scratch, "w") as file:
        json.dump(value, file, separators=(",", ":"))
    os.rename(scratch, path)


def read_json(path: str) -> Any:
    """None if there is no such file."""
    try:
        with open(path) as file:
            return json.load(file)
    except FileNotFoundError:
        return None
