"""Compiled system call filters, kept so that each profile is compiled once a boot.

Compiling the default profile takes crun 25 ms of a container's start. It leaves the program beside its state and
takes a compiled one by the annotation `run.oci.seccomp_bpf_data`; a crun that no longer knows the annotation falls
back to the profile, which stays in the configuration.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
from typing import Any

from dure.core.json import dumps_sorted
from dure.node.runtimes.oci.layout import RunDir

ANNOTATION = "run.oci.seccomp_bpf_data"


class CompiledFilters:
    """For crun alone; runc compiles each time, and is asked for nothing."""

    def __init__(self, run: RunDir, runtime_name: str) -> None:
        self._run = run
        self._usable = runtime_name == "crun"
        self._known: dict[str, str] = {}
        self._awaited: dict[str, str] = {}

    def annotate(self, container_id: str, config: dict[str, Any]) -> None:
        """Add the compiled filter for the profile in `config`, if there is one."""
        profile = config["linux"].get("seccomp")
        if profile is None or not self._usable:
            return
        key = _key(profile)
        program = self._find(key)
        if program:
            config["annotations"] = {**config.get("annotations", {}), ANNOTATION: program}
        else:
            self._awaited[container_id] = key

    def learn(self, container_id: str) -> None:
        """After a start: keep what crun has compiled for this container."""
        key = self._awaited.pop(container_id, "")
        target = self._path(key)
        if not key or os.path.exists(target):
            return
        with contextlib.suppress(FileNotFoundError):  # it has ended and is gone, or this crun writes none
            os.makedirs(self._run.filters, mode=0o700, exist_ok=True)
            shutil.copyfile(f"{self._run.runtime}/{container_id}/seccomp.bpf", f"{target}.tmp")
            os.rename(f"{target}.tmp", target)

    def _find(self, key: str) -> str:
        if key not in self._known:
            try:
                with open(self._path(key), "rb") as file:
                    self._known[key] = base64.b64encode(file.read()).decode()
            except FileNotFoundError:
                return ""
        return self._known[key]

    def _path(self, key: str) -> str:
        return f"{self._run.filters}/{key}.bpf"


def _key(profile: dict[str, Any]) -> str:
    return hashlib.sha256(dumps_sorted(profile)).hexdigest()[:32]
