"""One part of the platform dies: the others go on, it comes back, and everybody is told the truth meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.machine import main_processes, processes
from tests.support.platform import Platform, eventually, kubectls, own_platform

RUNNER = """
apiVersion: v1
kind: Pod
metadata: {name: runner}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: app, image: busybox, command: [sh, -c, 'i=0; while true; do echo $i; i=$((i+1)); sleep 0.2; done']}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Platform]:
    with own_platform("dure-restarts-") as made:
        made.up()
        made.kubectl("apply", "-f", "-", stdin=RUNNER)
        made.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/runner")
        yield made


@pytest.fixture
def undisturbed(cluster: Platform) -> Iterator[None]:
    """Whatever the test does, the pod goes on as it was."""
    before = runner(cluster)
    mains = main_processes(before["metadata"]["uid"])
    assert len(mains) == 1
    yield
    assert main_processes(before["metadata"]["uid"]) == mains
    status = eventually(lambda: ready_status(cluster), within=15)
    assert (status["restartCount"], status["ready"]) == (0, True)
    assert runner(cluster)["metadata"]["uid"] == before["metadata"]["uid"]


def runner(cluster: Platform) -> dict[str, Any]:
    return dict(cluster.get("pod", "runner"))


def ready_status(cluster: Platform) -> dict[str, Any]:
    status: dict[str, Any] = runner(cluster)["status"]["containerStatuses"][0]
    return status if status["ready"] else {}


def status(cluster: Platform) -> dict[str, Any]:
    return dict(json.loads(cluster.dure("status", "-o", "json", check=False).stdout))


def kill(cluster: Platform, name: str) -> int:
    pid = cluster.processes()[name]
    os.kill(pid, signal.SIGKILL)
    return pid


def is_back(cluster: Platform, name: str, killed: int) -> bool:
    report = status(cluster)
    return bool(report["ready"]) and cluster.processes().get(name, killed) != killed


@pytest.mark.usefixtures("undisturbed")
def test_agent_is_back_soon(cluster: Platform) -> None:
    killed = kill(cluster, "agent")
    eventually(lambda: is_back(cluster, "agent", killed), within=10)
    assert cluster.out("exec", "runner", "--", "echo", "well") == "well"


@pytest.mark.usefixtures("undisturbed")
def test_server_is_back_and_everyone_takes_up_work_again(cluster: Platform) -> None:
    killed = kill(cluster, "server")
    eventually(lambda: is_back(cluster, "server", killed), within=10)
    cluster.kubectl("create", "deployment", "after", "--image=busybox", "--", "sleep", "1000")
    cluster.kubectl("rollout", "status", "deployment/after", "--timeout=15s")
    cluster.kubectl("delete", "deployment", "after")


@pytest.mark.usefixtures("undisturbed")
def test_store_writer_dies_unnoticed(cluster: Platform) -> None:
    killed = kill(cluster, "store")
    cluster.kubectl("create", "configmap", "written", "--from-literal=a=b")
    assert cluster.processes()["store"] != killed


@pytest.mark.usefixtures("undisturbed")
def test_monitor_is_back_at_once(cluster: Platform) -> None:
    name = f"shim {runner(cluster)['spec']['nodeName']}"
    killed = kill(cluster, name)
    eventually(lambda: cluster.processes().get(name, killed) != killed, within=10)
    assert cluster.out("exec", "runner", "--", "echo", "well") == "well"


@pytest.mark.parametrize("victim", ["agent", "server"])
@pytest.mark.usefixtures("undisturbed")
def test_sessions_end_when_their_other_end_dies(cluster: Platform, victim: str) -> None:
    sessions = [
        subprocess.Popen(
            [kubectls()[0], *arguments],
            env=cluster.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments in (("logs", "-f", "runner"), ("exec", "runner", "--", "sh", "-c", "echo hi; sleep 77"))
    ]
    try:
        for session in sessions:
            assert session.stdout is not None and session.stdout.readline()
        killed = kill(cluster, victim)
        for session in sessions:
            session.communicate(timeout=5)
        assert sessions[1].returncode != 0
    finally:
        for session in sessions:
            session.kill()
            session.communicate()
    eventually(lambda: is_back(cluster, victim, killed), within=8)
    uid = runner(cluster)["metadata"]["uid"]
    eventually(lambda: not [words for _, words, cgroups in processes().values() if uid in cgroups and "77" in words])


@pytest.mark.usefixtures("undisturbed")
def test_platform_without_supervisor_ends_and_is_taken_over(cluster: Platform) -> None:
    daemons = cluster.processes()
    os.kill(daemons["supervisor"], signal.SIGKILL)
    eventually(lambda: not {daemons["server"], daemons["store"], daemons["agent"]} & set(processes()), within=10)
    report = status(cluster)
    assert (report["running"], report["ready"], report["processes"]) == (False, False, [])
    cluster.up()
    assert {name: pid for name, pid in cluster.processes().items() if name.startswith("shim")} == {
        name: pid for name, pid in daemons.items() if name.startswith("shim")
    }


@pytest.mark.usefixtures("undisturbed")
def test_up_right_after_the_supervisor_was_killed(cluster: Platform) -> None:
    os.kill(cluster.processes()["supervisor"], signal.SIGKILL)
    cluster.up()
    assert status(cluster)["ready"]


@pytest.mark.usefixtures("undisturbed")
def test_up_after_everything_of_ours_was_killed(cluster: Platform) -> None:
    for pid in cluster.processes().values():
        os.kill(pid, signal.SIGKILL)
    cluster.up()
    assert cluster.out("exec", "runner", "--", "echo", "well") == "well"


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("detached", [["-d"], []])
def test_second_up_is_refused_and_harms_nothing(cluster: Platform, detached: list[str]) -> None:
    second = cluster.dure("up", *detached, "--nodes=3", check=False)
    assert (second.returncode, second.stdout) == (2, "")
    assert "a platform is already running in" in second.stderr
    assert json.loads((cluster.home / "settings.json").read_text())["nodes"] == 2


def test_of_two_ups_at_once_one_wins() -> None:
    with own_platform("dure-twice-") as platform:
        command = platform.command("up", "-d", *platform.options())
        ups = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        said = [up.communicate(timeout=60) for up in ups]
        assert sorted(up.returncode for up in ups) == [0, 2, 2], said
        assert status(platform)["ready"]


def test_daemon_that_does_not_stay_up_is_reported(cluster: Platform) -> None:
    """Its store cannot be read any more; once it can, the platform recovers by itself."""
    store = cluster.home / "store"
    store.rename(cluster.home / "away")
    store.write_text("not a folder")
    kill(cluster, "server")
    try:
        report = eventually(lambda: (report := status(cluster))["problems"] and report, within=10)
        assert not report["ready"]
        time.sleep(2)
        report = status(cluster)
        assert not report["ready"]
        assert report["problems"][0].startswith("server: ")
        assert "Not a directory" in report["problems"][0] or "File exists" in report["problems"][0]
    finally:
        store.unlink()
        (cluster.home / "away").rename(store)
    eventually(lambda: status(cluster)["ready"], within=15)
    assert status(cluster)["problems"] == []
