"""`dure down` leaves the machine as `dure up` found it, however the platform ended.

Each test has a machine of its own (namespaces), so that everything on it can be compared, whatever else runs here.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dure.images.service import open_store
from tests.support.machine import OwnMachine, own_machine
from tests.support.platform import Platform, eventually, kubectls

EVERYTHING = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {token: t0ps3cret}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{port: 8095, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: httpd
        image: busybox
        command: [sh, -c, 'mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www']
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: full}
spec:
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: settings, configMap: {name: settings}}
  - {name: keys, secret: {secretName: keys}}
  - {name: host, hostPath: {path: /usr/share}}
  - {name: disk, persistentVolumeClaim: {claimName: disk}}
  - {name: image, image: {reference: busybox}}
  - name: all
    projected:
      sources:
      - {secret: {name: keys}}
      - {serviceAccountToken: {path: who}}
      - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
  containers:
  - name: app
    image: busybox
    tty: true
    stdin: true
    command: [sh, -c, 'echo $HOSTNAME >> /disk/starts; echo a > /scratch/a; setsid sleep 9000 & exec sleep 9001']
    ports: [{containerPort: 8080, hostPort: 8096}]
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: memory, mountPath: /memory}
    - {name: settings, mountPath: /settings}
    - {name: settings, mountPath: /colour, subPath: colour}
    - {name: keys, mountPath: /keys}
    - {name: host, mountPath: /host, mountPropagation: HostToContainer}
    - {name: disk, mountPath: /disk}
    - {name: image, mountPath: /image}
    - {name: all, mountPath: /all}
  - name: stubborn
    image: busybox
    command: [sh, -c, 'trap "" TERM; while true; do sleep 1; done']
---
apiVersion: v1
kind: Pod
metadata: {name: on-host}
spec:
  hostNetwork: true
  hostPID: true
  hostIPC: true
  terminationGracePeriodSeconds: 1
  containers:
  - {name: app, image: busybox, command: [sleep, '9002']}
"""


@pytest.fixture
def machine() -> Iterator[OwnMachine]:
    with own_machine() as made:
        yield made


@pytest.fixture
def platform(machine: OwnMachine) -> Iterator[Platform]:
    """Not started. Its machine has no way out, so the image is here beforehand."""
    home = Path(tempfile.mkdtemp(prefix="dure-trace-"))
    asyncio.run(open_store(home, stand_ins=True).pull("busybox"))
    networks = ("10.244.0.0/16", "10.96.0.0/16", "10.243.0.0/24")
    made = Platform(home, offset=0, networks=networks, within=machine.enter)
    try:
        yield made
    finally:
        made.dure("down", "--purge", check=False)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def before(machine: OwnMachine, platform: Platform) -> dict[str, list[str]]:
    return traces(machine, platform)


def traces(machine: OwnMachine, platform: Platform) -> dict[str, list[str]]:
    return machine.traces(platform.instance)


def fill(platform: Platform) -> None:
    """Pods with everything that pods have."""
    platform.kubectl("apply", "-f", "-", stdin=EVERYTHING)
    platform.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    platform.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod", "--all")


def open_sessions(platform: Platform) -> list[subprocess.Popen[bytes]]:
    """Commands of users who have not gone home yet."""
    return [
        subprocess.Popen(
            [*platform.within, kubectls()[0], *arguments],
            env=platform.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for arguments in (
            ("exec", "-i", "full", "-c", "app", "--", "sh", "-c", "echo $$; cat"),
            ("logs", "-f", "deployment/web"),
            ("attach", "-i", "full", "-c", "app"),
            ("get", "pods", "-w"),
        )
    ]


def finish(sessions: list[subprocess.Popen[bytes]]) -> None:
    """They end by themselves, the watch excepted."""
    *own, watch = sessions
    try:
        for session in own:
            session.wait(timeout=20)
    finally:
        for session in sessions:
            session.kill()
            session.communicate()
    del watch


def same(machine: OwnMachine, platform: Platform, before: dict[str, list[str]]) -> bool:
    """Raises AssertionError naming what is new and what is gone."""
    after = traces(machine, platform)
    for kind, was in before.items():
        new, gone = [text for text in after[kind] if text not in was], [text for text in was if text not in after[kind]]
        assert after[kind] == was, f"{kind}: new {new}, gone {gone}"
    return True


def test_down_leaves_nothing(machine: OwnMachine, platform: Platform, before: dict[str, list[str]]) -> None:
    platform.up()
    fill(platform)
    sessions = open_sessions(platform)
    assert machine.run(*machine.enter, "wget", "-q", "-O-", "http://127.0.0.1:8095/") == "hello\n"
    platform.dure("down")
    finish(sessions)
    same(machine, platform, before)
    assert sorted(path.name for path in platform.home.iterdir()) == ["client", "images"]


def test_down_after_everything_was_killed(
    machine: OwnMachine, platform: Platform, before: dict[str, list[str]]
) -> None:
    platform.up()
    fill(platform)
    victims = [platform.processes()[name] for name in ("supervisor", "server", "store", "agent")]
    victims += [pid for name, pid in platform.processes().items() if name.startswith("shim")]
    assert len(victims) == 6
    machine.run(*machine.enter, "kill", "-9", *map(str, victims))
    platform.dure("down")
    same(machine, platform, before)


def test_interrupted_foreground_leaves_nothing(
    machine: OwnMachine, platform: Platform, before: dict[str, list[str]]
) -> None:
    with subprocess.Popen(
        platform.command("up", *platform.options()), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as up:
        assert up.stdout is not None
        said = next(line for line in up.stdout if "Dure is up" in line or "✗" in line)
        assert "Dure is up" in said
        fill(platform)
        inside = next(pid for pid, words in machine.processes().items() if " up --stand-ins" in words)
        machine.run(*machine.enter, "kill", "-INT", str(inside))
        rest = up.stdout.read()
        assert up.wait(timeout=30) == 0, rest
    same(machine, platform, before)


def test_kept_platform_is_found_again(machine: OwnMachine, platform: Platform, before: dict[str, list[str]]) -> None:
    platform.up()
    fill(platform)
    pods = restarts(platform)
    platform.dure("down", "--keep")
    same(machine, platform, before)
    platform.up()
    eventually(lambda: restarts(platform) == {key: count + 1 for key, count in pods.items()}, within=30)
    platform.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod", "--all")
    assert platform.out("exec", "full", "-c", "app", "--", "cat", "/disk/starts") == "full\nfull"
    assert platform.out("exec", "full", "-c", "app", "--", "cat", "/scratch/a", "/settings/colour") == "a\ngreen"
    eventually(lambda: machine.run(*machine.enter, "wget", "-q", "-O-", "http://127.0.0.1:8095/") == "hello\n")
    platform.dure("down")
    same(machine, platform, before)


def restarts(platform: Platform) -> dict[tuple[str, str], int]:
    """(pod uid, container) → how often it was started again."""
    return {
        (pod["metadata"]["uid"], status["name"]): status["restartCount"]
        for pod in platform.get("pods")["items"]
        for status in pod["status"]["containerStatuses"]
        if "running" in status["state"]
    }
