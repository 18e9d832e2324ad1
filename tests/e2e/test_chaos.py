"""Kill -9 at random of everything that is ours, under load: nothing acknowledged is lost, nobody's work disturbed.

Lasts `DURE_CHAOS_SECONDS` (default 40).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dure.api.kinds import builtin_kinds
from dure.client.client import Client
from dure.client.kubeconfig import transport_from_kubeconfig
from dure.core.errors import AlreadyExists, ApiError, TransportError
from tests.support.machine import main_processes, processes
from tests.support.platform import Platform, eventually, own_platform

SECONDS = float(os.environ.get("DURE_CHAOS_SECONDS", "40"))
READY_WITHIN = 15.0
WRITERS = 8
LEFT = 4
VICTIMS = ("server", "store", "agent", "shim dure-1", "shim dure-2")

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: httpd
        image: busybox
        command: [sh, -c, 'mkdir /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www']
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: churn}
spec:
  replicas: 2
  selector: {matchLabels: {app: churn}}
  template:
    metadata: {labels: {app: churn}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{name: memory, emptyDir: {medium: Memory}}]
      containers:
      - {name: one, image: busybox, command: [sleep, '100000'], volumeMounts: [{name: memory, mountPath: /memory}]}
      - {name: two, image: busybox, command: [sleep, '100000']}
---
apiVersion: v1
kind: Pod
metadata: {name: caller}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: caller
    image: busybox
    command: [sh, -c]
    args:
    - |
      get() { timeout 5 wget -q -O /dev/null http://$WEB_SERVICE_HOST/; }
      until get 2>/dev/null; do sleep 0.1; done
      while true; do
        if get; then echo good; else echo bad; fi
        sleep 0.1
      done
"""

COUNTER = "i=0; while true; do echo $i; i=$((i+1)); usleep 20000; done"

COUNTING = f"""
apiVersion: v1
kind: Pod
metadata: {{name: counting, labels: {{app: counting}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: one, image: busybox, command: [sh, -c, '{COUNTER}']}}
  - {{name: two, image: busybox, command: [sh, -c, '{COUNTER}']}}
  - {{name: three, image: busybox, command: [sh, -c, '{COUNTER}']}}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Platform]:
    with own_platform("dure-chaos-") as made:
        made.up()
        yield made


@dataclass
class Ledger:
    """What the server has said yes to, and what became of the rest."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    broken: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def client_of(platform: Platform) -> AsyncIterator[Client]:
    async with transport_from_kubeconfig(platform.kubeconfig) as transport:
        yield Client(transport, builtin_kinds())


async def write(platform: Platform, ledger: Ledger, writer: int, until: float) -> None:
    """Create one ConfigMap after the other; one without an answer is asked for again under its name."""
    async with client_of(platform) as client:
        number = 0
        while time.monotonic() < until:
            name, value = f"entry-{writer}-{number}", f"value {writer}/{number}"
            meta = {"name": name, "namespace": "default", "labels": {"chaos": "yes"}}
            try:
                async with asyncio.timeout(10):
                    await client.create(
                        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"value": value}}
                    )
                ledger.acknowledged[name] = value
            except AlreadyExists:
                ledger.acknowledged[name] = value  # stored, though the answer was lost
            except (TransportError, TimeoutError):
                ledger.broken += 1
                await asyncio.sleep(0.05)
                continue
            except ApiError as error:
                ledger.refused[f"{error.code} {error.message}"] += 1
                await asyncio.sleep(0.05)
                continue
            number += 1
            await asyncio.sleep(0.005)


