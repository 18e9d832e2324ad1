"""watch: events of a selection as a stream, resumed, bookmarked, or begun with the present objects (watch-list).

An object that enters or leaves the selection by a change appears as ADDED or DELETED.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from dure.api import protobuf
from dure.api.kind import Kind
from dure.api.protobuf_wire import bytes_field
from dure.apiserver.call import Call
from dure.apiserver.codec import Codec
from dure.apiserver.errors import future_revision
from dure.apiserver.negotiation import JSON, PROTOBUF, Media
from dure.apiserver.representation import partial_metadata, table_of
from dure.apiserver.rest.objects import Objects
from dure.apiserver.rest.options import ListOptions, read_list_options
from dure.apiserver.rest.reading import Listing, Reading
from dure.apiserver.rest.selection import Selection, select
from dure.apiserver.watch_hub import Feed, Subscription, WatchHub
from dure.core.errors import ApiError, InternalError, NotAcceptable
from dure.core.json import Obj, dumps
from dure.store.model import Event, Record
from dure.wire.http import Response, Sink

log = logging.getLogger(__name__)

_BOOKMARK_SECONDS = 60.0
_MIN_TIMEOUT_SECONDS = 1800
_INITIAL_END = "k8s.io/initial-events-end"

Item = tuple[str, Record]
"""ADDED, MODIFIED or DELETED, and the record it is about."""


def routes_of(kind: Kind, codec: Codec) -> Callable[[Event], tuple[str, ...]]:
    """The narrower feeds of a collection: `namespace/<name>`, and for pods `node/<name>`."""
    if not kind.namespaced:
        return lambda event: ()

    def by_namespace(event: Event) -> tuple[str, ...]:
        return (f"namespace/{event.record.key.rsplit('/', 2)[1]}",)

    def by_node(event: Event) -> tuple[str, ...]:
        records = [event.record] if event.previous is None else [event.record, event.previous]
        nodes = {codec.decode(record).get("spec", {}).get("nodeName", "") for record in records}
        return (*by_namespace(event), *(f"node/{node}" for node in nodes if node))

    return by_node if kind.resource == "pods" else by_namespace


class Form:
    """How one event is written: as the object itself, a Table row, or its metadata."""

    def __init__(self, kind: Kind, codec: Codec, media: Media, include: str, now: Callable[[], float]) -> None:
        self._kind, self._codec, self._media, self._include, self._now = kind, codec, media, include, now
        self.plain = not media.transform and media.format == JSON
        self.first_table = True

    def value(self, type_: str, record: Record) -> Obj:
        return {"type": type_, "object": self._shown(self._codec.decode(record))}

    def _shown(self, obj: Obj) -> Obj:
        if self._media.transform == "Table":
            meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            table = table_of(self._kind, [obj], meta, self._media, self._include, self._now())
            if not self.first_table:
                table["columnDefinitions"] = None
            self.first_table = False
            return table
        if self._media.transform:
            return partial_metadata(obj, self._media)
        return obj

    def frame(self, type_: str, record: Record) -> bytes:
        if self.plain:
            return self._codec.frame(type_, record)
        return self.encode(self.value(type_, record))

    def encode(self, event: Obj) -> bytes:
        if self._media.format == PROTOBUF:
            return _protobuf_frame(event)
        return dumps(event) + b"\n"

    def bookmark(self, revision: int, *, initial_end: bool) -> Obj:
        meta: Obj = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            meta["annotations"] = {_INITIAL_END: "true"}
        obj: Obj = {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": meta}
        if self._media.transform == "Table":
            rows = [{"cells": [], "object": partial_metadata(obj, Media(version="v1"))}] if initial_end else []
            table_meta = {"resourceVersion": str(revision)}
            obj = {
                "kind": "Table", "apiVersion": self._media.meta_version, "metadata": table_meta,
                "columnDefinitions": None, "rows": rows,
            }  # fmt: skip
        elif self._media.transform:
            obj = partial_metadata(obj, self._media)
        return {"type": "BOOKMARK", "object": obj}


def _protobuf_frame(event: Obj) -> bytes:
    """Length-delimited: four bytes, then a bare WatchEvent whose object is a whole body of its own."""
    raw = bytes_field(1, protobuf.encode(event["object"]))
    body = bytes_field(1, event["type"].encode()) + bytes_field(2, raw)
    return len(body).to_bytes(4, "big") + body


@dataclass(slots=True)
class Plan:
    """What a watcher gets, before it is known whether as bytes or values."""

    selection: Selection
    options: ListOptions
    form: Form
    codec: Codec
    prefix: str
    feed: str
    since: int
    initial: Listing | None
    timeout: float


class WatchStream:
    """One watcher. Give `chunks` or `values`, once."""

    def __init__(self, hub: WatchHub, plan: Plan, kind: Kind) -> None:
        self._hub, self._plan, self._kind = hub, plan, kind

    async def chunks(self) -> AsyncIterator[bytes]:
        async for batch in self._batches():
            yield self._bytes(batch)

    async def push(self, sink: Sink) -> None:
        """Like `chunks`, without a task's wake-up for each event: the feed writes to the sink itself."""
        plan = self._plan
        try:
            async with self._subscribed() as subscription:
                if plan.initial is not None:
                    async for batch in self._initial(plan.initial):
                        if not sink.write(self._bytes(batch)):
                            await sink.drained()
                await self._push_events(subscription, sink)
        except ApiError as error:
            sink.write(plan.form.encode(_error_event(error)))

    async def _push_events(self, subscription: Subscription, sink: Sink) -> None:
        """Turns of listening, between which bookmarks are written and slow readers waited for."""
        clock, pushing = _Turns(self._plan), _Pushing(self, subscription, sink)
        while True:
            with subscription.listening(pushing):
                ended = await pushing.wait_interrupted(clock.next_turn())
            pushing.raise_failure()
            if ended:
                await sink.drained()
                continue
            for event in clock.due(subscription.position):
                sink.write(self._plan.form.encode(event))
            if clock.over():
                return

    def _bytes(self, batch: Any) -> bytes:
        form = self._plan.form
        if isinstance(batch, bytes):
            return batch
        if isinstance(batch, dict):
            return form.encode(batch)
        return b"".join([form.frame(type_, record) for type_, record in batch])

    def take_bytes(self, subscription: Subscription) -> bytes:
        """What has come, as bytes; empty when none of it is selected. Raises Expired."""
        batch = self._next(subscription)
        return self._bytes(batch) if batch else b""

    async def values(self) -> AsyncIterator[Any]:
        form = self._plan.form
        form.plain = False
        async for batch in self._batches():
            if isinstance(batch, dict):
                yield batch
            else:
                for type_, record in batch:
                    yield form.value(type_, record)

    def _subscribed(self) -> AbstractAsyncContextManager[Subscription]:
        plan = self._plan
        return self._hub.subscribe(plan.prefix, plan.since, routes_of(self._kind, plan.codec), plan.feed)

    async def _batches(self) -> AsyncIterator[Any]:
        """Lists of items; for bookmarks and errors the finished event; joined bytes where they are shared."""
        try:
            async with self._subscribed() as subscription:
                if self._plan.initial is not None:
                    async for batch in self._initial(self._plan.initial):
                        yield batch
                async for batch in self._follow(subscription):
                    yield batch
        except ApiError as error:
            yield _error_event(error)

    async def _initial(self, listing: Listing) -> AsyncIterator[Any]:
        plan = self._plan
        for start in range(0, len(listing.records), 500):
            yield [("ADDED", record) for record in listing.records[start : start + 500]]
        if plan.options.initial_events and plan.options.bookmarks:
            yield plan.form.bookmark(listing.revision, initial_end=True)

    async def _follow(self, subscription: Subscription) -> AsyncIterator[Any]:
        clock = _Turns(self._plan)
        while not clock.over():
            if await subscription.wait_events(clock.next_turn()):
                batch = self._next(subscription)
                if batch:
                    yield batch
            else:
                for event in clock.due(subscription.position):
                    yield event

    def _next(self, subscription: Subscription) -> Any:
        start = subscription.index
        events = subscription.take()
        if not events:
            return None
        plan = self._plan
        if not (plan.selection.everything and plan.form.plain):
            return list(self._items(events))
        return self._shared(subscription.feed, start, subscription.index, events)

    def _shared(self, feed: Feed, start: int, end: int, events: list[Event]) -> bytes:
        """The same joined bytes for every watcher that reads the same stretch of a feed."""
        key = (self._kind.api_version, end - len(events), end)
        made = feed.shared.get(key)
        if made is None:
            frame = self._plan.codec.frame
            made = b"".join([frame(type_, record) for type_, record in self._items(events)])
            feed.shared[key] = made
        return made

    def _items(self, events: Iterable[Event]) -> Iterable[Item]:
        selection, decode = self._plan.selection, self._plan.codec.decode
        for event in events:
            if selection.everything:
                yield _plain_type(event), event.record
                continue
            had = event.previous is not None and selection.matches(decode(event.previous))
            has = event.type == "PUT" and selection.matches(decode(event.record))
            if has:
                yield ("MODIFIED" if had else "ADDED"), event.record
            elif had:
                yield "DELETED", _gone(event)


