"""The command line without a platform: parsing, errors with their mend, and a start that imports little."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DURE = [sys.executable, "-m", "dure.cli.main"]


def dure(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DURE, *arguments], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("command", ["up", "down", "status", "doctor", "deploy", "build", "image", "logs", "version"])
def test_every_command_explains_itself(command: str) -> None:
    done = dure(command, "--help")
    assert (done.returncode, done.stdout.startswith("usage: dure")) == (0, True)


def test_a_platform_that_is_not_there(tmp_path: Path) -> None:
    done = dure("--home", str(tmp_path), "deploy", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"dure: there is no platform in {tmp_path}\n  → start one: dure up\n"


def test_version_imports_nothing_heavy() -> None:
    """Its start time is a promise; a heavy import at the top of a module would break it unseen."""
    code = "import sys; sys.argv = ['dure', 'version']\nfrom dure.cli.main import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print([name for name in ('asyncio', 'aiohttp', 'numpy', 'yaml', 'cryptography') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
