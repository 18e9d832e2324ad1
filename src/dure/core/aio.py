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
    """Await `cleanup` to its end even if this task is cancelled; at most `within` seconds.

    A cancellation that arrives meanwhile is raised again afterwards.
    """
    task = asyncio.ensure_future(cleanup)
    cancelled: asyncio.CancelledError | None = None
    deadline = asyncio.get_running_loop().time() + within
    while not task.done():
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            task.cancel()
            break
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return await task
