"""Rollouts as transcripts: each `> command` of a scenario, and below it what could be seen second by second.

A line names, for each revision, pods wanted / there / available, and the deployment's own view of it.
Commands: create KEY=VALUE..., image NAME, scale N, pause, resume, undo REVISION, pods KEY=VALUE..., wait SECONDS.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dure.api.meta import annotations_of, condition
from dure.controllers.deployment import DeploymentReconciler
from dure.controllers.replicaset import ReplicaSetReconciler
from dure.controllers.rollout import HASH_LABEL, REVISION
from dure.core.json import Obj, thaw
from tests.support.loop import run_virtual
from tests.unit.controllers.cluster import Cluster, Fate, cluster, deployment

SCENARIOS = sorted((Path(__file__).parent / "rollouts").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_rollout_transcript(path: Path, pytestconfig: pytest.Config) -> None:
    golden = path.read_text()
    found = run_virtual(play(golden.splitlines()))
    if pytestconfig.getoption("--rewrite"):
        path.write_text(found)
    assert found == path.read_text()


async def play(script: list[str]) -> str:
    """The script with its transcript: comments and commands stay, all else is seen anew."""
    async with cluster(
        lambda context: DeploymentReconciler(context).build(),
        lambda context: ReplicaSetReconciler(context).build(),
    ) as there:
        stage = Stage(there)
        for line in script:
            if line.startswith("> "):
                stage.lines.append(line)
                await stage.run(line[2:])
            elif line.startswith("#") or not line:
                stage.lines.append(line)
    return "\n".join(stage.lines) + "\n"


class Stage:
    def __init__(self, there: Cluster) -> None:
        self.there = there
        self.lines: list[str] = []
        self._last = ""
        self._broken: set[str] = set()
        there.kubelet.fate = self._fate

    def _fate(self, pod: Obj) -> Fate:
        return "running" if pod["spec"]["containers"][0]["image"] in self._broken else "ready"

    async def run(self, command: str) -> None:
        verb, *words = command.split()
        verbs: dict[str, Callable[..., Awaitable[Any]]] = {
            "create": self._create,
            "image": lambda name: self._edit(lambda obj: _first_container(obj).update(image=name)),
            "scale": lambda size: self._edit(lambda obj: obj["spec"].update(replicas=int(size))),
            "pause": lambda: self._edit(lambda obj: obj["spec"].update(paused=True)),
            "resume": lambda: self._edit(lambda obj: obj["spec"].update(paused=False)),
            "undo": self._undo,
            "pods": self._pods,
            "wait": self._wait,
        }
        await verbs[verb](*words)

    async def _create(self, *words: str) -> None:
        options = dict(word.split("=") for word in words)
        body = deployment("web", int(options.pop("replicas")), options.pop("image", "app:1"))
        strategy = options.pop("strategy", "RollingUpdate")
        body["spec"]["strategy"] = {"type": strategy}
        if strategy == "RollingUpdate":
            rolling = {"maxSurge": options.pop("surge", "25%"), "maxUnavailable": options.pop("away", "25%")}
            body["spec"]["strategy"]["rollingUpdate"] = {key: _number(value) for key, value in rolling.items()}
        body["spec"] |= {key: _number(value) for key, value in options.items()}
        await self.there.client.create(body)

    async def _edit(self, change: Callable[[Obj], Any]) -> None:
        await self.there.change("deployments.apps", "web", change)

    async def _undo(self, revision: str) -> None:
        sets = await self.there.all("replicasets.apps")
        template = next(thaw(item["spec"]["template"]) for item in sets if annotations_of(item)[REVISION] == revision)
        del template["metadata"]["labels"][HASH_LABEL]
        await self._edit(lambda obj: obj["spec"].update(template=template))

    async def _pods(self, *words: str) -> None:
        for key, _, value in (word.partition("=") for word in words):
            match key:
                case "ready":
                    self.there.kubelet.ready_seconds = float(value)
                case "stop":
                    self.there.kubelet.stop_seconds = float(value)
                case "broken":
                    self._broken.add(value)
                case "mended":
                    self._broken.discard(value)
                    self.there.kubelet.look_again()

    async def _wait(self, seconds: str) -> None:
        for _ in range(int(seconds)):
            await self.there.settle(1)
            line = await self._view()
            if line != self._last:
                self.lines.append(f"{self.there.clock.time() - 1_700_000_000:5.0f}s  {line}")
                self._last = line

    async def _view(self) -> str:
        found = await self.there.client.get("deployments.apps", "web", "default")
        sets = await self.there.all("replicasets.apps")
        parts = [_set(item) for item in sorted(sets, key=lambda item: int(annotations_of(item)[REVISION]))]
        status = found.get("status") or {}
        counts = "/".join(
            str(status.get(name, 0)) for name in ("updatedReplicas", "readyReplicas", "availableReplicas")
        )
        said = [(condition(found, type_) or {}) for type_ in ("Available", "Progressing")]
        available, progress = (entry.get("reason", "-") for entry in said)
        leaving = len(await self.there.all("pods")) - len(await self.there.pods())
        tail = f"  ({leaving} leaving)" if leaving else ""
        return f"{'  '.join(parts)}  | {counts} {available} {progress}{tail}"


def _set(item: Obj) -> str:
    status = item.get("status") or {}
    counts = (item["spec"]["replicas"], status.get("replicas", 0), status.get("availableReplicas", 0))
    return f"#{annotations_of(item)[REVISION]} " + "/".join(map(str, counts))


def _first_container(obj: Obj) -> Obj:
    found: Obj = obj["spec"]["template"]["spec"]["containers"][0]
    return found


def _number(value: str) -> int | str:
    return int(value) if value.isdigit() else value
