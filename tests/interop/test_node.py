"""@kubernetes/client-node, the official client for JavaScript."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.interop.conftest import CACHE, HERE, Run, build, expect_ok, names, need


@pytest.fixture(scope="session")
def program() -> Path:
    """The checks beside their installed packages; installed anew when the lock file has changed."""
    need("node")
    npm = need("npm")
    folder = CACHE / "node"
    folder.mkdir(parents=True, exist_ok=True)
    lock, installed = HERE / "node" / "package-lock.json", folder / "installed-lock.json"
    for path in (HERE / "node").iterdir():
        shutil.copy(path, folder)
    if not installed.exists() or installed.read_text() != lock.read_text():
        build(folder, npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts")
        shutil.copy(lock, installed)
    return folder / "checks.js"


@pytest.mark.parametrize("name", names("node", r'^check\("([a-z0-9-]+)"'))
def test_node(program: Path, run: Run, name: str) -> None:
    expect_ok(run("node", ["node", str(program)], {}), name)
