"""Structured concurrency: every task has a parent, cleanup finishes, cancellation passes.

A task is born in an `asyncio.TaskGroup` or by `running(...)`; nothing else creates one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")

Scope = AbstractAsyncContextManager
"""`Scope[T]`: opened by `async with`, gives a T, and leaves nothing behind."""


@asynccontextmanager
async def running(*services: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Run services for as long as the block lasts.

    A service that returns early is fine; one that fails cancels the block and its error
    is raised here, alone when it is the only one.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(service) for service in services]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as group_error:
        if len(group_error.exceptions) == 1:
            raise group_error.exceptions[0] from None
        raise


async def finish(cleanup: Awaitable[T], *, within: float) -> T:
    """Await `cleanup` to its end even if this task is cancelled; TimeoutError after `within` seconds.

    A cancellation that arrives meanwhile is raised again afterwards, with an error of `cleanup` as its cause.
    """
    task = asyncio.ensure_future(cleanup)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    cancelled: asyncio.CancelledError | None = None
    while not task.done() and (left := deadline - loop.time()) > 0:
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    late = not task.done()
    if late:
        task.cancel()
        await asyncio.wait({task})
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    if late and task.cancelled():
        raise TimeoutError(f"cleanup took longer than {within:g} s")
    return task.result()


@asynccontextmanager
async def closing(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Read a stream in the block and close it at its end, whether or not it was read to its own."""
    try:
        yield stream
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
