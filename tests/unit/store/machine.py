"""Any sequence of operations leaves a store as a plain model says, past revisions and watches included."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dure.core.aio import Scope
from dure.store.model import Compacted, KeyNotFound, Record, RevisionMismatch, Store

KEYS = [
    "core/nodes/a",
    "core/nodes/b",
    "core/pods/x/a",
    "core/pods/x/ab",
    "core/pods/x-y/a",
    "core/pods/y/a",
    "apps/deployments/x/a",
]
PREFIXES = [
    "",
    "core/",
    "core/pods/",
    "core/pods/x/",
    "core/pods/x/a",
    "core/nodes/",
    "apps/deployments/",
    "none/such/",
]

Row = tuple[str, bytes, int, int]
Happening = tuple[str, str, bytes, int, bytes | None]
keys, prefixes = st.sampled_from(KEYS), st.sampled_from(PREFIXES)


def row(record: Record) -> Row:
    return record.key, record.value, record.revision, record.created


class StoreMachine(RuleBasedStateMachine):
    """Subclass and say how to open a store; `durable` ones are closed and opened again now and then."""

    durable = False

    def __init__(self) -> None:
        super().__init__()
        self.now: dict[str, Row] = {}
        self.past: dict[int, dict[str, Row]] = {0: {}}
        self.happened: list[Happening] = []
        self.compacted = 0
        self.loop = self.new_loop()
        self.stack = AsyncExitStack()
        self.store: Store

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def open(self) -> Scope[Store]:
        raise AssertionError("say how to open the store")

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 20))

    @initialize()
    def start(self) -> None:
        self.store = self.run(self.stack.enter_async_context(self.open()))

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()

    @property
    def revision(self) -> int:
        return max(self.past)

    def note(self, key: str, value: bytes | None) -> Row:
        """One write in the model; what the store should answer."""
        revision, old = self.revision + 1, self.now.get(key)
        shown = value if value is not None else old[1] if old else b""
        made = (key, shown, revision, old[3] if old else revision)
        if value is None:
            del self.now[key]
        else:
            self.now[key] = made
        self.past[revision] = dict(self.now)
        self.happened.append(("DELETED" if value is None else "PUT", key, shown, revision, old[1] if old else None))
        return made

    @rule(key=keys, value=st.binary(max_size=20), expect=st.sampled_from(["none", "create", "right", "wrong"]))
    def put(self, key: str, value: bytes, expect: str) -> None:
        held = self.now[key][2] if key in self.now else 0
        wanted = {"none": None, "create": 0, "right": held, "wrong": held + 1}[expect]
        if wanted is not None and wanted != held:
            with pytest.raises(RevisionMismatch) as caught:
                self.run(self.store.put(key, value, expect=wanted))
            assert caught.value.current == held
        else:
            assert row(self.run(self.store.put(key, value, expect=wanted))) == self.note(key, value)

    @rule(key=keys, right=st.booleans())
    def delete(self, key: str, right: bool) -> None:
        if key not in self.now:
            with pytest.raises(KeyNotFound):
                self.run(self.store.delete(key, expect=None))
        elif not right:
            with pytest.raises(RevisionMismatch):
                self.run(self.store.delete(key, expect=self.now[key][2] + 1))
        else:
            answer = row(self.run(self.store.delete(key, expect=self.now[key][2])))
            assert answer == self.note(key, None)

    @rule(writes=st.lists(st.tuples(keys, st.binary(max_size=5)), min_size=2, max_size=8))
    def put_together(self, writes: list[tuple[str, bytes]]) -> None:
        async def together() -> list[Record]:
            return await asyncio.gather(*(self.store.put(key, value, expect=None) for key, value in writes))

        answers = [row(record) for record in self.run(together())]
        assert answers == [self.note(key, value) for key, value in writes]

    @rule(prefix=prefixes, limit=st.integers(0, 3), data=st.data())
    def read_in_pages(self, prefix: str, limit: int, data: st.DataObject) -> None:
        revision = data.draw(st.integers(self.compacted, self.revision))
        wanted = sorted(made for key, made in self.past[revision].items() if key.startswith(prefix))
        found: list[Row] = []
        after = ""
        while True:
            page = self.run(self.store.list(prefix, limit=limit, after=after, revision=revision or self.revision))
            if revision:
                assert page.revision == revision
            found.extend(row(record) for record in page.records)
            after = page.after
            if not after:
                break
            if revision:
                assert page.remaining == len(wanted) - len(found)
        if revision:
            assert found == wanted

    @rule(prefix=prefixes, data=st.data())
    def watch(self, prefix: str, data: st.DataObject) -> None:
        since = data.draw(st.integers(self.compacted, self.revision))
        wanted = [event for event in self.happened if event[1].startswith(prefix) and event[3] > since]

        async def read() -> list[Happening]:
            async with self.store.watch(prefix, since=since) as watch:
                events = await watch.take() if wanted else []
            return [
                (e.type, e.record.key, e.record.value, e.record.revision, e.previous.value if e.previous else None)
                for e in events
            ]

        assert self.run(read()) == wanted

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        revision = data.draw(st.integers(0, self.revision))
        self.run(self.store.compact(revision))
        self.compacted = max(self.compacted, revision)
        if self.compacted:
            with pytest.raises(Compacted):
                self.run(self.store.watch("", since=self.compacted - 1).__aenter__())

    @rule()
    def restart(self) -> None:
        """A durable store may come back with more history than it had, never with less."""
        if self.durable:
            self.run(self.stack.aclose())
            self.store = self.run(self.stack.enter_async_context(self.open()))
            assert self.store.compacted <= self.compacted
            self.run(self.store.compact(self.compacted))

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "store"):
            assert [row(record) for record in self.run(self.store.list("")).records] == sorted(self.now.values())
            assert (self.store.revision, self.store.compacted) == (self.revision, self.compacted)