async def kill(platform: Platform, until: float) -> Counter[str]:
    """SIGKILL to one of ours after another, now and then to several at once."""
    killed: Counter[str] = Counter()
    while time.monotonic() < until:
        await asyncio.sleep(random.uniform(0.2, 1.5))
        names = random.sample(VICTIMS, random.choice((1, 1, 1, 2, 3)))
        processes = await asyncio.to_thread(platform.processes)
        for name in names:
            if pid := processes.get(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed[name] += 1
    return killed


async def churn(platform: Platform, until: float) -> None:
    """Pods come and go all the while; in the end there are `LEFT`."""
    async with client_of(platform) as client:
        while True:
            over = time.monotonic() > until
            replicas = LEFT if over else random.randint(0, 6)
            change = {"spec": {"replicas": replicas}}
            try:
                async with asyncio.timeout(10):
                    await client.patch("deployments.apps", "churn", "default", change)
            except (TransportError, TimeoutError):
                await asyncio.sleep(0.2)
                continue
            if over:
                return
            await asyncio.sleep(random.uniform(0.5, 2))


async def storm(platform: Platform, ledger: Ledger) -> Counter[str]:
    until = time.monotonic() + SECONDS
    async with asyncio.TaskGroup() as group:
        for writer in range(WRITERS):
            group.create_task(write(platform, ledger, writer, until + 2))
        group.create_task(churn(platform, until))
        killing = group.create_task(kill(platform, until))
    return killing.result()


def test_kill_nine_loses_nothing_and_disturbs_nobody(cluster: Platform) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=f"{WEB}---{COUNTING}")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod", "--all")
    eventually(lambda: "good" in cluster.out("logs", "caller"))
    pods = pods_of(cluster, "app!=churn")
    mains = {uid: main_processes(uid) for uid in pods}
    ledger = Ledger()
    killed = asyncio.run(storm(cluster, ledger))
    print(f"killed {dict(killed)}; {len(ledger.acknowledged)} writes, {ledger.broken} broken, {dict(ledger.refused)}")

    eventually(lambda: is_ready(cluster), within=READY_WITHIN)
    stored = {item["metadata"]["name"]: item["data"]["value"] for item in cluster.get("cm", "-l", "chaos")["items"]}
    lost = {name for name, value in ledger.acknowledged.items() if stored.get(name) != value}
    assert not lost, f"{len(lost)} of {len(ledger.acknowledged)} acknowledged objects are not there: {sorted(lost)[:5]}"
    assert set(killed) == set(VICTIMS) or SECONDS < 30

    eventually(lambda: pods_of(cluster, "app!=churn") == pods, within=15)
    assert {uid: main_processes(uid) for uid in pods} == mains
    assert not ledger.refused
    eventually(lambda: assert_nothing_twice(cluster), within=60)

    for container in ("one", "two", "three"):
        assert_no_gaps(cluster, container)
    calls = Counter(cluster.out("logs", "caller").splitlines())
    assert calls["good"] > SECONDS, calls
    assert not calls["bad"], calls
    before = calls["good"]
    eventually(lambda: cluster.out("logs", "caller").splitlines().count("good") > before + 5)


def is_ready(platform: Platform) -> bool:
    report = json.loads(platform.dure("status", "-o", "json", check=False).stdout)
    return bool(report["ready"]) and len(report["nodes"]) == 2 and all(node["ready"] for node in report["nodes"])


def pods_of(platform: Platform, labels: str) -> dict[str, list[tuple[str, int, bool]]]:
    """Pod uid → its containers, how often each was started again, and whether it runs and is ready."""
    return {
        pod["metadata"]["uid"]: sorted(
            (status["name"], status["restartCount"], "running" in status["state"] and status["ready"])
            for status in pod["status"]["containerStatuses"]
        )
        for pod in platform.get("pods", "-l", labels)["items"]
    }


def assert_nothing_twice(platform: Platform) -> bool:
    """As many pods as wanted, each container once and never started again, and nothing left of those that went."""
    churned = pods_of(platform, "app=churn")
    assert list(churned.values()) == [[("one", 0, True), ("two", 0, True)]] * LEFT, churned
    assert {uid: len(main_processes(uid)) for uid in churned} == dict.fromkeys(churned, 2)
    pods = {pod["metadata"]["uid"]: pod for pod in platform.get("pods", "-A")["items"]}
    containers = sum(len(pod["spec"]["containers"]) for pod in pods.values())
    ours = [cgroups for _, _, cgroups in processes().values() if f"/{platform.instance}/" in cgroups]
    strangers = [cgroups for cgroups in ours if not any(uid in cgroups for uid in pods)]
    assert not strangers
    mounts = Path("/proc/self/mountinfo").read_text()
    assert mounts.count(f"{platform.home}/images/containers/") == containers
    assert {path.name for path in platform.home.glob("run/netns/pods/*")} == set(pods)
    assert {path.name for path in platform.home.glob("nodes/*/pods/*")} == set(pods)
    assert len(list(platform.home.glob("run/*/containers/*"))) == containers
    return True


def assert_no_gaps(platform: Platform, container: str) -> None:
    numbers = [int(line) for line in platform.out("logs", "counting", "-c", container).splitlines()]
    assert numbers[-1] > SECONDS * 5
    missing = set(range(numbers[-1] + 1)) - set(numbers)
    assert not missing, f"{container}: {len(missing)} of {numbers[-1]} lines are missing: {sorted(missing)[:10]}"
