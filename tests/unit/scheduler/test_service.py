"""The binding loop against a real API server: everything pending gets its node, or is told once why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dure.api.meta import condition, name_of
from dure.client.client import Client
from dure.client.events import EventRecorder
from dure.control.informer import Informer
from dure.core.aio import running
from dure.core.clock import LoopClock
from dure.core.errors import ApiError, Conflict, NotFound, TransportError, Unavailable
from dure.core.json import Obj
from dure.scheduler import Scheduler
from tests.support.cluster import api_server
from tests.unit.controllers.cluster import LaggingClient, service_account


class Bench:
    """A scheduler at work, and a client to see what it does. `refuse` is raised for the next bindings."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.refuse: list[Exception] = []
        self.bindings: list[str] = []

    async def node_of(self, name: str) -> str:
        return str((await self.client.get("pods", name, "default"))["spec"].get("nodeName", ""))

    async def nodes_of(self) -> dict[str, str]:
        found = (await self.client.list("pods", "default")).items
        return {name_of(pod): pod["spec"].get("nodeName", "") for pod in found}

    async def reason(self, name: str) -> str:
        pod = await self.client.get("pods", name, "default")
        return str((condition(pod, "PodScheduled") or {}).get("message", ""))

    async def events(self, reason: str) -> list[tuple[str, int]]:
        found = (await self.client.list("events", "default")).items
        return [(item["message"], item["count"]) for item in found if item["reason"] == reason]

    async def delete(self, name: str) -> None:
        await self.client.delete("pods", name, "default", grace_seconds=0)


class Refusing(Client):
    """Whose bindings fail as the bench says."""

    def __init__(self, client: Client, bench: Bench) -> None:
        super().__init__(client._transport, client.kinds)
        self._bench = bench

    async def create_at(self, resource: str, name: str, namespace: str, subresource: str, body: Obj) -> Obj:
        self._bench.bindings.append(name)
        if self._bench.refuse:
            error = self._bench.refuse.pop(0)
            if isinstance(error, TransportError):  # it happened, but nobody heard
                await super().create_at(resource, name, namespace, subresource, body)
            raise error
        return await super().create_at(resource, name, namespace, subresource, body)


@asynccontextmanager
async def working(bench: Bench, lag: float = 0.0) -> AsyncIterator[None]:
    clock = LoopClock()
    client = Refusing(bench.client, bench)
    reading = LaggingClient(bench.client, {"pods": lag}) if lag else client
    pods, nodes = Informer(reading, "pods"), Informer(reading, "nodes")
    scheduler = Scheduler(client, pods, nodes, EventRecorder(client, "default-scheduler", clock=clock), clock)
    async with running(pods.run(), nodes.run(), scheduler.run()):
        yield


@asynccontextmanager
async def started(*nodes: Obj, lag: float = 0.0) -> AsyncIterator[Bench]:
    async with api_server() as (_, client):
        bench = Bench(client)
        await client.create(service_account("default"))
        for item in nodes:
            await register(bench, item)
        async with working(bench, lag):
            yield bench


async def register(bench: Bench, item: Obj) -> None:
    """In two steps, as an agent does."""
    await bench.client.create({key: value for key, value in item.items() if key != "status"})
    await bench.client.patch("nodes", name_of(item), "", {"status": item["status"]}, subresource="status")


def node(name: str = "a", cpu: str = "2", **labels: str) -> Obj:
    meta = {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}
    allocatable = {"cpu": cpu, "memory": "8Gi", "pods": "110"}
    status = {"allocatable": allocatable, "capacity": allocatable}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {}, "status": status}


