"""Locks that outlive the block, and what they say to those who look."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dure.core.errors import ConfigError
from dure.core.process import exclusive, is_alive, is_locked


def test_second_holder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    with exclusive(path, "taken", "wait"), pytest.raises(ConfigError, match="taken"), exclusive(path, "taken", "wait"):
        raise AssertionError("two hold it")
    assert not is_locked(path)


def test_child_that_inherits_the_lock_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path, "taken", "wait") as descriptor:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(descriptor,))
    assert is_locked(path)
    child.communicate()
    assert not is_locked(path)


def test_two_who_only_look_do_not_see_each_other(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    code = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_SH); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        assert not is_locked(path)
        other.communicate(b"\n")


def test_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(child.pid)
    child.wait()
