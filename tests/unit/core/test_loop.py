"""The loop that unit tests run on keeps its promises."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.loop import Deadlock, TaskLeftBehind, run_virtual


async def test_time_jumps() -> None:
    loop, real = asyncio.get_running_loop(), time.monotonic()
    await asyncio.sleep(3600)
    assert loop.time() == pytest.approx(3600)
    assert time.monotonic() - real < 5


async def test_timers_fire_in_order() -> None:
    seen: list[int] = []

    async def note(delay: int) -> None:
        await asyncio.sleep(delay)
        seen.append(delay)

    async with asyncio.TaskGroup() as group:
        for delay in (30, 10, 20):
            group.create_task(note(delay))
    assert seen == [10, 20, 30]


def test_a_deadlock_names_who_waits() -> None:
    async def stuck_forever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock, match="stuck_forever"):
        run_virtual(stuck_forever())


def test_a_task_left_behind_fails_the_test() -> None:
    async def leaves_one() -> None:
        leaves_one.task = asyncio.create_task(asyncio.sleep(60), name="the straggler")  # type: ignore[attr-defined]

    with pytest.raises(TaskLeftBehind, match="the straggler"):
        run_virtual(leaves_one())


def test_an_error_nobody_takes_fails_the_test() -> None:
    async def fails_aside() -> None:
        async def fail() -> None:
            raise ValueError("aside")

        task = asyncio.create_task(fail())
        await asyncio.sleep(1)
        del task

    with pytest.raises(AssertionError, match="aside"):
        run_virtual(fails_aside())


async def test_threads_do_not_make_time_jump() -> None:
    async with asyncio.timeout(1):
        await asyncio.to_thread(time.sleep, 0.05)


async def test_bytes_on_a_socket_come_before_the_next_timer() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.send(b"x")
        async with asyncio.timeout(1):
            assert await asyncio.get_running_loop().sock_recv(left, 1) == b"x"


@given(st.integers(0, 100))
async def test_hypothesis_drives_async_tests(seconds: int) -> None:
    await asyncio.sleep(seconds)
    assert asyncio.get_running_loop().time() == pytest.approx(seconds)


@pytest.mark.real_loop
async def test_real_time_passes_on_the_real_loop() -> None:
    real = time.monotonic()
    await asyncio.sleep(0.02)
    assert time.monotonic() - real >= 0.015
