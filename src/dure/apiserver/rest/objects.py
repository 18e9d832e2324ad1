"""The writes of every kind over the store: defaulting, admission, validation, ownership of fields, compare-and-swap.

All endpoints, also subresources and the server's own controllers, change objects through here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dure.api.fields import invalid_error, required
from dure.api.kind import Kind, Kinds
from dure.api.meta import GroupVersionKind
from dure.apiserver.admission import Admission, Attributes
from dure.apiserver.codec import Codec, encode
from dure.apiserver.errors import already_exists, conflict, not_found, revision_on_create
from dure.apiserver.field_ownership import track
from dure.apiserver.ports import VerifiedUser
from dure.apiserver.rest.options import WriteOptions
from dure.core.clock import Clock, rfc3339
from dure.core.errors import BadRequest
from dure.core.ids import new_uid, random_suffix
from dure.core.json import Obj, thaw
from dure.store.model import KeyNotFound, Record, RevisionMismatch, Store

_GENERATED_TRIES = 8
_MAX_GENERATED_BASE = 58
_CARRIED = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "namespace",
    "name",
)

_RULED_META = ("labels", "annotations", "finalizers", "ownerReferences")

Change = Callable[[Obj], Obj]
"""From the stored object (frozen) to what it should become: a fresh dict of its own."""


@dataclass(slots=True)
class Write:
    """Where and for whom something is written."""

    kind: Kind
    namespace: str
    name: str
    user: VerifiedUser
    options: WriteOptions = field(default_factory=WriteOptions)
    subresource: str = ""
    warnings: list[str] = field(default_factory=list)
    applied: bool = False
    """Server-side apply has recorded the owners of fields itself."""

    def attributes(self, operation: Any, obj: Obj | None, old: Obj | None) -> Attributes:
        return Attributes(
            operation, self.kind, self.namespace, self.name, self.subresource, self.user, obj, old,
            self.options.dry_run, self.warnings,
        )  # fmt: skip


class Objects:
    """Reads and writes of objects; results are frozen and carry their resourceVersion."""

    def __init__(self, store: Store, kinds: Kinds, clock: Clock, admission: Admission) -> None:
        self.store = store
        self.kinds = kinds
        self.clock = clock
        self.admission = admission
        self._codecs: dict[GroupVersionKind, Codec] = {}
        self._second, self._stamp = -1, ""

    def now(self) -> str:
        """The present second, as objects carry it."""
        second = int(self.clock.time())
        if second != self._second:
            self._second, self._stamp = second, rfc3339(second)
        return self._stamp

    def codec(self, kind: Kind) -> Codec:
        found = self._codecs.get(kind.gvk)
        if found is None or found.kind is not kind:
            found = self._codecs[kind.gvk] = Codec(kind)
        return found

    async def record(self, kind: Kind, namespace: str, name: str) -> Record:
        """Raises NotFound."""
        try:
            return await self.store.get(kind.key(namespace, name))
        except KeyNotFound:
            raise not_found(kind, name) from None

    async def get(self, kind: Kind, namespace: str, name: str) -> Obj:
        """Raises NotFound."""
        return self.codec(kind).decode(await self.record(kind, namespace, name))

    async def find(self, kind: Kind, namespace: str, name: str) -> Obj | None:
        try:
            return self.codec(kind).decode(await self.store.get(kind.key(namespace, name)))
        except KeyNotFound:
            return None

    # ── create ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def create(self, write: Write, obj: Obj) -> Obj:
        """Store a new object; `obj` is the caller's own and is changed."""
        meta = obj["metadata"]
        generated = not meta.get("name") and bool(meta.get("generateName"))
        for attempt in range(_GENERATED_TRIES):
            if generated:
                meta["name"] = meta["generateName"][:_MAX_GENERATED_BASE] + random_suffix()
            try:
                return await self._create_once(write, obj if not generated else thaw(obj))
            except RevisionMismatch:
                if not generated or attempt == _GENERATED_TRIES - 1:
                    old = await self.find(write.kind, write.namespace, meta["name"])
                    deleting = bool(old and old["metadata"].get("deletionTimestamp"))
                    raise already_exists(write.kind, meta["name"], deleting=deleting) from None
        raise AssertionError("unreachable")

    async def _create_once(self, write: Write, obj: Obj) -> Obj:
        kind, meta = write.kind, obj["metadata"]
        write.name = meta.get("name") or ""
        if not write.name:
            errors = [required("metadata.name", "name or generateName is required")]
            raise invalid_error(kind.group, kind.kind, "", errors)
        self._stamp_new(write, obj)
        strategy = kind.strategy
        strategy.default(obj)
        self._track(write, obj, None)
        attributes = write.attributes("CREATE", obj, None)
        await self.admission.admit(attributes)
        strategy.prepare_create(obj)
        write.warnings.extend(strategy.warnings(obj))
        if errors := strategy.validate(obj):
            raise invalid_error(kind.group, kind.kind, write.name, errors)
        if write.options.dry_run:
            return await self._pretend_create(write, obj)
        with self.admission.reserving(attributes):
            record = await self.put(kind, self._key_of(write), obj, expect=0)
        return self.codec(kind).remember(record, obj)

    async def _pretend_create(self, write: Write, obj: Obj) -> Obj:
        if await self.find(write.kind, write.namespace, write.name) is not None:
            raise RevisionMismatch(self._key_of(write), 0, 1)
        with self.admission.reserving(write.attributes("CREATE", obj, None)):
            return obj

    def _key_of(self, write: Write) -> str:
        return write.kind.key(write.namespace, write.name)

    def _stamp_new(self, write: Write, obj: Obj) -> None:
        """What only the server may say about a new object."""
        meta = obj["metadata"]
        if meta.get("resourceVersion"):
            raise revision_on_create()
        for name in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            meta.pop(name, None)
        if write.kind.namespaced:
            meta["namespace"] = write.namespace
        meta["uid"] = new_uid()
        meta["creationTimestamp"] = self.now()
        if not write.applied:
            meta.pop("managedFields", None)

    async def put(self, kind: Kind, key: str, obj: Obj, *, expect: int) -> Record:
        """Store an object as it is, in its kind's stored form. Raises RevisionMismatch, StoreFull."""
        value = encode(obj if kind.conversion is None else kind.conversion.to_stored(obj))
        return await self.store.put(key, value, expect=expect)

    # ── update ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def update(self, write: Write, change: Change, *, retries: int = 5) -> Obj:
        """Replace an object by `change(old)`; tried again on a concurrent write.

        A change that keeps the client's resourceVersion ends in Conflict once that is not the newest.
        """
        while True:
            record = await self.record(write.kind, write.namespace, write.name)
            old = self.codec(write.kind).decode(record)
            new = change(old)
            asked = new["metadata"].get("resourceVersion")
            if asked and asked != old["metadata"]["resourceVersion"]:
                raise conflict(write.kind, write.name)
            try:
                return await self._update_once(write, record, old, new)
            except RevisionMismatch:
                retries -= 1
                if retries < 0:
                    raise conflict(write.kind, write.name) from None
            except KeyNotFound:
                raise not_found(write.kind, write.name) from None

    async def _update_once(self, write: Write, record: Record, old: Obj, new: Obj) -> Obj:
        kind, strategy = write.kind, write.kind.strategy
        self._carry(write, old, new)
        strategy.default(new)
        self._track(write, new, old)
        attributes = write.attributes("UPDATE", new, old)
        await self.admission.admit(attributes)
        part = "" if write.subresource == "scale" else write.subresource
        strategy.prepare_update(new, old, part)
        write.warnings.extend(strategy.warnings(new))
        errors = [] if _only_status(write, new, old) else strategy.validate(new)
        if errors := [*errors, *strategy.validate_update(new, old, part)]:
            raise invalid_error(kind.group, kind.kind, write.name, errors)
        if _ended(kind, new, old):
            return await self._remove(write, record, new)
        with self.admission.reserving(attributes):
            if _same(new, old):
                return old
            if write.options.dry_run:
                return {**new, "metadata": {**new["metadata"], "resourceVersion": str(record.revision)}}
            fresh = await self.put(kind, record.key, new, expect=record.revision)
        return self.codec(kind).remember(fresh, new)

    async def amend(self, kind: Kind, namespace: str, name: str, change: Change) -> Obj:
        """Change an object as the server itself, past strategy and admission; unchanged is not written."""
        while True:
            record = await self.record(kind, namespace, name)
            old = self.codec(kind).decode(record)
            new = change(old)
            if _same(new, old):
                return old
            try:
                fresh = await self.put(kind, record.key, new, expect=record.revision)
            except RevisionMismatch:
                continue
            return self.codec(kind).remember(fresh, _bare(new))

    def _carry(self, write: Write, old: Obj, new: Obj) -> None:
        """What an update may not say; a different uid or name is refused."""
        meta, before = new["metadata"], old["metadata"]
        if meta.get("uid") and meta["uid"] != before["uid"]:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
            raise conflict(write.kind, write.name, why)
        for name in _CARRIED:
            if name in before:
                meta[name] = before[name]
            else:
                meta.pop(name, None)
        if "generateName" in before:
            meta.setdefault("generateName", before["generateName"])
        meta.pop("resourceVersion", None)

    def _track(self, write: Write, obj: Obj, old: Obj | None) -> None:
        if not write.applied:
            track(write.options.manager, obj, old, write.kind, write.subresource, self.now())

    async def _remove(self, write: Write, record: Record, new: Obj) -> Obj:
        if not write.options.dry_run:
            await self.delete_record(write.kind, record)
        return {**new, "metadata": {**new["metadata"], "resourceVersion": str(record.revision)}}

    # ── delete ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def delete_record(self, kind: Kind, record: Record) -> Record:
        """Take the object out of the store. Raises RevisionMismatch, KeyNotFound."""
        obj = self.codec(kind).decode(record)
        attributes = Attributes(
            "DELETE", kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], "", _SERVER, None, obj
        )
        with self.admission.reserving(attributes):
            return await self.store.delete(record.key, expect=record.revision)