class _Turns:
    """When a watch has its bookmarks and its end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._now = asyncio.get_running_loop().time
        self._deadline = self._now() + plan.timeout
        spread = 0.9 + secrets.randbelow(100) / 500
        self._bookmark = self._now() + _BOOKMARK_SECONDS * spread if plan.options.bookmarks else math.inf

    def over(self) -> bool:
        return self._now() >= self._deadline

    def next_turn(self) -> float:
        """Seconds until there is something to do."""
        return max(min(self._deadline, self._bookmark) - self._now(), 0.0)

    def due(self, position: int) -> Iterator[Obj]:
        """The bookmark whose time has come; one more at the end."""
        last = self.over() and self._plan.options.bookmarks and position > self._plan.since
        if last or self._now() >= self._bookmark:
            self._bookmark = self._now() + _BOOKMARK_SECONDS
            yield self._plan.form.bookmark(position, initial_end=False)


class _Pushing:
    """The listener of one pushed watch: writes at each call, and interrupts its task when it cannot go on."""

    __slots__ = ("_failure", "_interrupt", "_sink", "_stream", "_subscription")

    def __init__(self, stream: WatchStream, subscription: Subscription, sink: Sink) -> None:
        self._stream, self._subscription, self._sink = stream, subscription, sink
        self._failure: ApiError | None = None
        self._interrupt: asyncio.Future[None] | None = None

    def __call__(self) -> None:
        if self._interrupt is not None and self._interrupt.done():
            return  # the task has been told and will look itself
        try:
            data = self._stream.take_bytes(self._subscription)
        except ApiError as error:
            self._failure = error
            self._stop()
            return
        except Exception:
            # raised into the feed it would end every other watch of the collection
            log.exception("a watch event cannot be written")
            self._failure = InternalError("Internal error occurred: the server has logged the cause")
            self._stop()
            return
        if data and not self._sink.write(data):
            self._stop()

    def _stop(self) -> None:
        if self._interrupt is None:
            self._interrupt = asyncio.get_running_loop().create_future()
        if not self._interrupt.done():
            self._interrupt.set_result(None)

    async def wait_interrupted(self, within: float) -> bool:
        """Until the reader is behind or the feed has failed; False when the time is over."""
        if self._interrupt is None:
            self._interrupt = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within):
                await self._interrupt
        except TimeoutError:
            return False
        finally:
            self._interrupt = None
        return True

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _error_event(error: ApiError) -> Obj:
    return {"type": "ERROR", "object": error.to_status()}


def _plain_type(event: Event) -> str:
    if event.type == "DELETED":
        return "DELETED"
    return "ADDED" if event.previous is None else "MODIFIED"


def _gone(event: Event) -> Record:
    """What left the selection: its last selected state at the revision of the change."""
    if event.type == "DELETED" or event.previous is None:
        return event.record
    return Record(event.record.key, event.previous.value, event.record.revision, event.record.created)


class Watching:
    """Opens watch streams."""

    def __init__(self, objects: Objects, reading: Reading, hub: WatchHub) -> None:
        self._objects, self._reading, self._hub = objects, reading, hub

    async def watch(self, call: Call) -> Response:
        """Raises ApiError for what is wrong before the stream has begun."""
        plan = await self._plan(call)
        type_ = JSON if call.media.format == JSON else f"{PROTOBUF};stream=watch"
        headers = {"Content-Type": type_, "Cache-Control": "no-cache, private"}
        return Response(200, headers, stream=WatchStream(self._hub, plan, call.kind))

    async def _plan(self, call: Call) -> Plan:
        if call.media.transform == "PartialObjectMetadataList":
            raise NotAcceptable("a list form was asked for a watch")
        options = read_list_options(call.request, watch=True)
        kind = call.kind
        selection = select(kind, options)
        codec = self._objects.codec(kind)
        newest = self._objects.store.revision
        if (options.revision or 0) > newest:
            raise future_revision(options.revision or 0, newest)
        initial = await self._initial(call, options, selection)
        since = initial.revision if initial is not None else (options.revision or newest)
        form = Form(kind, codec, call.media, options.include, self._objects.clock.time)
        timeout = options.timeout_seconds or _MIN_TIMEOUT_SECONDS + secrets.randbelow(_MIN_TIMEOUT_SECONDS)
        prefix = kind.prefix()
        return Plan(selection, options, form, codec, prefix, _feed(call, selection), since, initial, float(timeout))

    async def _initial(self, call: Call, options: ListOptions, selection: Selection) -> Listing | None:
        """The present objects: asked for by sendInitialEvents, and the old meaning of no revision or 0."""
        if options.initial_events is False or (options.initial_events is None and options.revision):
            return None
        now = ListOptions(
            options.labels, options.fields, None, "", 0, "", None, options.bookmarks, None, options.include
        )
        return await self._reading.select(call.kind, call.namespace, now, selection)


def _feed(call: Call, selection: Selection) -> str:
    """The narrowest feed that has all of the selection."""
    node = selection.fields.exact("spec.nodeName") if call.kind.resource == "pods" else None
    if node and not call.namespace:
        return f"node/{node}"
    return f"namespace/{call.namespace}" if call.namespace else ""