def pod(name: str, cpu: str = "1", labels: dict[str, str] | None = None, **spec: Any) -> Obj:
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}
    meta = {"name": name, "namespace": "default", "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], **spec}}


def near(app: str) -> Obj:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


async def test_pods_are_bound_and_told_so() -> None:
    async with started(node("a", "1"), node("b", "4")) as bench:
        await bench.client.create(pod("one"))
        await asyncio.sleep(1)
        assert await bench.node_of("one") == "b"
        assert await bench.events("Scheduled") == [("Successfully assigned default/one to b", 1)]


async def test_why_a_pod_waits_is_said_once() -> None:
    async with started(node("a", "2")) as bench:
        await bench.client.create(pod("big", "3"))
        await asyncio.sleep(1)
        assert await bench.reason("big") == "0/1 nodes are available: 1 Insufficient cpu."
        for number in range(10):  # each makes room anew, and the answer is the same
            await bench.client.create(pod(f"p{number}"))
            await asyncio.sleep(1)
            await bench.delete(f"p{number}")
            await asyncio.sleep(1)
        assert await bench.events("FailedScheduling") == [("0/1 nodes are available: 1 Insufficient cpu.", 1)]
        found = condition(await bench.client.get("pods", "big", "default"), "PodScheduled") or {}
        assert (found["status"], found["reason"]) == ("False", "Unschedulable")


async def test_another_reason_is_news() -> None:
    async with started(node("a", "2")) as bench:
        await bench.client.create(pod("big", "3"))
        await asyncio.sleep(1)
        await bench.client.patch("nodes", "a", "", {"spec": {"unschedulable": True}})
        await asyncio.sleep(1)
        assert await bench.reason("big") == "0/1 nodes are available: 1 node(s) were unschedulable."
        assert len(await bench.events("FailedScheduling")) == 2


async def test_room_lets_a_waiting_pod_in() -> None:
    async with started(node("a", "2")) as bench:
        await bench.client.create(pod("first", "2"))
        await asyncio.sleep(1)
        await bench.client.create(pod("second", "2"))
        await asyncio.sleep(1)
        assert await bench.node_of("second") == ""
        await bench.delete("first")
        await asyncio.sleep(1)
        assert await bench.node_of("second") == "a"
        scheduled = condition(await bench.client.get("pods", "second", "default"), "PodScheduled") or {}
        assert scheduled["status"] == "True"


async def test_a_finished_pod_makes_room() -> None:
    async with started(node("a", "2")) as bench:
        await bench.client.create(pod("first", "2"))
        await asyncio.sleep(1)
        await bench.client.create(pod("second", "2"))
        await bench.client.patch("pods", "first", "default", {"status": {"phase": "Succeeded"}}, subresource="status")
        await asyncio.sleep(1)
        assert await bench.node_of("second") == "a"


async def test_a_new_node_and_a_changed_one_let_pods_in() -> None:
    async with started() as bench:
        await bench.client.create(pod("one", nodeSelector={"disk": "ssd"}))
        await asyncio.sleep(1)
        assert await bench.reason("one") == "no nodes available to schedule pods"
        await register(bench, node("a"))
        await asyncio.sleep(1)
        assert "didn't match Pod's node affinity/selector" in await bench.reason("one")
        await bench.client.patch("nodes", "a", "", {"metadata": {"labels": {"disk": "ssd"}}})
        await asyncio.sleep(1)
        assert await bench.node_of("one") == "a"


async def test_a_node_counts_once_its_agent_says_what_it_offers() -> None:
    async with started() as bench:
        item = node("a")
        await bench.client.create({key: value for key, value in item.items() if key != "status"})
        await bench.client.create(pod("one"))
        await asyncio.sleep(1)
        assert await bench.reason("one") == "no nodes available to schedule pods"
        await bench.client.patch("nodes", "a", "", {"status": item["status"]}, subresource="status")
        await asyncio.sleep(1)
        assert await bench.node_of("one") == "a"


async def test_a_pod_that_changes_is_tried_again() -> None:
    async with started(node("a")) as bench:
        await bench.client.create(pod("one", schedulingGates=[{"name": "example.com/wait"}]))
        await asyncio.sleep(1)
        assert await bench.node_of("one") == ""
        await bench.client.patch("pods", "one", "default", {"spec": {"schedulingGates": None}})
        await asyncio.sleep(1)
        assert await bench.node_of("one") == "a"


async def test_a_pod_that_wants_company_waits_for_it() -> None:
    """It was tried once, before its company came, and then never again."""
    async with started(node("a"), node("b")) as bench:
        await bench.client.create(pod("guest", affinity=near("db")))
        await asyncio.sleep(1)
        assert await bench.node_of("guest") == ""
        await bench.client.create(pod("host", labels={"app": "db"}))
        await asyncio.sleep(1)
        assert await bench.node_of("guest") == await bench.node_of("host") != ""


async def test_important_pods_go_first() -> None:
    async with started() as bench:
        for name, value in (("low", 1), ("high", 1000)):
            await bench.client.create(
                {
                    "apiVersion": "scheduling.k8s.io/v1",
                    "kind": "PriorityClass",
                    "metadata": {"name": name},
                    "value": value,
                }
            )
        for number in range(3):
            await bench.client.create(pod(f"low-{number}", "2", priorityClassName="low", priority=1))
        await bench.client.create(pod("high", "2", priorityClassName="high", priority=1000))
        await asyncio.sleep(1)
        await register(bench, node("a", "2"))
        await asyncio.sleep(1)
        assert await bench.node_of("high") == "a"


async def test_a_refused_binding_is_tried_again_and_gives_its_room_back() -> None:
    errors: list[ApiError] = [Conflict("changed"), Unavailable("busy")]
    async with started(node("a", "2")) as bench:
        bench.refuse = [*errors]
        await bench.client.create(pod("one", "2"))
        await asyncio.sleep(1.5)
        await asyncio.sleep(10)
        assert await bench.node_of("one") == "a"
        assert bench.bindings == ["one"] * 3
        assert len(await bench.events("Scheduled")) == 1


async def test_an_answer_that_was_lost_costs_nothing() -> None:
    """The binding happened, the connection broke: the pod stays charged and the node is not given away twice."""
    async with started(node("a", "2")) as bench:
        bench.refuse = [TransportError("broken")]
        await bench.client.create(pod("one", "2"))
        await asyncio.sleep(20)
        assert await bench.node_of("one") == "a"
        await bench.client.create(pod("two", "2"))
        await asyncio.sleep(20)
        assert await bench.node_of("two") == ""


async def test_a_pod_deleted_meanwhile_is_forgotten() -> None:
    async with started(node("a", "2")) as bench:
        bench.refuse = [NotFound("gone")]
        await bench.client.create(pod("one", "2"))
        await asyncio.sleep(0.5)
        await bench.delete("one")
        await bench.client.create(pod("two", "2"))
        await asyncio.sleep(5)
        assert await bench.node_of("two") == "a"
        assert bench.bindings == ["one", "two"]


async def test_a_waiting_pod_that_goes_is_not_bound_later() -> None:
    async with started(node("a", "2")) as bench:
        await bench.client.create(pod("big", "3"))
        await asyncio.sleep(1)
        await bench.delete("big")
        await register(bench, node("b", "8"))
        await asyncio.sleep(5)
        assert bench.bindings == []


async def test_a_slow_cache_binds_nothing_twice() -> None:
    async with started(node("a", "4"), node("b", "4"), lag=3.0) as bench:
        for number in range(8):
            await bench.client.create(pod(f"p{number}"))
        await asyncio.sleep(4)
        for number in range(8):
            await bench.client.patch("pods", f"p{number}", "default", {"metadata": {"labels": {"a": "b"}}})
        await asyncio.sleep(30)
        assert sorted((await bench.nodes_of()).values()) == ["a"] * 4 + ["b"] * 4
        assert len(bench.bindings) == 8


async def test_after_a_restart_what_stands_still_counts() -> None:
    async with started(node("a", "2")) as bench:
        await bench.client.create(pod("old", "2"))
        await asyncio.sleep(1)
        await bench.client.create(pod("waiting", "2"))
        await asyncio.sleep(1)
        async with working(bench):  # a second one, as after a restart
            await bench.client.create(pod("new", "1"))
            await asyncio.sleep(5)
            assert await bench.nodes_of() == {"old": "a", "new": "", "waiting": ""}


async def test_other_schedulers_pods_are_left_alone() -> None:
    async with started(node("a")) as bench:
        await bench.client.create(pod("theirs", schedulerName="other"))
        await asyncio.sleep(1)
        assert await bench.node_of("theirs") == ""
        assert bench.bindings == []


async def test_a_node_that_comes_back_has_its_pods() -> None:
    async with started(node("a", "2")) as bench:
        await bench.client.create(pod("one", "2"))
        await asyncio.sleep(1)
        await bench.client.delete("nodes", "a")
        await asyncio.sleep(1)
        await register(bench, node("a", "2"))
        await bench.client.create(pod("two", "2"))
        await asyncio.sleep(1)
        assert await bench.node_of("two") == ""


async def test_many_pods_are_bound_within_the_room_there_is() -> None:
    async with started(node("a", "20"), node("b", "20")) as bench:
        for number in range(60):
            await bench.client.create(pod(f"p{number:02}"))
        await asyncio.sleep(5)
        placed = list((await bench.nodes_of()).values())
        assert (placed.count("a"), placed.count("b"), placed.count("")) == (20, 20, 20)


async def test_a_pod_that_breaks_the_rules_holds_up_nobody(monkeypatch: Any) -> None:
    from dure.scheduler import service

    real = service.compile_needs
    monkeypatch.setattr(service, "compile_needs", lambda item: real(item) if name_of(item) != "odd" else 1 / 0)
    async with started(node("a")) as bench:
        await bench.client.create(pod("odd"))
        await bench.client.create(pod("even"))
        await asyncio.sleep(5)
        assert await bench.nodes_of() == {"even": "a", "odd": ""}
