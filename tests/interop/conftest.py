"""Unmodified official clients in other languages: a platform without containers, and programs that check against it.

Each program prints `ok NAME` or `not ok NAME: why` for each of its checks, and each such line is a test here. The names
are read out of the program's source, so that a check that says nothing is a failure. What the programs are built into
lies in a cache outside the tree.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.platform import Platform

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dure-interop"
Run = Callable[[str, list[str], dict[str, str]], dict[str, str]]


def names(language: str, pattern: str) -> list[str]:
    """The checks in a program's source, in order."""
    texts = [
        path.read_text() for path in sorted((HERE / language).rglob("*")) if path.suffix in (".go", ".js", ".java")
    ]
    return [name for text in texts for name in re.findall(pattern, text, re.MULTILINE)]


def build(folder: Path, *command: str) -> None:
    """Run a build command in `folder`, politely; what it said is the error."""
    done = subprocess.run(
        ["nice", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{' '.join(command)} gave {done.returncode}:\n{done.stdout}{done.stderr}"


def need(program: str) -> str:
    """The path of a tool; its tests are skipped where it is missing."""
    return shutil.which(program) or pytest.skip(f"{program} is not installed")


def expect_ok(results: dict[str, str], name: str) -> None:
    assert results.get(name, "the program said nothing of it") == ""


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    home = Path(tempfile.mkdtemp(prefix="dure-interop-"))
    made = Platform(home, offset=600, networks=("10.244.0.0/16", "10.96.0.0/16", "10.243.0.0/24"))
    try:
        made.up("--simulated-nodes=2", "--no-containers")
        yield made
    finally:
        made.dure("down", "--purge", check=False)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def run(platform: Platform) -> Run:
    """Runs a program once and gives what it said of each check, "" for a good word; later callers get the same."""
    said: dict[str, dict[str, str]] = {}

    def once(key: str, command: list[str], switches: dict[str, str]) -> dict[str, str]:
        if key not in said:
            environment = {**os.environ, **switches, "KUBECONFIG": str(platform.kubeconfig)}
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
            said[key] = _results(done.stdout)
            assert said[key], f"{command[0]} gave {done.returncode} and no results:\n{done.stdout}{done.stderr}"
        return said[key]

    return once


def _results(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"ok (\S+)", line):
            found[match[1]] = ""
        elif match := re.fullmatch(r"not ok ([^:]+): ?(.*)", line):
            found[match[1]] = match[2] or "no reason given"
    return found
