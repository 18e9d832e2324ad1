"""SqliteStore keeps the contract, and what it acknowledged survives every death."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import settings
from hypothesis.stateful import rule

from dure.core.aio import Scope
from dure.core.errors import ConfigError
from dure.store.model import Compacted, Store, StoreError, StoreFull
from dure.store.sqlite import SqliteStore
from dure.store.state import History

from .contract import POD, StoreContract, fill, names
from .machine import StoreMachine

pytestmark = pytest.mark.real_loop


class TestSqliteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "store"

    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[Store]:
        async with SqliteStore.open(self.folder, **options) as store:
            yield store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def kill_writer(store: SqliteStore) -> None:
    if (pid := store.writer_pid) is not None:
        with suppress(ProcessLookupError):  # dead already, and not yet replaced
            os.kill(pid, signal.SIGKILL)


def rows(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "store.db")) as db:
        return db.execute("SELECT revision, key, deleted FROM log ORDER BY revision").fetchall()


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "store.db")) as db, db:
        db.execute(statement)


async def wait_dropped(store: SqliteStore) -> None:
    while store._batches.doomed:  # noqa: ASYNC110 - housekeeping has no event of its own
        await asyncio.sleep(0.01)


async def test_everything_is_there_after_reopening(folder: Path) -> None:
    async with SqliteStore.open(folder) as store:
        await fill(store, "a", "b", "c")
        await store.put("core/pods/default/a", b"two", expect=1)
        await store.delete("core/pods/default/b", expect=None)
    async with SqliteStore.open(folder) as store:
        assert [(r.key[-1], r.value, r.revision, r.created) for r in (await store.list("core/pods/")).records] == [
            ("a", b"two", 4, 1),
            ("c", b"c", 3, 3),
        ]
        assert store.revision == 5
        assert (await store.put(POD, b"", expect=0)).revision == 6


async def test_history_survives_a_restart(folder: Path) -> None:
    async with SqliteStore.open(folder) as store:
        await fill(store, "a", "b")
        await store.delete("core/pods/default/a", expect=None)
    async with SqliteStore.open(folder) as store:
        assert await names(store, "core/", revision=2) == ["a", "b"]
        async with store.watch("core/", since=1) as watch:
            events = [await anext(watch) for _ in range(2)]
        assert [(event.type, event.record.value, event.record.revision) for event in events] == [
            ("PUT", b"b", 2),
            ("DELETED", b"a", 3),
        ]


async def test_compaction_survives_and_shrinks_the_log(folder: Path) -> None:
    async with SqliteStore.open(folder) as store:
        await fill(store, "gone")
        await store.delete("core/pods/default/gone", expect=None)
        await asyncio.gather(*(store.put(POD, b"x", expect=None) for _ in range(49)))
        await store.compact(store.revision)
        await fill(store, "last")
    assert [(key, deleted) for _, key, deleted in rows(folder)] == [(POD, 0), ("core/pods/default/last", 0)]
    async with SqliteStore.open(folder) as store:
        assert store.compacted == 51
        with pytest.raises(Compacted):
            await store.list("core/", revision=50)
        assert await names(store, "core/") == ["last", "web"]


async def test_a_long_past_is_dropped_in_slices(folder: Path) -> None:
    async with SqliteStore.open(folder) as store:
        await asyncio.gather(*(store.put(POD, b"x", expect=None) for _ in range(3500)))
        await store.compact(store.revision)
        await wait_dropped(store)
    assert rows(folder) == [(3500, POD, 0)]


async def test_rows_left_by_an_unfinished_compaction_go_on_the_next_start(folder: Path) -> None:
    async with SqliteStore.open(folder) as store:
        await store.put(POD, b"one", expect=0)
        await store.put(POD, b"two", expect=1)
        await fill(store, "gone")
        await store.delete("core/pods/default/gone", expect=None)
    change(folder, "UPDATE meta SET value = 4 WHERE name = 'compacted'")
    async with SqliteStore.open(folder) as store:
        assert store.compacted == 4
        await fill(store, "next")
    assert [row[0] for row in rows(folder)] == [2, 5]


async def test_history_is_bounded_on_disk(folder: Path) -> None:
    async with SqliteStore.open(folder, history=History(events=100)) as store:
        for _ in range(10):
            await asyncio.gather(*(store.put(POD, b"x", expect=None) for _ in range(200)))
        await wait_dropped(store)
    assert len(rows(folder)) <= 102


async def test_a_killed_writer_loses_nothing_and_invents_nothing(folder: Path) -> None:
    acknowledged: dict[str, int] = {}

    async def write(store: SqliteStore, writer: int) -> None:
        for number in range(60):
            record = await store.put(f"core/pods/w{writer}/{number}", b"x" * 500, expect=0)
            acknowledged[record.key] = record.revision

    async def murder(store: SqliteStore) -> None:
        for _ in range(4):
            await asyncio.sleep(0.03)
            kill_writer(store)

    async with SqliteStore.open(folder) as store:
        async with asyncio.TaskGroup() as group:
            group.create_task(murder(store))
            for writer in range(16):
                group.create_task(write(store, writer))
        in_memory = {record.key: record.revision for record in (await store.list("")).records}
        revision = store.revision
    async with SqliteStore.open(folder) as store:
        on_disk = {record.key: record.revision for record in (await store.list("")).records}
        assert store.revision == revision == 960
    assert acknowledged == in_memory == on_disk


_PARENT = """
import asyncio, sys
from pathlib import Path
from dure.store.sqlite import SqliteStore

