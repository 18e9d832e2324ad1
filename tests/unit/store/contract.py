"""What every Store promises. Subclass, say how to open one, and inherit the claims."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dure.core.aio import Scope
from dure.store.model import Compacted, Event, FutureRevision, KeyNotFound, RevisionMismatch, Store, Watch

POD = "core/pods/default/web"


async def fill(store: Store, *names: str, collection: str = "core/pods/default") -> None:
    for name in names:
        await store.put(f"{collection}/{name}", name.encode(), expect=0)


async def names(store: Store, prefix: str, **options: Any) -> list[str]:
    return [record.key.rpartition("/")[2] for record in (await store.list(prefix, **options)).records]


async def read(watch: Watch, count: int) -> list[tuple[str, str, int]]:
    return [shape(await anext(watch)) for _ in range(count)]


def shape(event: Event) -> tuple[str, str, int]:
    return event.type, event.record.key.rpartition("/")[2], event.record.revision


class StoreContract:
    def open(self, **options: Any) -> Scope[Store]:
        raise AssertionError("say how to open the store")

    async def test_a_created_value_is_read_back(self) -> None:
        async with self.open() as store:
            made = await store.put(POD, b"one", expect=0)
            found = await store.get(POD)
            assert (found.key, found.value, found.revision, found.created) == (POD, b"one", 1, 1)
            assert made is found
            assert store.revision == 1

    async def test_an_update_keeps_when_it_was_created(self) -> None:
        async with self.open() as store:
            await store.put(POD, b"one", expect=0)
            await store.put("core/pods/default/other", b"", expect=0)
            record = await store.put(POD, b"two", expect=1)
            assert (record.value, record.revision, record.created) == (b"two", 3, 1)

    async def test_creating_what_exists_is_refused(self) -> None:
        async with self.open() as store:
            await store.put(POD, b"one", expect=0)
            with pytest.raises(RevisionMismatch) as caught:
                await store.put(POD, b"two", expect=0)
            assert (caught.value.expect, caught.value.current) == (0, 1)
            assert (await store.get(POD)).value == b"one"

    async def test_a_stale_update_is_refused(self) -> None:
        async with self.open() as store:
            await store.put(POD, b"one", expect=0)
            await store.put(POD, b"two", expect=1)
            with pytest.raises(RevisionMismatch):
                await store.put(POD, b"three", expect=1)

    async def test_updating_what_is_not_there_is_refused(self) -> None:
        async with self.open() as store:
            with pytest.raises(RevisionMismatch) as caught:
                await store.put(POD, b"one", expect=7)
            assert caught.value.current == 0

    async def test_without_expectation_a_put_overwrites(self) -> None:
        async with self.open() as store:
            await store.put(POD, b"one", expect=None)
            assert (await store.put(POD, b"two", expect=None)).revision == 2

    async def test_a_missing_key_is_not_found(self) -> None:
        async with self.open() as store:
            with pytest.raises(KeyNotFound):
                await store.get(POD)
            with pytest.raises(KeyNotFound):
                await store.delete(POD, expect=None)

    async def test_delete_gives_the_last_value_at_its_own_revision(self) -> None:
        async with self.open() as store:
            await store.put(POD, b"one", expect=0)
            gone = await store.delete(POD, expect=1)
            assert (gone.value, gone.revision, gone.created) == (b"one", 2, 1)
            with pytest.raises(KeyNotFound):
                await store.get(POD)

    async def test_a_stale_delete_is_refused(self) -> None:
        async with self.open() as store:
            await store.put(POD, b"one", expect=0)
            await store.put(POD, b"two", expect=None)
            with pytest.raises(RevisionMismatch):
                await store.delete(POD, expect=1)

    async def test_a_recreated_key_has_a_new_beginning(self) -> None:
        async with self.open() as store:
            await store.put(POD, b"one", expect=0)
            await store.delete(POD, expect=None)
            assert (await store.put(POD, b"two", expect=0)).created == 3

    async def test_list_is_in_key_order_and_below_the_prefix_only(self) -> None:
        async with self.open() as store:
            await fill(store, "c", "a", "b")
            await fill(store, "z", collection="core/pods/default-2")
            await fill(store, "n", collection="core/nodes")
            assert await names(store, "core/pods/default/") == ["a", "b", "c"]
            assert await names(store, "core/pods/") == ["z", "a", "b", "c"]  # "-" sorts before "/"
            assert await names(store, "core/") == ["n", "z", "a", "b", "c"]
            assert await names(store, "") == ["n", "z", "a", "b", "c"]
            assert await names(store, "core/services/") == []

    async def test_an_empty_store_lists_nothing_at_revision_zero(self) -> None:
        async with self.open() as store:
            page = await store.list("core/pods/")
            assert (page.records, page.revision, page.after, page.remaining) == ([], 0, "", 0)

    async def test_pages_follow_one_another(self) -> None:
        async with self.open() as store:
            await fill(store, "a", "b", "c", "d", "e")
            first = await store.list("core/pods/", limit=2)
            assert (first.after, first.remaining, first.revision) == ("core/pods/default/b", 3, 5)
            assert await names(store, "core/pods/", limit=2, after=first.after) == ["c", "d"]
            last = await store.list("core/pods/", limit=2, after="core/pods/default/d")
            assert (len(last.records), last.after, last.remaining) == (1, "", 0)

    async def test_later_pages_show_the_state_of_the_first(self) -> None:
        async with self.open() as store:
            await fill(store, "a", "b", "c", "d")
            first = await store.list("core/pods/", limit=1)
            await store.delete("core/pods/default/b", expect=None)
            await store.put("core/pods/default/c", b"changed", expect=None)
            await fill(store, "bb")
            page = await store.list("core/pods/", limit=2, after=first.after, revision=first.revision)
            assert [record.value for record in page.records] == [b"b", b"c"]
            assert (page.revision, page.remaining, page.after) == (4, 1, "core/pods/default/c")
            assert await names(store, "core/pods/") == ["a", "bb", "c", "d"]

    async def test_a_revision_to_come_cannot_be_listed(self) -> None:
        async with self.open() as store:
            with pytest.raises(FutureRevision):
                await store.list("core/pods/", revision=9)

    async def test_watch_gets_what_follows(self) -> None:
        async with self.open() as store:
            await fill(store, "a")
            async with store.watch("core/pods/", since=store.revision) as watch:
                await fill(store, "b")
                await store.put("core/pods/default/a", b"two", expect=1)
                await store.delete("core/pods/default/b", expect=None)
                assert await read(watch, 3) == [("PUT", "b", 2), ("PUT", "a", 3), ("DELETED", "b", 4)]

    async def test_watch_from_the_past_has_no_gap(self) -> None:
        async with self.open() as store:
            await fill(store, "a", "b", "c")
            async with store.watch("core/pods/", since=1) as watch:
                await fill(store, "d")
                assert await read(watch, 3) == [("PUT", "b", 2), ("PUT", "c", 3), ("PUT", "d", 4)]

    async def test_watch_over_collections_is_in_order(self) -> None:
        async with self.open() as store:
            await fill(store, "a")
            await fill(store, "n", collection="core/nodes")
            await fill(store, "b")
            async with store.watch("", since=0) as watch:
                assert [name for _, name, _ in await read(watch, 3)] == ["a", "n", "b"]

    async def test_watch_sees_its_prefix_only(self) -> None:
        async with (
            self.open() as store,
            store.watch("core/pods/default/web", since=0) as one,
            store.watch("core/pods/b/", since=0) as two,
        ):
            await fill(store, "a", "web", "web-2")
            await fill(store, "x", collection="core/pods/b")
            assert [name for _, name, _ in await read(one, 2)] == ["web", "web-2"]
            assert await read(two, 1) == [("PUT", "x", 4)]

    async def test_an_event_tells_what_it_replaced(self) -> None:
        async with self.open() as store, store.watch("core/", since=0) as watch:
            await store.put(POD, b"one", expect=0)
            await store.put(POD, b"two", expect=1)
            await store.delete(POD, expect=2)
            made, changed, gone = [await anext(watch) for _ in range(3)]
            assert made.previous is None
            assert changed.previous is made.record
            assert gone.previous is changed.record
            assert gone.record.value == b"two"

    async def test_take_gives_all_that_has_gathered(self) -> None:
        async with self.open() as store, store.watch("core/", since=0) as watch:
            await fill(store, "a", "b", "c")
            assert await anext(watch)
            assert [shape(event)[1] for event in await watch.take()] == ["b", "c"]

    async def test_a_watch_wakes_its_reader(self) -> None:
        async with self.open() as store, store.watch("core/", since=0) as watch, asyncio.TaskGroup() as group:
            reader = group.create_task(watch.take())
            await asyncio.sleep(0.01)
            await fill(store, "a")
            assert [shape(event) for event in await reader] == [("PUT", "a", 1)]

    async def test_a_watch_for_a_revision_to_come_waits_for_it(self) -> None:
        async with self.open() as store, store.watch("core/", since=2) as watch:
            await fill(store, "a", "b", "c")
            assert await read(watch, 1) == [("PUT", "c", 3)]

    async def test_below_the_compaction_nothing_is_answered(self) -> None:
        async with self.open() as store:
            await fill(store, "a", "b", "c")
            await store.compact(2)
            assert store.compacted == 2
            with pytest.raises(Compacted):
                async with store.watch("core/", since=1):
                    pass
            with pytest.raises(Compacted):
                await store.list("core/", revision=1)
            assert await names(store, "core/", revision=2) == ["a", "b"]
            async with store.watch("core/", since=2) as watch:
                assert await read(watch, 1) == [("PUT", "c", 3)]

    async def test_compaction_goes_forward_and_not_past_now(self) -> None:
        async with self.open() as store:
            await fill(store, "a", "b")
            await store.compact(99)
            await store.compact(1)
            assert store.compacted == 2

    async def test_a_slow_watcher_is_dropped(self) -> None:
        async with self.open(backlog=10) as store, store.watch("core/", since=0) as watch:
            await fill(store, *(f"p{number:02}" for number in range(11)))
            with pytest.raises(Compacted):
                await watch.take()

    async def test_writes_of_many_tasks_get_one_order(self) -> None:
        async with self.open() as store, store.watch("core/", since=0) as watch:
            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    group.create_task(fill(store, f"p{number:02}"))
            events = await read(watch, 50)
            assert [revision for _, _, revision in events] == list(range(1, 51))
            assert store.revision == 50

    async def test_of_many_creating_one_key_one_wins(self) -> None:
        async with self.open() as store:
            outcomes = await asyncio.gather(
                *(store.put(POD, bytes([number]), expect=0) for number in range(20)), return_exceptions=True
            )
            winners = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
            assert len(winners) == 1
            assert all(isinstance(outcome, RevisionMismatch) for outcome in outcomes if outcome not in winners)
            assert await store.get(POD) is winners[0]

    async def test_pipelined_writes_see_one_another(self) -> None:
        async with self.open() as store, asyncio.TaskGroup() as group:
            first = group.create_task(store.put(POD, b"one", expect=0))
            await asyncio.sleep(0)
            second = group.create_task(store.put(POD, b"two", expect=1))
            third = group.create_task(store.delete(POD, expect=None))
            fourth = group.create_task(store.put(POD, b"three", expect=0))
            records = [await first, await second, await third, await fourth]
            assert [record.revision for record in records] == [1, 2, 3, 4]
            assert [record.created for record in records] == [1, 1, 1, 4]

    async def test_who_loses_a_race_sees_the_winner(self) -> None:
        """After a mismatch a read shows what it clashed with, so a retry makes progress."""
        async with self.open() as store, asyncio.TaskGroup() as group:
            await store.put(POD, b"one", expect=0)
            group.create_task(store.put(POD, b"two", expect=1))
            await asyncio.sleep(0)
            with pytest.raises(RevisionMismatch):
                await store.put(POD, b"three", expect=1)
            assert (await store.get(POD)).value == b"two"

    async def test_increments_are_not_lost(self) -> None:
        async def increment(store: Store) -> None:
            while True:
                record = await store.get(POD)
                try:
                    await store.put(POD, str(int(record.value) + 1).encode(), expect=record.revision)
                    return
                except RevisionMismatch:
                    continue

        async with self.open() as store:
            await store.put(POD, b"0", expect=0)
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(increment(store))
            assert (await store.get(POD)).value == b"20"

    async def test_memo_stays_with_the_record(self) -> None:
        async with self.open() as store:
            await store.put(POD, b"{}", expect=0)
            (await store.get(POD)).memo = {"decoded": True}
            assert (await store.list("core/")).records[0].memo == {"decoded": True}

    async def test_a_cancelled_caller_does_not_upset_the_others(self) -> None:
        async with self.open() as store:
            task = asyncio.ensure_future(store.put(POD, b"one", expect=0))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            await store.put(POD, b"two", expect=None)
            assert (await store.get(POD)).value == b"two"
