"""`dure status`: the platform's processes, nodes and pods."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dure.api.durations import human_duration
from dure.apps.supervisor import is_running, read_state
from dure.cli.home import settings_of
from dure.cli.screen import bad, faint, good, say, size, table
from dure.core.errors import DureError
from dure.core.json import dumps_pretty
from dure.core.process import children_of, usage_of
from dure.core.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")


def run(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    report = make_report(settings)
    if arguments.output == "json":
        say(dumps_pretty(report))
    else:
        _print(settings, report)
    return 0 if report["running"] else 1


def make_report(settings: Settings) -> dict[str, Any]:
    """{running, ready, home, api, context, processes: [{name, pid, memory, cpu, …}], nodes, pods, problems}."""
    running = is_running(settings)
    state = read_state(settings) if running else {}
    report: dict[str, Any] = {
        "running": running,
        "ready": bool(state.get("ready")),
        "home": settings.home,
        "api": settings.api_url,
        "kubeconfig": str(settings.kubeconfig),
        "context": settings.context,
        "processes": _processes(settings, state) if running else [],
        "nodes": [],
        "pods": {},
        "problems": list(_problems(settings, state)),
    }
    if report["ready"]:
        try:
            report.update(asyncio.run(_cluster(settings)))
        except (DureError, OSError) as error:
            report["ready"] = False
            report["problems"].append(f"the API does not answer: {error or type(error).__name__}")
    return report


def _problems(settings: Settings, state: dict[str, Any]) -> Iterator[str]:
    """Daemons that are not there, why, and where to look."""
    for entry in state.get("processes", []):
        if entry["problem"] and not entry["ready"]:
            mend = entry["mend"] or f"see {settings.log_dir / entry['name']}.log"
            yield f"{entry['name']}: {entry['problem']}; started again {entry['restarts']} times; {mend}"


def _processes(settings: Settings, state: dict[str, Any]) -> list[dict[str, Any]]:
    found = [_process("supervisor", state.get("pid", 0), state.get("started", 0.0), 0)]
    for entry in state.get("processes", []):
        found.append(_process(entry["name"], entry["pid"], entry["started"], entry["restarts"]))
        for child in children_of(entry["pid"]):
            found.append(_process(_name_of(child), child, entry["started"], 0))
    for lock in sorted(settings.run_dir.glob("*/lock")):  # each node's monitor writes its pid there
        if (text := lock.read_text().strip()).isdigit():
            found.append(_process(f"shim {lock.parent.name}", int(text), lock.stat().st_mtime, 0))
    return [entry for entry in found if entry["pid"]]


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip().removeprefix("dure-")
    except OSError:
        return "child"


def _process(name: str, pid: int, started: float, restarts: int) -> dict[str, Any]:
    usage = usage_of(pid)
    return {
        "name": name,
        "pid": pid if usage else 0,
        "started": started,
        "restarts": restarts,
        "memory_bytes": usage.memory_bytes if usage else 0,
        "cpu_seconds": usage.cpu_seconds if usage else 0.0,
    }


async def _cluster(settings: Settings) -> dict[str, Any]:
    from dure.api.meta import condition, name_of
    from dure.apps.access import open_client

    async with open_client(settings) as client, asyncio.timeout(5):
        nodes = (await client.list("nodes")).items
        pods = (await client.list("pods")).items
    phases: dict[str, int] = {}
    for pod in pods:
        phase = (pod.get("status") or {}).get("phase", "Pending")
        phases[phase] = phases.get(phase, 0) + 1
    listed = []
    for node in nodes:
        ready = condition(node, "Ready")
        on_it = sum(pod["spec"].get("nodeName") == name_of(node) for pod in pods)
        listed.append({"name": name_of(node), "ready": bool(ready and ready["status"] == "True"), "pods": on_it})
    return {"nodes": listed, "pods": phases}


def _print(settings: Settings, report: dict[str, Any]) -> None:
    if not report["running"]:
        say(bad("not running") + f": {settings.home}")
        say(faint("  start it: dure up -d"))
        return
    say((good("ready") if report["ready"] else "starting") + f": {report['api']}   context {report['context']}")
    now = time.time()
    say()
    rows = [
        (entry["name"], entry["pid"], size(entry["memory_bytes"]), f"{entry['cpu_seconds']:.1f} s",
         human_duration(now - entry["started"]), entry["restarts"])
        for entry in report["processes"]
    ]  # fmt: skip
    table(["PROCESS", "PID", "MEMORY", "CPU", "AGE", "RESTARTS"], rows)
    if report["nodes"]:
        say()
        table(
            ["NODE", "STATUS", "PODS"],
            [(node["name"], "Ready" if node["ready"] else "NotReady", node["pods"]) for node in report["nodes"]],
        )
        say()
        say("pods: " + (", ".join(f"{count} {phase}" for phase, count in sorted(report["pods"].items())) or "none"))
    for problem in report["problems"]:
        say(bad(problem))
