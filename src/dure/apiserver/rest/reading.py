"""get and list: consistent pages out of the store, joined from the bytes already there."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from dure.api.kind import Kind
from dure.apiserver.call import Call
from dure.apiserver.errors import future_revision
from dure.apiserver.negotiation import JSON, Media
from dure.apiserver.representation import encode_value, json_response, partial_metadata_list, render_object, table_of
from dure.apiserver.rest.objects import Objects
from dure.apiserver.rest.options import ListOptions, parse_revision, read_list_options
from dure.apiserver.rest.selection import Selection, select
from dure.core.errors import ApiError, BadRequest, Expired, NotAcceptable
from dure.core.json import JSONDecodeError, Obj, dumps, loads
from dure.store.model import Compacted, FutureRevision, Page, Record
from dure.wire.http import Response

_INCONSISTENT = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."  # noqa: E501


@dataclass(slots=True)
class Listing:
    """Selected records at one revision."""

    records: list[Record]
    revision: int
    continue_: str = ""
    remaining: int = 0

    def meta(self) -> Obj:
        meta: Obj = {"resourceVersion": str(self.revision)}
        if self.continue_:
            meta["continue"] = self.continue_
        if self.remaining:
            meta["remainingItemCount"] = self.remaining
        return meta


def _encode_token(revision: int, start: str) -> str:
    text = dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": start})
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _decode_token(token: str) -> tuple[int, str]:
    try:
        found = loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        revision, start = found["rv"], found["start"]
    except (ValueError, JSONDecodeError, KeyError, TypeError) as error:
        raise BadRequest(f"continue key is not valid: {error}") from error
    if not isinstance(revision, int) or not isinstance(start, str) or not start or ".." in start.split("/"):
        raise BadRequest("continue key is not valid: incorrect encoded start resourceVersion")
    return max(revision, 0), start


class ExpiredPage(Expired):
    """A later page of a listing that is no longer known; `token` continues at what is there now."""

    def __init__(self, message: str, token: str) -> None:
        super().__init__(message)
        self.token = token

    def to_status(self) -> Obj:
        return {**super().to_status(), "metadata": {"continue": self.token}}


class Reading:
    """Answers get and list."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def get(self, call: Call) -> Response:
        kind, codec = call.kind, self._objects.codec(call.kind)
        revision = parse_revision(call.request.param("resourceVersion"))
        if revision > self._objects.store.revision:
            raise future_revision(revision, self._objects.store.revision)
        record = await self._objects.record(kind, call.namespace, call.name)
        return self.answer(call, codec.decode(record), codec.render(record) if call.request.user is None else None)

    def answer(self, call: Call, obj: Obj, rendered: bytes | None = None, status: int = 200) -> Response:
        """One object in the form the client asked for; `rendered` is its JSON where it is known."""
        media = call.media
        if call.request.user is not None and not media.transform:
            return Response(status, {"Content-Type": JSON}, b"", value=obj)
        if media.format == JSON and not media.transform and rendered is not None:
            response = json_response(obj, body=rendered)
        else:
            include = call.request.param("includeObject")
            shown = render_object(call.kind, obj, media, include, self._objects.clock.time())
            response = encode_value(shown, media)
        response.status = status
        return response

    async def list_objects(self, call: Call) -> Response:
        options = read_list_options(call.request)
        selection = select(call.kind, options)
        listing = await self.select(call.kind, call.namespace, options, selection)
        media = call.media
        if call.request.user is not None and not media.transform:
            return Response(200, {"Content-Type": JSON}, b"", value=self._list_value(call.kind, listing))
        if media.format == JSON and not media.transform:
            return json_response(None, body=self._list_parts(call.kind, listing))
        return encode_value(self._render(call.kind, listing, media, options.include), media)

    def _list_value(self, kind: Kind, listing: Listing) -> Obj:
        codec = self._objects.codec(kind)
        items = [codec.decode(record) for record in listing.records]
        return {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": listing.meta(), "items": items}

    def _list_parts(self, kind: Kind, listing: Listing) -> list[bytes | memoryview]:
        """The body in pieces; its one join happens at the wire."""
        render = self._objects.codec(kind).render_item
        head = dumps({"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": listing.meta()})
        parts: list[bytes | memoryview] = [head[:-1], b',"items":[']
        before = b"{"
        for record in listing.records:
            parts += before, render(record)
            before = b",{"
        parts.append(b"]}\n")
        return parts

    def _render(self, kind: Kind, listing: Listing, media: Media, include: str) -> Obj:
        if not media.transform:
            return self._list_value(kind, listing)
        codec = self._objects.codec(kind)
        items = [codec.decode(record) for record in listing.records]
        if media.transform == "Table":
            return table_of(kind, items, listing.meta(), media, include, self._objects.clock.time())
        if media.transform == "PartialObjectMetadataList":
            return partial_metadata_list(items, listing.meta(), media)
        raise NotAcceptable("a single object's form was asked for a list")

    async def select(self, kind: Kind, namespace: str, options: ListOptions, selection: Selection) -> Listing:
        """The records asked for, at one revision. Raises Expired, Timeout for a future revision, BadRequest."""
        prefix = kind.prefix(namespace)
        revision, after = self._start(options)
        if options.continue_ and not after.startswith(prefix):
            raise BadRequest("continue key is not valid: it is of another collection")
        name = selection.fields.exact("metadata.name")
        if name is not None and not options.continue_:
            return await self._one(kind, namespace, name, selection, prefix)
        return await self._scan(kind, prefix, revision, after, options.limit, selection)

    def _start(self, options: ListOptions) -> tuple[int, str]:
        """The revision to read at (0 is now) and the key to read after."""
        if options.continue_:
            if options.revision is not None and options.revision != 0:
                raise BadRequest("specifying resource version is not allowed when using continue")
            return _decode_token(options.continue_)
        asked = options.revision or 0
        newest = self._objects.store.revision
        if asked > newest:
            raise future_revision(asked, newest)
        exact = options.match == "Exact" or (options.limit and asked and options.match != "NotOlderThan")
        return (asked if exact else 0), ""

    async def _one(self, kind: Kind, namespace: str, name: str, selection: Selection, prefix: str) -> Listing:
        """A list narrowed to a name reads one key where it can."""
        if namespace or not kind.namespaced:
            page = await self._objects.store.list(f"{prefix}{name}")
            records = [record for record in page.records if record.key == f"{prefix}{name}"]
        else:
            page = await self._objects.store.list(prefix)
            records = [record for record in page.records if record.key.endswith(f"/{name}")]
        return Listing(self._filter(kind, records, selection), page.revision)

    def _filter(self, kind: Kind, records: list[Record], selection: Selection) -> list[Record]:
        if selection.everything:
            return records
        decode = self._objects.codec(kind).decode
        return [record for record in records if selection.matches(decode(record))]

    async def _scan(
        self, kind: Kind, prefix: str, revision: int, after: str, limit: int, selection: Selection
    ) -> Listing:
        """Pages until `limit` matching records are found; all pages are of one revision."""
        found: list[Record] = []
        while True:
            page = await self._page(prefix, revision, after, limit)
            revision = page.revision
            matching = self._filter(kind, page.records, selection)
            if limit and len(found) + len(matching) >= limit and (page.after or len(found) + len(matching) > limit):
                found += matching[: limit - len(found)]
                return self._cut(found, revision, page, selection)
            found += matching
            if not page.after:
                return Listing(found, revision)
            after = page.after

    @staticmethod
    def _cut(found: list[Record], revision: int, page: Page, selection: Selection) -> Listing:
        remaining = page.remaining if selection.everything else 0
        return Listing(found, revision, _encode_token(revision, found[-1].key), remaining)

    async def _page(self, prefix: str, revision: int, after: str, limit: int) -> Page:
        try:
            return await self._objects.store.list(prefix, limit=limit, after=after, revision=revision)
        except Compacted:
            raise self._expired(after) from None
        except FutureRevision:
            raise future_revision(revision, self._objects.store.revision) from None

    def _expired(self, after: str) -> ApiError:
        """A fresh token lets a client that can bear it go on from where it was."""
        if not after:
            return Expired("The resourceVersion for the provided list is too old.")
        return ExpiredPage(_INCONSISTENT, _encode_token(self._objects.store.revision, after))
