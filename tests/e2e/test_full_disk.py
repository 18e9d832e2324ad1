"""A data folder on a disk that is full: writes are refused in so many words, and all goes on once there is room."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dure.images.service import open_store
from tests.support.machine import main_processes
from tests.support.platform import Platform, eventually, own_platform

WRITER = """
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: app, image: busybox, command: [sh, -c, 'i=0; while true; do echo $i; i=$((i+1)); sleep 0.02; done']}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Platform]:
    """Its whole data folder on 64 MB."""
    with own_platform("dure-full-") as made, small_disk(made.home):
        asyncio.run(open_store(made.home, stand_ins=True).pull("busybox"))
        shutil.rmtree(made.home / "images" / "apt")  # package lists, half of the disk
        try:
            made.up()
            made.kubectl("apply", "-f", "-", stdin=WRITER)
            made.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/writer")
            yield made
        finally:
            made.dure("down")


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)], check=True)
    try:
        yield
        assert os.path.ismount(folder), "what the user has mounted is not ours to take away"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.fixture
def full(cluster: Platform) -> Iterator[Path]:
    """Not a byte is left until this file is removed."""
    ballast = cluster.home / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC
    yield ballast
    ballast.unlink(missing_ok=True)
    eventually(lambda: status(cluster)["ready"], within=20)


def status(cluster: Platform) -> dict[str, Any]:
    return dict(json.loads(cluster.dure("status", "-o", "json", check=False).stdout))


def create(cluster: Platform, name: str) -> subprocess.CompletedProcess[str]:
    """Of a size for which there is no room in files that are there already."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": "x" * 900_000}}
    return cluster.kubectl("create", "-f", "-", stdin=json.dumps(body), check=False)


def test_write_is_refused_and_accepted_once_there_is_room(cluster: Platform, full: Path) -> None:
    refused = create(cluster, "large")
    assert refused.returncode == 1
    assert "Error from server (InternalError)" in refused.stderr
    assert "database or disk is full" in refused.stderr
    assert cluster.kubectl("get", "cm", "large", check=False).returncode == 1
    assert cluster.out("get", "pod", "writer", "-o", "jsonpath={.status.phase}") == "Running"
    full.unlink()
    assert create(cluster, "large").returncode == 0


@pytest.mark.parametrize("victim", ["agent", "server", "store", "shim"])
def test_whoever_dies_meanwhile_is_back_once_there_is_room(cluster: Platform, full: Path, victim: str) -> None:
    uid = cluster.get("pod", "writer")["metadata"]["uid"]
    mains = main_processes(uid)
    name = f"shim {cluster.get('pod', 'writer')['spec']['nodeName']}" if victim == "shim" else victim
    killed = cluster.processes()[name]
    os.kill(killed, signal.SIGKILL)
    time.sleep(3)  # long enough to fail several times
    assert status(cluster)["running"]
    full.unlink()
    eventually(lambda: status(cluster)["ready"] and cluster.processes().get(name, killed) != killed, within=20)
    assert create(cluster, f"after-{victim}").returncode == 0
    cluster.kubectl("delete", "cm", f"after-{victim}")
    assert main_processes(uid) == mains
    last = eventually(lambda: cluster.out("logs", "writer", "--tail=1"))
    eventually(lambda: int(cluster.out("logs", "writer", "--tail=1")) > int(last))
    assert cluster.out("exec", "writer", "--", "echo", "well") == "well"
