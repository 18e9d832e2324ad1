"""Placing pods on 5,000 nodes: the matrix against a plain loop over the nodes. `python -m bench.scheduler`."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from typing import Any

from bench.measure import Contender, Sample, Stopwatch, interleaved, report, write_json
from dure.core.json import Obj
from dure.scheduler.matrix import NodeMatrix
from dure.scheduler.needs import CPU, HOSTNAME, MEMORY, ZONE, Needs, compile_needs
from dure.scheduler.rules import choose

ZONES, DEPLOYMENTS = 10, 50


def node(number: int) -> Obj:
    labels = {HOSTNAME: f"n{number}", ZONE: f"z{number % ZONES}"}
    allocatable = {"cpu": "32", "memory": "128Gi", "pods": "110"}
    return {
        "metadata": {"name": f"n{number}", "labels": labels},
        "spec": {},
        "status": {"allocatable": allocatable},
    }


def pod(number: int, **spec: Any) -> Obj:
    """Of one of fifty deployments."""
    app = f"app-{number % DEPLOYMENTS}"
    owner = {"kind": "ReplicaSet", "name": app, "uid": app, "controller": True}
    meta = {"name": f"p{number}", "namespace": "default", "labels": {"app": app}, "ownerReferences": [owner]}
    container = {"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}
    return {"metadata": meta, "spec": {"containers": [container], **spec}}


def basic(number: int) -> Obj:
    made = pod(number)
    del made["metadata"]["ownerReferences"]
    return made


def spreading(number: int) -> Obj:
    selector = {"matchLabels": {"app": f"app-{number % DEPLOYMENTS}"}}
    constraint = {"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}
    return pod(number, topologySpreadConstraints=[constraint])


def repelling(number: int) -> Obj:
    """Two pods of one of ten thousand groups never share a host."""
    made = pod(number)
    group = {"group": str(number % 500)}
    made["metadata"]["labels"] |= group
    term = {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": group}}
    made["spec"]["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return made


PROFILES: dict[str, Callable[[int], Obj]] = {
    "basic": basic,
    "of a deployment": pod,
    "hard spreading": spreading,
    "anti-affinity": repelling,
}


def by_matrix(nodes: int, make: Callable[[int], Obj], seconds: float) -> Contender:
    """Compile, choose and charge one pod after another."""

    async def run() -> Sample:
        matrix = NodeMatrix()
        for number in range(nodes):
            matrix.put_node(node(number))
        return placed(matrix, make, seconds)

    return run


def placed(matrix: NodeMatrix, make: Callable[[int], Obj], seconds: float) -> Sample:
    latencies: list[float] = []
    with Stopwatch() as watch:
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            item = make(len(latencies))
            needs = compile_needs(item)
            verdict = choose(matrix, needs, len(latencies))
            assert verdict.node, verdict.message
            matrix.put_pod(item["metadata"]["name"], verdict.node, needs)
            latencies.append(time.perf_counter() - began)
    return Sample(len(latencies), watch.seconds, watch.cpu_seconds, latencies)


def by_loop(nodes: int, seconds: float) -> Contender:
    """What a loop over nodes costs at the least: do cpu, memory and pods fit, which has most room; no other rule."""

    async def run() -> Sample:
        rooms = [[32_000, 128 << 30, 110] for _ in range(nodes)]
        latencies: list[float] = []
        with Stopwatch() as watch:
            until = time.perf_counter() + seconds
            while (began := time.perf_counter()) < until:
                roomiest(rooms, compile_needs(basic(len(latencies))))
                latencies.append(time.perf_counter() - began)
        return Sample(len(latencies), watch.seconds, watch.cpu_seconds, latencies)

    return run


def roomiest(rooms: list[list[int]], needs: Needs) -> None:
    cpu, memory = needs.requests[CPU], needs.requests[MEMORY]
    best, most = -1, -1.0
    for index, (free_cpu, free_memory, free_pods) in enumerate(rooms):
        if free_cpu >= cpu and free_memory >= memory and free_pods:
            score = (free_cpu - cpu) / 32_000 + (free_memory - memory) / (128 << 30)
            if score > most:
                best, most = index, score
    room = rooms[best]
    room[0], room[1], room[2] = room[0] - cpu, room[1] - memory, room[2] - 1


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--json", default="", help="file for the figures, - for the screen")
    options = parser.parse_args()
    limit = "plain loop, resources only"
    contenders = {limit: by_loop(options.nodes, options.seconds)}
    for name, make in PROFILES.items():
        contenders[f"matrix, {name}"] = by_matrix(options.nodes, make, options.seconds)
    figures = await interleaved(contenders, options.rounds)
    reports = [report(f"Pods placed on {options.nodes:,} nodes", figures, limit)]
    if options.json:
        write_json(options.json, reports)


if __name__ == "__main__":
    asyncio.run(main())