async def write(store, writer):
    number = 0
    while True:
        record = await store.put(f"core/pods/w{writer}/{number}", b"x" * 500, expect=0)
        sys.stdout.write(f"{record.key} {record.revision}\\n")
        sys.stdout.flush()
        number += 1

async def main():
    async with SqliteStore.open(Path(sys.argv[1])) as store, asyncio.TaskGroup() as group:
        for writer in range(16):
            group.create_task(write(store, writer))

asyncio.run(main())
"""


async def test_what_a_killed_platform_acknowledged_is_found_again(folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, str(folder), stdout=subprocess.PIPE, limit=1 << 24
    )
    assert process.stdout is not None
    lines = [await process.stdout.readline() for _ in range(500)]
    process.kill()
    lines += (await process.stdout.read()).splitlines(keepends=True)
    await process.wait()
    acknowledged = dict(line.split() for line in lines if line.endswith(b"\n"))
    async with SqliteStore.open(folder) as store:  # waits for the orphaned writer to finish
        found = {record.key.encode(): str(record.revision).encode() for record in (await store.list("")).records}
    assert acknowledged.items() <= found.items()


async def test_a_full_store_fails_the_batch_and_nothing_else(folder: Path) -> None:
    async with SqliteStore.open(folder, max_bytes=400_000) as store:
        await store.put(POD, b"kept", expect=0)
        outcomes = await asyncio.gather(
            *(store.put(f"core/pods/big/{number:03}", bytes(20_000), expect=0) for number in range(50)),
            return_exceptions=True,
        )
        assert {type(outcome) for outcome in outcomes} == {StoreFull}
        assert (await store.get(POD)).value == b"kept"
        assert await names(store, "") == ["web"]
        await store.put(POD, b"still writable", expect=1)
        await store.put("core/pods/big/000", b"small", expect=0)
    async with SqliteStore.open(folder) as store:
        assert [record.value for record in (await store.list("")).records] == [b"small", b"still writable"]


async def test_a_full_store_gives_up_its_past_before_its_present(folder: Path) -> None:
    """Churn over one key never fills the store for good, whatever history it would like to keep."""
    refused = 0
    async with SqliteStore.open(folder, max_bytes=1_000_000) as store:
        for _ in range(200):
            try:
                await store.put(POD, bytes(20_000), expect=None)
            except StoreFull:
                refused += 1
                await asyncio.sleep(0.01)
        assert refused < 20
        assert len((await store.list("")).records) == 1


async def test_a_write_planned_on_a_refused_one_is_planned_again(folder: Path) -> None:
    async with SqliteStore.open(folder, max_bytes=200_000) as store:
        await store.put(POD, b"one", expect=0)
        huge = asyncio.ensure_future(store.put(POD, bytes(1_000_000), expect=1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the huge one is in flight; the next batch gathers
        small = asyncio.ensure_future(store.put(POD, b"small", expect=None))
        with pytest.raises(StoreFull):
            await huge
        assert ((await small).value, (await small).created) == (b"small", 1)
        assert [event.previous.value for event in await _events(store) if event.previous] == [b"one"]


async def _events(store: SqliteStore) -> list[Any]:
    return store.state.since("", store.compacted)


async def test_a_second_platform_on_the_folder_is_told_who_has_it(folder: Path) -> None:
    async with SqliteStore.open(folder):
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
            async with SqliteStore.open(folder):
                pass
    async with SqliteStore.open(folder):
        pass


async def test_a_store_of_a_newer_version_is_left_alone(folder: Path) -> None:
    async with SqliteStore.open(folder):
        pass
    change(folder, "UPDATE meta SET value = 7 WHERE name = 'schema'")
    with pytest.raises(ConfigError, match=r"version 7.*up to 1"):
        async with SqliteStore.open(folder):
            pass


async def test_a_file_that_is_no_database_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "store.db").write_bytes(b"this is not a database, not at all" * 100)
    with pytest.raises(ConfigError, match="not a database"):
        async with SqliteStore.open(folder):
            pass


async def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"Not a directory|File exists"):
        async with SqliteStore.open(tmp_path / "file" / "store"):
            pass


async def test_the_writer_is_light_named_and_gone_at_the_end(folder: Path) -> None:
    async with SqliteStore.open(folder) as store:
        pid = store.writer_pid
        assert Path(f"/proc/{pid}/comm").read_text() == "dure-store\n"
        private = sum(
            int(line.split()[1])
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            if line.startswith("Private_")
        )
        assert private < 10_000
    assert not Path(f"/proc/{pid}").exists()


async def test_the_writer_ignores_the_terminals_signals(folder: Path) -> None:
    async with SqliteStore.open(folder) as store:
        pid = store.writer_pid
        assert pid is not None
        await store.put(POD, b"one", expect=0)
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        await store.put(POD, b"two", expect=1)
        assert store.writer_pid == pid


async def test_a_closed_store_takes_no_writes(folder: Path) -> None:
    async with SqliteStore.open(folder) as store:
        pass
    with pytest.raises(StoreError, match="closed"):
        await store.put(POD, b"", expect=0)


async def test_writes_under_way_are_finished_on_close(folder: Path) -> None:
    async with SqliteStore.open(folder) as store:
        writes = [asyncio.ensure_future(store.put(f"core/pods/a/{n}", b"", expect=0)) for n in range(100)]
        await asyncio.sleep(0)
    assert [(await write).revision for write in writes] == list(range(1, 101))


async def test_a_writer_that_will_not_start_again_ends_the_store(folder: Path) -> None:
    with pytest.raises(StoreError, match=r"would start|lost revisions"):
        async with SqliteStore.open(folder) as store:
            await store.put(POD, b"one", expect=0)
            for path in folder.glob("store.db*"):
                path.unlink()
            (folder / "store.db").mkdir()
            kill_writer(store)
            await store.put(POD, b"two", expect=1)


async def test_data_that_vanished_is_not_served(folder: Path) -> None:
    with pytest.raises(StoreError, match="lost revisions 1 to 1"):
        async with SqliteStore.open(folder) as store:
            await store.put(POD, b"one", expect=0)
            for path in folder.glob("store.db*"):
                path.unlink()
            kill_writer(store)
            await asyncio.sleep(20)


class SqliteStoreMachine(StoreMachine):
    """Restarts, and loses its writer, between any two operations."""

    durable = True

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return uvloop.new_event_loop()

    def open(self) -> Scope[Store]:
        return SqliteStore.open(Path(self._folder.name) / "store")

    def teardown(self) -> None:
        super().teardown()
        self._folder.cleanup()

    @rule()
    def kill_writer(self) -> None:
        assert isinstance(self.store, SqliteStore)
        kill_writer(self.store)


TestSqliteStoreMachine = SqliteStoreMachine.TestCase
TestSqliteStoreMachine.settings = settings(max_examples=6, stateful_step_count=20, deadline=None)
