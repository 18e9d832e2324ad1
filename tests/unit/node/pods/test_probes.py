"""Probes as a client sees them: what they do to readiness and restarts, and when."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

from dure.node.pods import grpc_health
from dure.node.pods.probes import Tally, Timing
from dure.node.ports import ExecResult
from dure.node.runtimes.simulated import Script
from tests.support.node import node, restarts


def http(status: int) -> Any:
    return lambda: f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()


GET = {"httpGet": {"path": "/healthz", "port": "http"}}
PORTS = [{"name": "http", "containerPort": 8080}]


def app(**more: Any) -> list[dict[str, Any]]:
    return [{"name": "app", "image": "app:1", "ports": PORTS, **more}]


async def test_readiness_follows_its_probe(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await here.create(containers=app(readinessProbe={**GET, "periodSeconds": 5}))
        pod = await here.wait_phase("Running")
        ready = next(entry for entry in pod["status"]["conditions"] if entry["type"] == "Ready")
        assert ready["message"] == "containers with unready status: [app]"
        here.network.served["*", 8080] = http(204)
        await here.wait_ready()
        here.network.served["*", 8080] = http(500)
        began = here.clock.time()
        await here.wait_for(lambda pod: not pod["status"]["containerStatuses"][0]["ready"])
        assert 10 <= here.clock.time() - began <= 15  # three failures in a row
        told = await here.events()
        refused = 'Get "http://10.244.1.2:8080/healthz": dial tcp 10.244.1.2:8080: connect: connection refused'
        assert f"Warning Unhealthy: Readiness probe failed: {refused}" in told


async def test_a_container_that_fails_liveness_is_restarted(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        here.network.served["*", 8080] = http(503)
        probe = {**GET, "periodSeconds": 1, "failureThreshold": 2, "initialDelaySeconds": 10}
        await here.create(containers=app(livenessProbe=probe))
        pod = await here.wait_for(lambda pod: restarts(pod) == 1)
        assert "terminated" in pod["status"]["containerStatuses"][0]["lastState"]
        told = await here.events()
        assert "Warning Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 503" in told
        assert "Normal Killing: Container app failed liveness probe, will be restarted" in told


async def test_liveness_waits_for_the_startup_probe(tmp_path: Path) -> None:
    results = iter([1] * 5 + [0] * 100)
    answers = Script(answer=lambda args: ExecResult(next(results), b"", b"not yet"))
    async with node(tmp_path, lambda spec: answers) as here:
        await here.create(
            containers=app(
                startupProbe={"exec": {"command": ["up"]}, "periodSeconds": 2, "failureThreshold": 10},
                livenessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1},
            )
        )
        here.network.served["*", 8080] = http(200)
        pod = await here.wait_phase("Running")
        assert pod["status"]["containerStatuses"][0]["started"] is False
        began = here.clock.time()
        pod = await here.wait_ready()
        assert round(here.clock.time() - began) == 10
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


async def test_a_failed_startup_probe_restarts_the_container(tmp_path: Path) -> None:
    never = Script(answer=lambda args: ExecResult(1, b"", b"never"))
    async with node(tmp_path, lambda spec: never) as here:
        await here.create(containers=app(startupProbe={"exec": {"command": ["up"]}, "periodSeconds": 1}))
        await here.wait_for(lambda pod: restarts(pod) == 1)
        told = await here.events()
        assert "Warning Unhealthy: Startup probe failed: never" in told
        assert "Normal Killing: Container app failed startup probe, will be restarted" in told


def test_thresholds_count_in_a_row() -> None:
    tally = Tally(Timing.of({"successThreshold": 2, "failureThreshold": 3}))
    outcomes = [True, True, False, False, True, False, False, False]
    assert [tally.add(ok) for ok in outcomes] == [None, True, None, None, None, None, None, False]


async def test_grpc_health_is_asked_in_plain_http2() -> None:
    writer = _Recorder()
    serving = b"\x00" + struct.pack(">I", 2) + b"\x08\x01"
    answer = (
        grpc_health.frame(grpc_health.SETTINGS, 0, 0)
        + grpc_health.frame(grpc_health.HEADERS, grpc_health.END_HEADERS, 1, b"\x88")
        + grpc_health.frame(grpc_health.DATA, 0, 1, serving)
        + grpc_health.frame(grpc_health.HEADERS, grpc_health.END_HEADERS | grpc_health.END_STREAM, 1, b"\x88")
    )
    reader = asyncio.StreamReader()
    reader.feed_data(answer)
    assert await grpc_health.check(reader, writer, "10.0.0.1:50051", "shop") == (True, "service healthy")
    assert writer.data.startswith(grpc_health.PREFACE)
    assert b"\x0a\x04shop" in writer.data


def test_a_grpc_service_that_does_not_serve() -> None:
    assert grpc_health.verdict(b"\x00\x00\x00\x00\x02\x08\x02") == (
        False,
        'service unhealthy (responded with "NOT_SERVING")',
    )


class _Recorder:
    data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None: ...
