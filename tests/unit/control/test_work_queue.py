"""The queue's promises: no key twice, no key in two hands, failures back off."""

from __future__ import annotations

import asyncio

import pytest

from dure.control.work_queue import WorkQueue


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_keys_come_in_order_and_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "abab":
        queue.add(key)
    assert [await queue.get(), await queue.get(), len(queue)] == ["a", "b", 0]


async def test_a_key_in_work_is_not_given_out_again_until_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert queue.is_idle


async def test_a_waiting_worker_is_woken() -> None:
    queue: WorkQueue[str] = WorkQueue()
    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(queue.get()) for _ in range(2)]
        await asyncio.sleep(1)
        queue.add("a")
        queue.add("b")
    assert sorted(worker.result() for worker in workers) == ["a", "b"]


async def test_a_delay() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 30)
    assert await queue.get() == "a"
    assert now() == pytest.approx(30)


async def test_the_delay_that_ends_first_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 30)
    queue.add_after("a", 10)
    queue.add_after("a", 20)
    assert await queue.get() == "a"
    assert now() == pytest.approx(10)
    queue.done("a")
    await asyncio.sleep(60)
    assert len(queue) == 0


async def test_no_delay_is_now() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0)
    assert len(queue) == 1


async def test_failures_double_the_delay_up_to_a_limit() -> None:
    queue: WorkQueue[str] = WorkQueue(first_seconds=1, most_seconds=10)
    delays = []
    for _ in range(6):
        delays.append(queue.retry("a"))
        queue.done(await queue.get())
    assert delays == [1, 2, 4, 8, 10, 10]
    queue.forget("a")
    assert queue.retry("a") == 1
    queue.close()


async def test_endless_failures_do_not_overflow() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(2000):
        delay = queue.retry("a")
    assert delay == 1000
    queue.close()


async def test_a_cancelled_worker_leaves_its_key_to_another() -> None:
    queue: WorkQueue[str] = WorkQueue()
    async with asyncio.TaskGroup() as group:
        first, second = (group.create_task(queue.get()) for _ in range(2))
        await asyncio.sleep(1)
        queue.add("a")  # wakes the first
        first.cancel()
        assert await second == "a"


async def test_closing_forgets_what_was_planned() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 1)
    queue.close()
    await asyncio.sleep(5)
    assert len(queue) == 0


@pytest.mark.real_loop
async def test_delays_too_short_for_the_clock_can_be_replanned() -> None:
    """On uvloop a delay under its resolution gave a handle that cannot tell its time, and the queue failed."""
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("key", 0.0001)
    queue.add_after("key", 0.0002)
    assert await queue.get() == "key"
