"""A controller brings keys to its reconciler, and again as the outcome asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dure.api.meta import ObjectKey, key_of
from dure.control.controller import Controller, Result
from dure.control.informer import Informer
from dure.core.aio import running
from dure.core.errors import Conflict, TerminalError, Unavailable
from tests.support.api import FakeApi
from tests.support.kinds import pod

KEY = ObjectKey("default", "a")


class Scripted:
    """Answers each call with the next outcome, then with success."""

    def __init__(self, *outcomes: Result | Exception) -> None:
        self._outcomes = list(outcomes)
        self.calls: list[tuple[float, ObjectKey]] = []

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.calls]

    async def reconcile(self, key: ObjectKey) -> Result:
        self.calls.append((asyncio.get_running_loop().time(), key))
        outcome = self._outcomes.pop(0) if self._outcomes else Result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def run(reconciler: Scripted, seconds: float = 3600) -> None:
    controller = Controller("tests", reconciler)
    controller.queue.add(KEY)
    async with running(controller.run()):
        await asyncio.sleep(seconds)


async def test_success_is_not_repeated() -> None:
    reconciler = Scripted()
    await run(reconciler)
    assert reconciler.times == [0]


async def test_requeue_after() -> None:
    reconciler = Scripted(Result(requeue_after=60), Result(requeue_after=5))
    await run(reconciler)
    assert reconciler.times == pytest.approx([0, 60, 65])


@pytest.mark.parametrize("error", [Unavailable("down"), ValueError("a bug")])
async def test_failures_back_off(error: Exception) -> None:
    reconciler = Scripted(*[error] * 4)
    await run(reconciler)
    assert reconciler.times == pytest.approx([0, 0.005, 0.015, 0.035, 0.075])


async def test_a_conflict_is_retried_at_once() -> None:
    reconciler = Scripted(Conflict("stale"))
    await run(reconciler, seconds=0.001)
    assert reconciler.times == [0, 0]


async def test_endless_conflicts_do_not_spin() -> None:
    reconciler = Scripted(*[Conflict("stale")] * 1000)
    await run(reconciler, seconds=10)
    assert len(reconciler.calls) < 30


async def test_a_terminal_error_is_final_until_the_object_changes() -> None:
    reconciler = Scripted(TerminalError("no"))
    controller = Controller("tests", reconciler)
    controller.queue.add(KEY)
    async with running(controller.run()):
        await asyncio.sleep(3600)
        assert len(reconciler.calls) == 1
        controller.queue.add(KEY)
        await asyncio.sleep(1)
    assert len(reconciler.calls) == 2


async def test_changes_become_keys() -> None:
    api = FakeApi()
    client = api.client()
    await client.create(pod("a"))
    informer = Informer(client, "pods")
    reconciler = Scripted()
    controller = Controller("tests", reconciler).watches(informer, lambda obj: [key_of(obj)])
    async with running(informer.run(), controller.run()):
        await asyncio.sleep(1)
        await client.create(pod("b"))
        await asyncio.sleep(1)
        await client.delete("pods", "a", "default")
        await asyncio.sleep(1)
    assert [key.name for _, key in reconciler.calls] == ["a", "b", "a"]


async def test_keys_of_the_object_before_and_after_are_queued() -> None:
    """A pod that moves from one node to another concerns both."""
    api = FakeApi()
    client = api.client()
    informer = Informer(client, "pods")
    reconciler = Scripted()
    controller = Controller("tests", reconciler)
    controller.watches(informer, lambda obj: [ObjectKey("", obj["spec"]["nodeName"])])
    async with running(informer.run(), controller.run()):
        await client.create(pod("a", node="one"))
        await asyncio.sleep(1)
        await client.patch("pods", "a", "default", {"spec": {"nodeName": "two"}})
        await asyncio.sleep(1)
    assert [key.name for _, key in reconciler.calls] == ["one", "one", "two"]


async def test_work_begins_when_everything_is_known() -> None:
    api = FakeApi()
    pods, nodes = Informer(api.client(), "pods"), Informer(api.client(), "nodes")
    reconciler = Scripted()
    controller = Controller("tests", reconciler).watches(pods, lambda obj: [key_of(obj)])
    controller.watches(nodes, lambda obj: [key_of(obj)])
    await api.client().create(pod("a"))
    async with running(pods.run(), controller.run()):
        await asyncio.sleep(1)
        assert reconciler.calls == []
        async with running(nodes.run()):
            await asyncio.sleep(1)
            assert len(reconciler.calls) == 1


async def in_parallel(workers: int, keys: list[ObjectKey]) -> int:
    """The most keys that were in work at the same time."""
    busy: list[int] = [0, 0]

    class Slow:
        async def reconcile(self, key: ObjectKey) -> Result:
            busy[0] += 1
            busy[1] = max(busy)
            await asyncio.sleep(1)
            busy[0] -= 1
            return Result()

    controller = Controller("tests", Slow(), workers=workers)
    add: Callable[[ObjectKey], None] = controller.queue.add
    async with running(controller.run()):
        for key in keys:
            add(key)
            await asyncio.sleep(0.1)
        await asyncio.sleep(30)
    return busy[1]


async def test_several_workers_never_share_a_key() -> None:
    assert await in_parallel(3, [ObjectKey("", str(number)) for number in range(9)]) == 3
    assert await in_parallel(3, [KEY] * 9) == 1