_SERVER = VerifiedUser("system:apiserver", ("system:masters",))


def _only_status(write: Write, new: Obj, old: Obj) -> bool:
    """Nothing has changed that the kind's rules for a whole object look at."""
    if write.subresource != "status" or write.kind.custom is not None:
        return False
    meta, before = new["metadata"], old["metadata"]
    return all(meta.get(name) == before.get(name) for name in _RULED_META)


def _same(new: Obj, old: Obj) -> bool:
    """Whether nothing but the server's own bookkeeping differs."""
    return _bare(new) == _bare(old)


def _bare(obj: Obj) -> Obj:
    meta = {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}
    return {**obj, "metadata": meta}


def _ended(kind: Kind, new: Obj, old: Obj) -> bool:
    """The last finalizer of an object under deletion has gone."""
    before = old["metadata"]
    if not before.get("deletionTimestamp") or new["metadata"].get("finalizers"):
        return False
    if kind.resource == "namespaces":
        return not (new.get("spec") or {}).get("finalizers")
    return not before.get("deletionGracePeriodSeconds")


def require_kind(kind: Kind, obj: Obj) -> None:
    """The body must be what the endpoint serves; missing type fields are filled in. Raises BadRequest."""
    given, api_version = obj.get("kind"), obj.get("apiVersion")
    if given and given != kind.kind:
        raise BadRequest(
            f'{given} in version "{api_version or kind.api_version}" cannot be handled as a {kind.kind}: '
            f"converting ({given}) to ({kind.kind}): unknown conversion"
        )
    if api_version and api_version != kind.api_version:
        raise BadRequest(
            f"the API version in the data ({api_version}) does not match the expected API version ({kind.api_version})"
        )
    obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
    if not isinstance(obj.setdefault("metadata", {}), dict):
        raise BadRequest(f"{kind.kind} in version \"{kind.version}\" cannot be handled as a {kind.kind}: "
                         "metadata must be an object")  # fmt: skip


def require_place(kind: Kind, namespace: str, name: str, obj: Obj) -> None:
    """Name and namespace in the body must be those of the path. Raises BadRequest."""
    meta = obj["metadata"]
    given = meta.get("namespace")
    if kind.namespaced and given and given != namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
    if name and meta.get("name") and meta["name"] != name:
        raise BadRequest(f"the name of the object ({meta['name']}) does not match the name on the URL ({name})")
    if name:
        meta["name"] = name
