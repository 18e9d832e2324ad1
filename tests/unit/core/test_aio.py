"""Services live as long as a block; cleanup finishes; cancellation passes."""

from __future__ import annotations

import asyncio

import pytest

from dure.core.aio import finish, running


async def test_services_end_with_the_block() -> None:
    ended: list[str] = []

    async def serve(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async with running(serve("a"), serve("b")):
        await asyncio.sleep(1)
        assert ended == []
    assert sorted(ended) == ["a", "b"]


async def test_a_failing_service_ends_the_block_with_its_error() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        async with running(fail(), asyncio.sleep(1000)):
            await asyncio.Event().wait()


async def test_two_failures_come_as_a_group() -> None:
    async def fail(text: str) -> None:
        raise ValueError(text)

    with pytest.raises(ExceptionGroup):
        async with running(fail("one"), fail("two")):
            await asyncio.Event().wait()


async def test_the_error_of_the_block_itself_comes_out_alone() -> None:
    with pytest.raises(KeyError):
        async with running(asyncio.sleep(1000)):
            raise KeyError("mine")


async def test_a_service_may_end_early() -> None:
    async with running(asyncio.sleep(1)):
        await asyncio.sleep(5)


async def test_returning_from_inside_the_block() -> None:
    async def answer() -> int:
        async with running(asyncio.sleep(1000)):
            return 42

    assert await answer() == 42


async def test_cancelling_the_block_ends_services_and_passes() -> None:
    ended = asyncio.Event()

    async def serve() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()

    async def hold() -> None:
        async with running(serve()):
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_cleanup_finishes_under_cancellation() -> None:
    done: list[str] = []

    async def cleanup() -> None:
        await asyncio.sleep(2)
        done.append("cleaned")

    task = asyncio.create_task(finish(cleanup(), within=5))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["cleaned"]


async def test_cleanup_that_takes_too_long_is_cut() -> None:
    with pytest.raises(TimeoutError):
        await finish(asyncio.sleep(100), within=5)
    assert asyncio.get_running_loop().time() == pytest.approx(5)


async def test_cleanup_gives_its_value_and_its_error() -> None:
    async def fail() -> None:
        raise OSError("no")

    assert await finish(asyncio.sleep(1, "value"), within=5) == "value"
    with pytest.raises(OSError, match="no"):
        await finish(fail(), within=5)


async def test_an_error_of_cleanup_is_not_lost_behind_a_cancellation() -> None:
    async def fail() -> None:
        await asyncio.sleep(2)
        raise OSError("no")

    task = asyncio.create_task(finish(fail(), within=5))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__cause__, OSError)
