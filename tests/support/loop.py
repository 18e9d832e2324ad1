"""Run one coroutine to its end and say what went wrong besides: deadlock, tasks left behind, errors nobody took.

On the virtual loop, time stands still while anything can run and jumps to the next timer when nothing can.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

import uvloop

PATIENCE_SECONDS = 10.0
"""How long, in real time, the virtual loop waits for threads and file descriptors."""
REAL_TIMEOUT_SECONDS = 30.0
LAST_BREATHS = 5
"""Loop turns in which a task that is ending anyway may end after the test."""

Main = Coroutine[Any, Any, Any]


class Deadlock(AssertionError):
    """Nothing can run, no timer is set, no input can come."""


class TaskLeftBehind(AssertionError):
    """A task outlived its test."""


class _JumpingSelector(selectors.SelectSelector):
    """Polls what is registered; instead of sleeping, moves the loop's clock."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.loop.threads_at_work:
            return super().select(PATIENCE_SECONDS) or self.loop.stuck()
        if timeout is not None:
            self.loop.now += timeout
            return ready
        if len(self.get_map()) > 1:  # more than the loop's own wake-up pipe
            return super().select(PATIENCE_SECONDS) or self.loop.stuck()
        return self.loop.stuck()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock starts at 0 and costs nothing to wait for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.threads_at_work = 0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = super().run_in_executor(executor, func, *args)
        self.threads_at_work += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self.threads_at_work -= 1

    async def shutdown_default_executor(self) -> None:
        self.threads_at_work += 1  # it joins the pool's threads in a thread
        await super().shutdown_default_executor()
        self.threads_at_work -= 1

    def stuck(self) -> list[Any]:
        raise Deadlock(f"deadlock at {self.now:g} s, waiting for ever: {_names(asyncio.all_tasks(self))}")


def _names(tasks: set[asyncio.Task[Any]]) -> str:
    return ", ".join(sorted(_name(task) for task in tasks))


def _name(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=1)
    place = f" at {frames[-1].f_code.co_name}:{frames[-1].f_lineno}" if frames else ""
    coroutine = task.get_coro()
    return f"{task.get_name()} ({getattr(coroutine, '__qualname__', coroutine)}{place})"


def run_virtual(main: Main) -> Any:
    """Run on a fresh virtual loop. Raises Deadlock, TaskLeftBehind, or what the test raised."""
    return _run(VirtualLoop(), main)


def run_real(main: Main) -> Any:
    """Run on uvloop, as the platform does, within 30 seconds."""

    async def timed() -> Any:
        async with asyncio.timeout(REAL_TIMEOUT_SECONDS):
            return await main

    return _run(uvloop.new_event_loop(), timed())


def _run(loop: asyncio.AbstractEventLoop, main: Main) -> Any:
    errors: list[str] = []
    loop.set_exception_handler(lambda _, context: errors.append(f"{context['message']}: {context.get('exception')!r}"))
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(loop.create_task(main, name="test"))
        loop.run_until_complete(_breathe())
        if left := asyncio.all_tasks(loop):
            raise TaskLeftBehind(f"left behind by the test: {_names(left)}")
    finally:
        _close(loop)
    if errors:
        raise AssertionError("errors nobody took: " + "; ".join(errors))
    return result


async def _breathe() -> None:
    for _ in range(LAST_BREATHS):
        await asyncio.sleep(0)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=5))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
