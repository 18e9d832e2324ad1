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


@pytest.mark.parametrize("word", ["kubectl", "up", "version"])
def test_arguments_may_be_named_as_commands(tmp_path: Path, word: str) -> None:
    """`dure deploy kubectl` was taken for `dure kubectl`."""
    assert dure("--home", str(tmp_path / word), "deploy", word).stderr.startswith("dure: there is no platform in")
    assert dure(f"--home={tmp_path / word}", "build", str(tmp_path / word)).stderr.startswith(
        "dure: there is no folder"
    )


def test_purge_takes_images_that_an_earlier_down_left(tmp_path: Path) -> None:
    (tmp_path / "home/images").mkdir(parents=True)
    (tmp_path / "home/images/names.json").write_text("{}")
    assert "nothing to do" in dure("--home", str(tmp_path / "home"), "down").stdout
    assert dure("--home", str(tmp_path / "home"), "down", "--purge").returncode == 0
    assert not (tmp_path / "home").exists()


def test_purge_takes_nothing_that_is_not_the_platforms(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/holiday.jpg").touch()
    assert "nothing to do" in dure("--home", str(tmp_path), "down", "--purge").stdout
    assert (tmp_path / "images/holiday.jpg").exists()


@pytest.mark.parametrize("command", [["up", "--no-containers"], ["status"], ["down"]])
def test_data_folder_that_cannot_be(tmp_path: Path, command: list[str]) -> None:
    """It ended in a traceback."""
    (tmp_path / "file").touch()
    done = dure("--home", str(tmp_path / "file"), *command)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "  → choose a data folder: --home"


def test_data_folder_that_cannot_be_made() -> None:
    done = dure("--home", "/proc/nowhere", "up", "--no-containers")
    assert done.stderr == (
        "dure: /proc/nowhere/run/lock cannot be written: No such file or directory\n  → choose a data folder: --home\n"
    )
