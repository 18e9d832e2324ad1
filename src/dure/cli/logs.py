"""`dure logs`: the platform's own logs, or with names those of pods, as `kubectl logs` gives them."""

from __future__ import annotations

import argparse
import subprocess
from collections import deque
from pathlib import Path

from dure.cli.home import settings_of
from dure.cli.screen import faint, say
from dure.core.errors import ConfigError
from dure.core.json import JSONDecodeError, loads

_PROCESSES = ("server", "agent", "shim", "supervisor")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        help="server, agent, shim, supervisor (default: all), or a pod or workload like deploy/orders",
    )
    parser.add_argument("-f", "--follow", action="store_true")
    parser.add_argument("--tail", type=int, default=100, metavar="LINES", help="last lines of each (default 100)")
    parser.add_argument("-n", "--namespace", default="default")
    parser.add_argument("--raw", action="store_true", help="JSON lines as they were written")


def run(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    if arguments.what and arguments.what not in _PROCESSES:
        from dure.cli.kubectl import run as kubectl

        follow = ["-f"] if arguments.follow else []
        arguments.rest = ["logs", "-n", arguments.namespace, f"--tail={arguments.tail}", *follow, arguments.what]
        return kubectl(arguments)
    names = [arguments.what] if arguments.what else list(_PROCESSES)
    files = [path for name in names if (path := settings.log_dir / f"{name}.log").exists()]
    if not files:
        raise ConfigError(f"no logs in {settings.log_dir}", "start the platform: dure up -d")
    if arguments.follow:
        return subprocess.run(["tail", "-F", "-n", str(arguments.tail), *map(str, files)], check=False).returncode
    for path in files:
        _print(path, arguments.tail, raw=arguments.raw, title=len(files) > 1)
    return 0


def _print(path: Path, lines: int, *, raw: bool, title: bool) -> None:
    if title:
        say(faint(f"── {path.name} ──"))
    with path.open(errors="replace") as file:
        for line in deque(file, maxlen=lines):
            say(line.rstrip("\n") if raw else _readable(line))


def _readable(line: str) -> str:
    """`time level logger: message key=value …`; lines of other shape as they are."""
    try:
        entry = loads(line)
        head = f"{entry.pop('ts')} {entry.pop('level')} {entry.pop('logger')}: {entry.pop('msg')}"
    except (JSONDecodeError, KeyError, AttributeError):
        return line.rstrip("\n")
    return " ".join([head, *(f"{key}={value}" for key, value in entry.items())])
