"""Starting: the command line, the API, the nodes, the first pod, an application with DNS, the shop.

Times run from the start of the `dure up` process and are seen from outside, over HTTPS. Images are present.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bench.api import Connection, connect
from bench.bare_server import running_bare
from bench.measure import cpu_seconds
from bench.platform import _UP, IMAGE, Platform, wait_account
from bench.table import Row
from bench.workloads import Obj, caller, is_node_ready, is_running, pod, web
from dure.apps.supervisor import read_state

_PODS = "/api/v1/namespaces/default/pods"
_WITHIN = 120.0


async def run(platform: Platform, *, rounds: int = 3) -> AsyncIterator[Row]:
    bare, version = [], []
    for _ in range(9):
        bare.append(await _wall(sys.executable, "-c", "pass"))
        version.append(await _wall(*platform.command("version")))
    yield Row(
        "dure version", _ms(version), "ms", 150, peer="python -c pass", peer_value=_ms(bare),
    )  # fmt: skip
    times: dict[str, list[float]] = {}
    served: list[float] = []
    for _ in range(rounds):
        served.append(await _bare_start())
        for scene in (_first_pod, _application):
            async with _started(platform) as began:
                for name, seconds in (await scene(platform, began)).items():
                    times.setdefault(name, []).append(seconds)
    yield _row("dure up → API answering", times["api"], 0.5, "bare aiohttp over TLS", statistics.median(served))
    yield _row("dure up → nodes ready", times["nodes"])
    yield _row("dure up → first pod running", times["pod"], 1.0)
    yield _row("CPU of all daemons until then", times["cpu"])
    yield _row("dure up → app answering by its DNS name", times["app"], 2.0)
    async for row in _shop(platform, rounds):
        yield row


def _row(name: str, seconds: list[float], goal: float | None = None, peer: str = "", value: float | None = None) -> Row:
    facts = {"rounds": " ".join(f"{second:.2f}" for second in seconds)}
    return Row(name, statistics.median(seconds), "s", goal, peer=peer, peer_value=value, facts=facts)


def _ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1e3


async def _wall(*command: str) -> float:
    began = time.perf_counter()
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    await child.wait()
    return time.perf_counter() - began


async def _bare_start() -> float:
    """From starting a Python process to the first answer of a bare server over TLS."""
    began = time.perf_counter()
    async with running_bare(b"ok") as (place, _):
        connection = await connect(place.host, place.port, place.tls())
        await connection.send("GET", "/")
        connection.close()
        return time.perf_counter() - began


@asynccontextmanager
async def _started(platform: Platform, *, keep: bool = False) -> AsyncIterator[float]:
    """`dure up` under way, not waited for; when it began."""
    began = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(platform.dure(*_UP))
            async with asyncio.timeout(_WITHIN):
                yield began
                await starting
    finally:
        await platform.down(keep=keep)


async def _first_pod(platform: Platform, began: float) -> dict[str, float]:
    api = await _answering(platform)
    answered = time.perf_counter() - began
    async with asyncio.TaskGroup() as group:
        nodes = group.create_task(_wait_nodes(platform))
        await wait_account(await platform.connect(), "default")
        await _post(api, _PODS, pod("first", IMAGE, ["sleep", "1000"]))
        ran = group.create_task(_wait(platform, f"{_PODS}?fieldSelector=metadata.name=first", is_running))
    api.close()
    cpu = cpu_seconds([read_state(platform.settings)["pid"]])
    return {"api": answered, "nodes": nodes.result() - began, "pod": ran.result() - began, "cpu": cpu}


async def run_pod(platform: Platform) -> None:
    """One pod of the benchmark's image, so that it is present."""
    await _first_pod(platform, time.perf_counter())


async def _application(platform: Platform, began: float) -> dict[str, float]:
    """A Deployment behind a Service, called by a pod by its DNS name until it answers."""
    api = await _answering(platform)
    answered = time.perf_counter() - began
    await wait_account(await platform.connect(), "default")
    deployment, service = web("web", IMAGE)
    await _post(api, "/apis/apps/v1/namespaces/default/deployments", deployment)
    await _post(api, "/api/v1/namespaces/default/services", service)
    await _post(api, _PODS, caller("caller", IMAGE, "http://web.default.svc.cluster.local/"))
    ended = await _wait(
        platform, f"{_PODS}?fieldSelector=metadata.name=caller", lambda obj: obj["status"].get("phase") == "Succeeded"
    )
    api.close()
    return {"api": answered, "app": ended - began}


async def _shop(platform: Platform, rounds: int) -> AsyncIterator[Row]:
    """The whole example: deployed onto a fresh platform, and found again by a start with its objects kept."""
    deployed, again = [], []
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(platform.down)
        began = time.perf_counter()
        await platform.up()
        url = await platform.deploy_shop()
        await _wait_answer(url)
        deployed.append(time.perf_counter() - began)
        await platform.down(keep=True)
        for _ in range(rounds):
            async with _started(platform, keep=True) as began:
                await _answering(platform)
                await _wait_answer(url)
                again.append(time.perf_counter() - began)
    yield _row("dure up, dure deploy shop → shop answering", deployed)
    yield _row("dure up with the shop kept → shop answering", again, 2.0)


async def _answering(platform: Platform) -> Connection:
    """The first connection whose health check is answered."""
    while True:
        with contextlib.suppress(ConnectionError, FileNotFoundError, AssertionError):
            api = await platform.connect()
            if (await api.send("GET", "/readyz"))[0] == 200:
                return api
        await asyncio.sleep(0.002)


async def _post(api: Connection, path: str, obj: Obj) -> None:
    await api.json("POST", path, obj)


async def _wait(platform: Platform, path: str, is_there: Callable[[Obj], bool]) -> float:
    """When the one object of a selection first was as asked."""
    watcher = await platform.connect()
    async for event in watcher.watch(f"{path}&watch=true"):
        if event["type"] in ("ADDED", "MODIFIED") and is_there(event["object"]):
            break
    watcher.close()
    return time.perf_counter()


async def _wait_nodes(platform: Platform) -> float:
    watcher = await platform.connect()
    ready: set[str] = set()
    wanted = set(platform.settings.node_names())
    async for event in watcher.watch("/api/v1/nodes?watch=true"):
        if event["type"] in ("ADDED", "MODIFIED") and is_node_ready(event["object"]):
            ready.add(event["object"]["metadata"]["name"])
        if ready >= wanted:
            break
    watcher.close()
    return time.perf_counter()


async def _wait_answer(url: str) -> None:
    """The front, and orders out of the database behind it."""

    def ask() -> None:
        for path in ("/", "/api/products", "/api/orders"):
            with urllib.request.urlopen(url.rstrip("/") + path, timeout=5) as answer:
                answer.read()

    while True:
        try:
            return await asyncio.to_thread(ask)
        except OSError:
            await asyncio.sleep(0.02)
