"""Objects as stored, as rendered, as decoded; each form made once and kept beside its record.

Stored bytes carry no resourceVersion: it is the record's revision, spliced in when rendering. They begin with
apiVersion, kind and metadata in that order, so that the splice is a single search.
"""

from __future__ import annotations

from dure.api.kind import Kind
from dure.core.json import Obj, dumps, loads
from dure.store.model import Record

_METADATA = b'"metadata":{'
_FRAMES = 256


class Memo:
    """The derived forms of one record, for one served version."""

    __slots__ = ("api_version", "decoded", "rendered", "revision")

    def __init__(self, api_version: str, revision: int) -> None:
        self.api_version = api_version
        self.revision = revision
        self.rendered: bytes | None = None
        self.decoded: Obj | None = None


def encode(obj: Obj) -> bytes:
    """The stored form."""
    meta = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    head = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": meta}
    return dumps(head | {key: value for key, value in obj.items() if key not in head})


def splice_revision(value: bytes, revision: int) -> bytes:
    """Stored bytes with the resourceVersion put in."""
    at = value.index(_METADATA) + len(_METADATA)
    return b'%b"resourceVersion":"%d",%b' % (value[:at], revision, value[at:])


class Codec:
    """Renders and decodes records of one kind in its version; objects it hands out are frozen."""

    __slots__ = ("_api_version", "_conversion", "_frames", "_head", "_typed", "kind")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._api_version = kind.api_version
        self._head = b'{"apiVersion":"%b",' % kind.api_version.encode()
        self._typed = b'%b"kind":"%b",' % (self._head, kind.kind.encode())
        self._conversion = kind.conversion
        self._frames: dict[tuple[str, int], bytes] = {}

    def memo(self, record: Record) -> Memo:
        """The record's memo for this version; another version's or revision's is replaced."""
        memo = record.memo
        if not isinstance(memo, Memo) or memo.api_version != self._api_version or memo.revision != record.revision:
            memo = Memo(self._api_version, record.revision)
            record.memo = memo
        return memo

    def render(self, record: Record) -> bytes:
        """The object as JSON bytes."""
        memo = self.memo(record)
        if memo.rendered is None:
            if record.value.startswith(self._head):
                memo.rendered = splice_revision(record.value, record.revision)
            else:
                memo.rendered = dumps(self.decode(record))
        return memo.rendered

    def render_item(self, record: Record) -> bytes | memoryview:
        """The object as JSON bytes without its first brace, as lists have it.

        Items of built-in kinds do not repeat the type that the list names; those of custom kinds do.
        """
        rendered = self.render(record)
        typed = self.kind.custom is None and rendered.startswith(self._typed)
        return memoryview(rendered)[len(self._typed) if typed else 1 :]

    def decode(self, record: Record) -> Obj:
        """The object as a dict, frozen."""
        memo = self.memo(record)
        if memo.decoded is None:
            memo.decoded = self._load(record)
        return memo.decoded

    def remember(self, record: Record, obj: Obj) -> Obj:
        """Keep a decoded form the writer already has; gives it with its resourceVersion."""
        meta = {**obj["metadata"], "resourceVersion": str(record.revision)}
        decoded: Obj = {**obj, "metadata": meta}
        self.memo(record).decoded = decoded
        return decoded

    def _load(self, record: Record) -> Obj:
        obj: Obj = loads(record.value)
        obj["metadata"]["resourceVersion"] = str(record.revision)
        if obj["apiVersion"] == self._api_version:
            return obj
        if self._conversion is not None:
            return self._conversion.from_stored(obj)
        # versions of a custom kind differ in their name only
        return {**obj, "apiVersion": self._api_version}

    def frame(self, type_: str, record: Record) -> bytes:
        """One watch event as a line of JSON; the last few are kept for the next watcher."""
        key = type_, record.revision
        made = self._frames.get(key)
        if made is None:
            if len(self._frames) >= _FRAMES:
                self._frames.clear()
            made = self._frames[key] = b'{"type":"%b","object":%b}\n' % (type_.encode(), self.render(record))
        return made
