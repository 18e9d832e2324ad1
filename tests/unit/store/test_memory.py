"""MemoryStore keeps the contract, and forgets what it may."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from hypothesis import settings

from dure.core.clock import LoopClock
from dure.store.memory import MemoryStore
from dure.store.model import Store
from dure.store.state import History

from .contract import StoreContract, fill
from .machine import StoreMachine


class TestMemoryStore(StoreContract):
    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[Store]:
        yield MemoryStore(**options)


async def test_history_is_bounded_by_count() -> None:
    store = MemoryStore(history=History(events=100))
    for number in range(1000):
        await store.put("core/pods/a/x", b"%d" % number, expect=None)
    assert store.state.events <= 100
    assert store.compacted >= 900


async def test_history_is_bounded_by_bytes() -> None:
    store = MemoryStore(history=History(superseded_bytes=100_000))
    for _ in range(1000):
        await store.put("core/pods/a/x", bytes(1000), expect=None)
    assert store.state.superseded_bytes <= 100_000


async def test_history_is_bounded_by_time() -> None:
    store = MemoryStore(history=History(seconds=300), clock=LoopClock())
    await fill(store, "a")
    await asyncio.sleep(200)
    await fill(store, "b")
    assert store.compacted == 0
    await asyncio.sleep(200)
    await fill(store, "c")
    assert store.compacted == 1


async def test_watchers_of_other_folders_are_not_looked_at() -> None:
    store = MemoryStore()
    async with AsyncExitStack() as watches:
        for number in range(3000):
            await watches.enter_async_context(store.watch(f"core/pods/ns-{number}/", since=0))
        began = time.process_time()
        await fill(store, *map(str, range(3000)), collection="core/secrets/a")
        assert time.process_time() - began < 1  # looking at each would take ten times that
    assert len(store._watches) == 0


class MemoryStoreMachine(StoreMachine):
    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        yield MemoryStore()


TestMemoryStoreMachine = MemoryStoreMachine.TestCase
TestMemoryStoreMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
