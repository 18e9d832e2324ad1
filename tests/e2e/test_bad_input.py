"""What is refused, and in which words."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.platform import DURE, Platform


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ("apiVersion: v1\nkind: Pod\n  metadata: {name: x", "error converting YAML to JSON"),
        ('{"apiVersion": "v1", "kind": "Pod", ', "error"),
        ("apiVersion: v1\nkind: Pood\nmetadata: {name: x}", 'no matches for kind "Pood" in version "v1"'),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndate: {a: b}",
            'unknown field "date"',
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: No_Good}",
            "a lowercase RFC 1123 subdomain must consist of",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: []}", "spec.containers: Required value"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a}]}",
            "spec.containers[0].image: Required value",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: many,"
            " selector: {matchLabels: {a: b}},"
            " template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: b}]}}}",
            "spec.replicas",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {selector: {matchLabels: {a: b}},"
            " template: {metadata: {labels: {a: c}}, spec: {containers: [{name: a, image: b}]}}}",
            "`selector` does not match template `labels`",
        ),
    ],
)
def test_refused_manifests(platform: Platform, namespace: str, manifest: str, says: str) -> None:
    done = platform.kubectl("-n", namespace, "create", "-f", "-", stdin=manifest, check=False)
    assert done.returncode != 0
    assert says in done.stderr
    assert platform.get("-n", namespace, "pods,deployments")["items"] == []


def test_name_is_taken(platform: Platform, namespace: str) -> None:
    platform.kubectl("-n", namespace, "create", "configmap", "c")
    done = platform.kubectl("-n", namespace, "create", "configmap", "c", check=False)
    assert 'configmaps "c" already exists' in done.stderr


def test_second_up_on_one_folder(platform: Platform) -> None:
    done = platform.dure("up", "-d", check=False)
    assert done.returncode == 2
    assert "already running" in done.stderr


def test_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        offset = holder.getsockname()[1] - 6443
        command = [*DURE, "--home", str(tmp_path), "up", "-d", "--no-containers", f"--port-offset={offset}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is taken" in done.stderr
    assert "--port-offset" in done.stderr


def test_containers_need_root(tmp_path: Path) -> None:
    """As `nobody`: one line and the mend."""
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)
    setpriv = shutil.which("setpriv")
    assert setpriv, "setpriv belongs to util-linux, which is everywhere"
    command = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", *DURE, "--home", str(home), "up", "-d"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 2, done.stderr
    assert "containers need root" in done.stderr
    assert "--no-containers" in done.stderr


def test_data_folder_of_a_newer_version(tmp_path: Path) -> None:
    up = [*DURE, "--home", str(tmp_path), "up", "-d", "--no-containers", "--no-merge-kubeconfig", "--port-offset=1500"]
    subprocess.run(up, check=True, capture_output=True)
    subprocess.run([*DURE, "--home", str(tmp_path), "down", "--keep"], check=True, capture_output=True)
    with closing(sqlite3.connect(tmp_path / "store/store.db", isolation_level=None)) as database:
        database.execute("update meta set value = 99 where name = 'schema'")
    done = subprocess.run(up, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "99" in done.stderr
    subprocess.run([*DURE, "--home", str(tmp_path), "down", "--purge"], check=True, capture_output=True)
