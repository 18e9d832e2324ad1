"""At most one candidate leads, and a new one takes over from a dead one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from dure.client.client import Client
from dure.client.faults import NO_FAULT, Fault, FaultyTransport
from dure.control.leader import LeaderElector
from dure.core.aio import running
from dure.core.clock import LoopClock
from dure.core.errors import TransportError
from dure.core.json import Obj
from tests.support.api import FakeApi


class Candidate:
    """Works as long as it may, and notes when."""

    def __init__(self, client: Client, identity: str) -> None:
        self.elector = LeaderElector(client, "controllers", identity, clock=LoopClock())
        self.is_working = False
        self.journal: list[tuple[str, float]] = []

    async def run(self) -> None:
        await self.elector.run(self._work)

    async def _work(self) -> None:
        self._note("began")
        try:
            await asyncio.Event().wait()
        finally:
            self._note("ended")

    def _note(self, what: str) -> None:
        self.is_working = what == "began"
        self.journal.append((what, round(asyncio.get_running_loop().time(), 1)))


async def lease(api: FakeApi) -> Obj:
    spec: Obj = (await api.client().get("leases.coordination.k8s.io", "controllers", "kube-system"))["spec"]
    return spec


async def test_one_candidate_leads_and_renews() -> None:
    api = FakeApi()
    candidate = Candidate(api.client(), "one")
    async with running(candidate.run()):
        await asyncio.sleep(1)
        first = await lease(api)
        await asyncio.sleep(60)
        assert candidate.journal == [("began", 0)]
        second = await lease(api)
    assert first["holderIdentity"] == "one"
    assert (first["leaseDurationSeconds"], first["leaseTransitions"]) == (15, 0)
    assert first["acquireTime"] == second["acquireTime"]
    assert first["renewTime"] < second["renewTime"]


async def test_of_several_only_one_works() -> None:
    api = FakeApi()
    candidates = [Candidate(api.client(), str(number)) for number in range(5)]
    async with running(*(candidate.run() for candidate in candidates)):
        for _ in range(50):
            await asyncio.sleep(1)
            assert sum(candidate.is_working for candidate in candidates) == 1


async def test_stopping_lets_the_next_in_soon() -> None:
    api = FakeApi()
    one, two = Candidate(api.client(), "one"), Candidate(api.client(), "two")
    async with AsyncExitStack() as stack:
        async with running(one.run()):
            await asyncio.sleep(1)
            await stack.enter_async_context(running(two.run()))
            await asyncio.sleep(20)
        assert one.journal == [("began", 0), ("ended", 21)]
        assert "holderIdentity" not in await lease(api)
        await asyncio.sleep(5)
        assert two.journal[0][1] <= 21 + 2.5
        assert (await lease(api))["leaseTransitions"] == 1


async def test_a_dead_leader_is_replaced_when_its_lease_runs_out() -> None:
    api = FakeApi()
    dead = [False]
    cut_off = api.client(
        lambda inner: FaultyTransport(
            inner, lambda call: Fault(error=TransportError("unreachable")) if dead[0] else NO_FAULT
        )
    )
    one, two = Candidate(cut_off, "one"), Candidate(api.client(), "two")
    async with running(one.run(), two.run()):
        await asyncio.sleep(10)
        dead[0] = True
        await asyncio.sleep(60)
        stopped, began = one.journal[1][1], two.journal[0][1]
        assert 10 < stopped <= 22
        assert stopped < began <= 10 + 15 + 2 * 2.4
        dead[0] = False
        await asyncio.sleep(60)
        assert (one.is_working, two.is_working) == (False, True)


async def test_a_lease_taken_by_force_is_noticed() -> None:
    api = FakeApi()
    candidate = Candidate(api.client(), "one")
    async with running(candidate.run()):
        await asyncio.sleep(5)
        taken = {"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 15}}
        await api.client().patch("leases.coordination.k8s.io", "controllers", "kube-system", taken)
        await asyncio.sleep(5)
        assert not candidate.is_working
        await asyncio.sleep(30)
        assert candidate.is_working  # the thief never renewed


async def test_an_error_of_the_work_comes_out_and_frees_the_lease() -> None:
    async def fail() -> None:
        await asyncio.sleep(3)
        raise ValueError("broken")

    api = FakeApi()
    with pytest.raises(ValueError, match="broken"):
        await LeaderElector(api.client(), "controllers", "one", clock=LoopClock()).run(fail)
    assert "holderIdentity" not in await lease(api)
