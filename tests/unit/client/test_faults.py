"""Retries repeat what may be repeated; faults strike where they are asked to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import pytest

from dure.client.client import Client
from dure.client.faults import NO_FAULT, Fault, FaultyTransport, by_chance
from dure.client.retry import RetryingTransport
from dure.client.transport import Call
from dure.core.errors import AlreadyExists, NotFound, TooManyRequests, TransportError, Unavailable
from tests.support.api import FakeApi
from tests.support.kinds import pod

REFUSED = Fault(error=TransportError("connection refused", repeatable=True))
BROKEN = Fault(error=TransportError("connection lost"))


def script(*faults: Fault) -> Callable[[Call], Fault]:
    left: Iterator[Fault] = iter(faults)
    return lambda call: next(left, NO_FAULT)


def retrying(api: FakeApi, *faults: Fault) -> Client:
    return api.client(lambda inner: RetryingTransport(FaultyTransport(inner, script(*faults))))


async def test_a_refused_connection_is_tried_again() -> None:
    client = retrying(FakeApi(), REFUSED, REFUSED)
    assert (await client.create(pod("web")))["metadata"]["name"] == "web"


async def test_a_lost_read_is_tried_again_and_a_lost_write_is_not() -> None:
    api = FakeApi()
    client = retrying(api, Fault(loses_answer=True), Fault(loses_answer=True))
    with pytest.raises(TransportError):
        await client.create(pod("web"))
    assert (await client.get("pods", "web", "default"))["metadata"]["name"] == "web"
    assert api.calls == ["POST /api/v1/namespaces/default/pods", *["GET /api/v1/namespaces/default/pods/web"] * 2]


async def test_retries_end() -> None:
    with pytest.raises(TransportError):
        await retrying(FakeApi(), *[REFUSED] * 5).list("pods")


async def test_retry_after_is_honoured() -> None:
    client = retrying(FakeApi(), Fault(error=TooManyRequests("slow down", retry_after=7)))
    await client.create(pod("web"))
    assert asyncio.get_running_loop().time() == pytest.approx(7)


async def test_unavailable_without_a_hint_is_the_callers_business() -> None:
    with pytest.raises(Unavailable):
        await retrying(FakeApi(), Fault(error=Unavailable("starting"))).list("pods")


async def test_other_answers_are_not_repeated() -> None:
    api = FakeApi()
    with pytest.raises(NotFound):
        await retrying(api).get("pods", "web", "default")
    assert len(api.calls) == 1


async def test_errors_of_the_block_are_not_taken_for_answers() -> None:
    """What the caller raises while reading must not repeat the request."""
    api = FakeApi()
    with pytest.raises(AlreadyExists):
        async with retrying(api).watch("pods", since="0"):
            raise AlreadyExists("mine")
    assert len(api.calls) == 1


async def test_a_stream_is_cut() -> None:
    api = FakeApi()
    client = retrying(api, NO_FAULT, NO_FAULT, Fault(cut_after=1))
    await client.create(pod("a"))
    await client.create(pod("b"))
    seen = []
    with pytest.raises(TransportError):
        async with client.watch("pods", since="0") as events:
            async for event in events:
                seen.append(event.object["metadata"]["name"])
    assert seen == ["a"]


async def test_delay() -> None:
    await retrying(FakeApi(), Fault(delay_seconds=3)).list("pods")
    assert asyncio.get_running_loop().time() == pytest.approx(3)


def test_equal_seeds_give_equal_faults() -> None:
    first, second = (by_chance(random.Random(7), refuse=0.2, lose=0.2, cut=0.2) for _ in range(2))
    drawn = [first(Call("GET", "/")) for _ in range(100)]
    shown = [(fault.error is not None, fault.loses_answer, fault.cut_after) for fault in drawn]
    again = [second(Call("GET", "/")) for _ in range(100)]
    assert shown == [(fault.error is not None, fault.loses_answer, fault.cut_after) for fault in again]
    assert 10 < sum(lost for _, lost, _ in shown) < 30
