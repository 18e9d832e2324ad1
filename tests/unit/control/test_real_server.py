"""The kit on the real API server: informers, leases and events as the platform uses them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from dure.api.kinds import builtin_kinds
from dure.api.meta import name_of
from dure.apiserver.parts import Setup
from dure.apiserver.server import ApiServer
from dure.client.client import Client
from dure.client.events import EventRecorder
from dure.client.faults import FaultyTransport, by_chance
from dure.client.in_process import InProcessTransport
from dure.control.informer import Informer
from dure.control.leader import LeaderElector
from dure.core.aio import running
from dure.core.clock import LoopClock
from dure.core.json import Obj
from dure.store.sqlite import SqliteStore
from tests.support.cluster import ADMIN, api_server, client_of


def config_map(name: str, **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def mine(informer: Informer) -> dict[str, str]:
    """Names of the config maps made here, with their revisions."""
    return {name_of(obj): obj["metadata"]["resourceVersion"] for obj in informer.list() if name_of(obj).startswith("w")}


async def test_an_informer_stays_true_in_bad_weather() -> None:
    async with api_server() as (server, client):
        weather = by_chance(random.Random(1), refuse=0.2, lose=0.1, cut=0.3)
        transport = FaultyTransport(InProcessTransport(server.handle, ADMIN), weather)
        informer = Informer(Client(transport, server.kinds), "configmaps", "default")
        async with running(informer.run()):
            for number in range(200):
                await client.create(config_map(f"m{number}"))
                if number % 3 == 0:
                    await client.delete("configmaps", f"m{number}", "default")
                await asyncio.sleep(0.5)
            await asyncio.sleep(300)
            stored = (await client.list("configmaps", "default")).items
            assert {name_of(obj): obj for obj in informer.list()} == {name_of(obj): obj for obj in stored}


async def test_an_idle_informer_is_kept_fresh_by_bookmarks() -> None:
    """After an hour in which only other things changed, a broken watch goes on without a new list."""
    async with api_server() as (server, client):
        informer = Informer(client, "configmaps", "default")
        async with running(informer.run()):
            await informer.wait_synced()
            await client.create(config_map("a"))
            first = server.store.revision
            secret: Obj = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
            await client.create(secret)
            for number in range(120):
                patch = {"metadata": {"annotations": {"n": str(number)}}}
                await client.patch("secrets", "s", "default", patch)
                await asyncio.sleep(30)
            assert int(informer._revision) > first + 100


async def test_a_lease_is_held_on_the_real_server() -> None:
    async with api_server() as (server, client):
        elector = LeaderElector(client_of(server), "controllers", "one", clock=LoopClock())
        leading = asyncio.Event()

        async def work() -> None:
            leading.set()
            await asyncio.Event().wait()

        async with running(elector.run(work)):
            await leading.wait()
            await asyncio.sleep(30)
            lease = await client.get("leases.coordination.k8s.io", "controllers", "kube-system")
            assert lease["spec"]["holderIdentity"] == "one"
        lease = await client.get("leases.coordination.k8s.io", "controllers", "kube-system")
        assert not lease["spec"].get("holderIdentity")


async def test_events_are_accepted_and_counted() -> None:
    async with api_server() as (_, client):
        recorder = EventRecorder(client, "tests", clock=LoopClock())
        made = await client.create(config_map("a"))
        for _ in range(3):
            await recorder.record(made, "Normal", "Seen", "it was seen")
        (event,) = (await client.list("events", "default", fields="involvedObject.name=a")).items
        assert (event["count"], event["reason"], event["type"]) == (3, "Seen", "Normal")


@pytest.mark.real_loop
async def test_the_store_writer_may_die_under_the_whole_server(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "store") as store:
        server = ApiServer(store, builtin_kinds(), Setup())
        async with server.opened():
            client = client_of(server)
            informer = Informer(client, "configmaps", "default")
            acknowledged: dict[str, str] = {}

            async def write(writer: int) -> None:
                for number in range(20):
                    made = await client.create(config_map(f"w{writer}-{number}"))
                    acknowledged[name_of(made)] = made["metadata"]["resourceVersion"]

            async def murder() -> None:
                for _ in range(3):
                    await asyncio.sleep(0.05)
                    if (pid := store.writer_pid) is not None:
                        os.kill(pid, signal.SIGKILL)

            async with running(informer.run()):
                await informer.wait_synced()
                async with asyncio.TaskGroup() as group:
                    group.create_task(murder())
                    for writer in range(10):
                        group.create_task(write(writer))
                async with asyncio.timeout(5):
                    while len(cached := mine(informer)) < 200:  # noqa: ASYNC110 - the cache catches up
                        await asyncio.sleep(0.01)
                assert cached == acknowledged
