"""What the kernel shows of this machine: processes by cgroup, and everything a platform might leave behind.

`python -m tests.support.machine INSTANCE FOLDER...` prints the latter as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
_PREPARE = """
grep -E ' (overlay|nsfs|tmpfs|proc|sysfs|devpts) ' /proc/self/mounts | cut -d ' ' -f 2 |
grep -E '^/(tmp|var/lib/dure|run)/' | tac |
while read -r point; do umount --lazy "$point"; done  # of other platforms: here they would only be held
mount -t tmpfs none /run && ip link set lo up && echo ready && exec sleep infinity
"""
_SWITCHES = ("ip_forward", "conf/all/*", "conf/default/*")


def processes() -> dict[int, tuple[int, str, str]]:
    """pid → its parent, its command and its cgroups; zombies do not count."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            cgroups = (folder / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if stat[0] != "Z" and words:
            found[int(folder.name)] = (int(stat[1]), words, cgroups)
    return found


def main_processes(pod_uid: str) -> list[int]:
    """The first process of each container of a pod: those whose parent is outside of it."""
    mine = {pid: parent for pid, (parent, _, cgroups) in processes().items() if pod_uid in cgroups}
    return sorted(pid for pid, parent in mine.items() if parent not in mine)


def traces(instance: str, folders: list[str]) -> dict[str, list[str]]:
    """All that a platform puts on a machine, as sorted texts; of cgroups, which know no namespace, only its own."""
    return {
        "processes": sorted(words for pid, (_, words, _) in processes().items() if pid != os.getpid()),
        "mounts": sorted(" ".join(line.split()[4:]) for line in _read("/proc/self/mountinfo").splitlines()),
        "links": _said("ip", "-o", "-d", "link"),
        "addresses": _said("ip", "-o", "address"),
        "routes": _said("ip", "route", "show", "table", "all"),
        "rules": _said("ip", "rule"),
        "neighbours": _said("ip", "neighbour"),
        "namespaces": _said("ip", "netns"),
        "nft": _said("nft", "list", "ruleset"),
        "sysctls": _switches(),
        "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{instance}")),
        "files": sorted(str(path) for folder in folders for path in Path(folder).rglob("*")),
    }


def _said(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return sorted(line.rstrip() for line in done.stdout.splitlines())


def _switches() -> list[str]:
    root = Path("/proc/sys/net/ipv4")
    paths = sorted(path for pattern in _SWITCHES for path in root.glob(pattern))
    return [f"{path}={_read(str(path)).strip()}" for path in paths]


def _read(path: str) -> str:
    return Path(path).read_text()


class OwnMachine:
    """Namespaces for network, mounts and processes, with an empty /run: a machine where nothing else runs."""

    def __init__(self, pid: int, scratch: Path) -> None:
        self._scratch = scratch
        self.enter = [
            *("nsenter", f"--target={pid}", "--mount", "--net", "--pid"),
            *("env", f"TMPDIR={scratch}", f"PYTHONPATH={PROJECT}:{os.environ.get('PYTHONPATH', '')}"),
        ]

    def traces(self, instance: str) -> dict[str, list[str]]:
        command = [*self.enter, sys.executable, "-m", "tests.support.machine", instance, "/run", str(self._scratch)]
        return dict(json.loads(self.run(*command)))

    def processes(self) -> dict[int, str]:
        """pid (as seen inside) → command."""
        code = "import json; from tests.support.machine import processes; print(json.dumps(processes()))"
        found: dict[str, Any] = json.loads(self.run(*self.enter, sys.executable, "-c", code))
        return {int(pid): words for pid, (_, words, _) in found.items() if code not in words}

    def run(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@contextmanager
def own_machine() -> Iterator[OwnMachine]:
    """Everything in it ends with the block."""
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", _PREPARE]
    with (
        tempfile.TemporaryDirectory(prefix="dure-machine-") as scratch,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as outer,
    ):
        try:
            assert outer.stdout is not None and outer.stdout.readline() == "ready\n"
            inner = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0])
            yield OwnMachine(inner, Path(scratch))
        finally:
            outer.kill()


if __name__ == "__main__":
    print(json.dumps(traces(sys.argv[1], sys.argv[2:])))
