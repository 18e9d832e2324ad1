"""delete and deletecollection: grace periods, finalizers, propagation, preconditions.

Follows the upstream registry store: an object with a grace period or finalizers is first only marked
(`deletionTimestamp`), and goes when its last reason to stay has gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dure.api.kind import Kind
from dure.api.validation import decode_as
from dure.apiserver.admission import Attributes
from dure.apiserver.call import Call
from dure.apiserver.decoding import decode_body
from dure.apiserver.errors import conflict, method_not_allowed, resource_details
from dure.apiserver.representation import encode_value, json_response
from dure.apiserver.rest.objects import Objects
from dure.apiserver.rest.options import DeleteOptions, read_delete_options, read_list_options
from dure.apiserver.rest.reading import Reading
from dure.apiserver.rest.selection import select
from dure.core.clock import parse_rfc3339, rfc3339
from dure.core.errors import NotFound
from dure.core.json import Obj, thaw
from dure.store.model import KeyNotFound, Record, RevisionMismatch
from dure.wire.http import Response

_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
_DEFAULT_GRACE_SECONDS = 30
_GIVES_OBJECT = frozenset(
    {
        "pods", "services", "serviceaccounts", "persistentvolumes", "persistentvolumeclaims", "resourcequotas",
        "podtemplates", "resourceclaims.resource.k8s.io", "validatingadmissionpolicies.admissionregistration.k8s.io",
    }
)  # fmt: skip
"""Kinds whose DELETE answers with the object even when it is gone at once."""

_NAMESPACE_PURGED = (
    "The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will "
    "automatically be purged by the system."
)


def read_options(call: Call) -> DeleteOptions:
    """From body and query."""
    body: Obj = {}
    if call.request.value is not None:
        body = call.request.value
    elif call.request.body:
        decoded = decode_body(call.request, "DeleteOptions").value
        body = decoded if decoded.get("kind", "DeleteOptions") == "DeleteOptions" else {}
        decode_as(_DELETE_OPTIONS, "v1", "DeleteOptions", body)
    return read_delete_options(call.request, body)


class Deleting:
    """Answers delete and deletecollection."""

    def __init__(self, objects: Objects, reading: Reading) -> None:
        self._objects = objects
        self._reading = reading

    async def delete(self, call: Call) -> Response:
        options = read_options(call)
        obj, gone = await self.remove(call, call.namespace, call.name, options)
        if gone and call.kind.resource not in _GIVES_OBJECT:
            return json_response(_success(call.kind, obj))
        return self._reading.answer(call, obj)

    async def delete_collection(self, call: Call) -> Response:
        if call.kind.namespaced and not call.namespace:
            raise method_not_allowed(call.kind)
        options = read_options(call)
        wanted = read_list_options(call.request)
        selection = select(call.kind, wanted)
        listing = await self._reading.select(call.kind, call.namespace, wanted, selection)
        decode = self._objects.codec(call.kind).decode
        items = []
        for record in listing.records:
            meta = decode(record)["metadata"]
            try:
                obj, _ = await self.remove(call, meta.get("namespace", ""), meta["name"], options)
                items.append(obj)
            except NotFound:
                continue  # another deletion was quicker
        value = {
            "kind": call.kind.list_kind, "apiVersion": call.kind.api_version,
            "metadata": {"resourceVersion": str(self._objects.store.revision)}, "items": items,
        }  # fmt: skip
        return encode_value(value, call.media)

    async def remove(self, call: Call, namespace: str, name: str, options: DeleteOptions) -> tuple[Obj, bool]:
        """Delete or mark one object; it, and whether it is gone. Raises NotFound, Conflict."""
        kind = call.kind
        while True:
            record = await self._objects.record(kind, namespace, name)
            old = self._objects.codec(kind).decode(record)
            _check_preconditions(kind, old, options)
            attributes = Attributes("DELETE", kind, namespace, name, "", call.user, None, old, options.dry_run)
            await self._objects.admission.admit(attributes)
            new = _marked(kind, old, options, self._objects.clock.time())
            try:
                return await self._carry_out(kind, record, old, new, options)
            except RevisionMismatch:
                continue
            except KeyNotFound:
                return old, True

    async def _carry_out(
        self, kind: Kind, record: Record, old: Obj, new: Obj | None, options: DeleteOptions
    ) -> tuple[Obj, bool]:
        if new is None:
            if options.dry_run:
                return old, True
            gone = await self._objects.delete_record(kind, record)
            return self._objects.codec(kind).decode(gone), True
        if new is old:
            return old, False
        if options.dry_run:
            return new, False
        fresh = await self._objects.put(kind, record.key, new, expect=record.revision)
        return self._objects.codec(kind).remember(fresh, new), False


def _success(kind: Kind, obj: Obj) -> Obj:
    meta = obj["metadata"]
    details: dict[str, Any] = {**resource_details(kind, meta["name"]), "uid": meta["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _check_preconditions(kind: Kind, old: Obj, options: DeleteOptions) -> None:
    meta = old["metadata"]
    if options.uid and options.uid != meta["uid"]:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({meta['uid']}). "
            "The object might have been deleted and then recreated"
        )
        raise conflict(kind, meta["name"], why)
    if options.revision and options.revision != meta["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({options.revision}) does not match the ResourceVersion in "
            f"record ({meta['resourceVersion']}). The object might have been modified"
        )
        raise conflict(kind, meta["name"], why)


def _marked(kind: Kind, old: Obj, options: DeleteOptions, now: float) -> Obj | None:
    """The object as marked for deletion; `old` itself when nothing changes; None when it may go at once."""
    rule: Callable[..., Obj | None] = _RULES.get(kind.resource, _mark_plain)
    return rule(kind, old, options, now)


def _mark_plain(kind: Kind, old: Obj, options: DeleteOptions, now: float) -> Obj | None:
    finalizers = _garbage_finalizers(old, options)
    if not finalizers:
        return None
    return _stamp(old, finalizers, 0, now)


def _mark_pod(kind: Kind, old: Obj, options: DeleteOptions, now: float) -> Obj | None:
    """Pods on a node have a grace period; it may later only be shortened."""
    meta, finalizers = old["metadata"], _garbage_finalizers(old, options)
    grace = _pod_grace(old, options)
    standing = meta.get("deletionGracePeriodSeconds")
    if meta.get("deletionTimestamp") and standing:
        if options.grace_seconds is None or grace >= standing:
            return old
        begun = parse_rfc3339(meta["deletionTimestamp"]) - standing
        if grace == 0 and not finalizers:
            return None
        return _stamp(old, finalizers, grace, now, ends=begun + grace)
    if grace == 0 and not finalizers:
        return None
    return _stamp(old, finalizers, grace, now)


def _pod_grace(pod: Obj, options: DeleteOptions) -> int:
    spec, phase = pod.get("spec") or {}, (pod.get("status") or {}).get("phase")
    grace = options.grace_seconds
    if grace is None:
        grace = spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
    if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    return max(1, grace) if grace < 0 else grace


def _mark_namespace(kind: Kind, old: Obj, options: DeleteOptions, now: float) -> Obj | None:
    """A namespace goes when its own finalizers in `spec` have gone too."""
    meta = old["metadata"]
    finalizers = _garbage_finalizers(old, options)
    held = bool((old.get("spec") or {}).get("finalizers"))
    if not held and not finalizers:
        return None
    if meta.get("deletionTimestamp"):
        if held:
            raise conflict(kind, meta["name"], _NAMESPACE_PURGED)
        return old
    marked = _stamp(old, finalizers, None, now)
    marked["status"] = {**(marked.get("status") or {}), "phase": "Terminating"}
    return marked


_RULES: dict[str, Callable[..., Obj | None]] = {"pods": _mark_pod, "namespaces": _mark_namespace}


def _stamp(old: Obj, finalizers: list[str], grace: int | None, now: float, ends: float | None = None) -> Obj:
    """`old` with the marks of deletion; itself when it has them already."""
    new: Obj = thaw(old)
    meta = new["metadata"]
    if finalizers:
        meta["finalizers"] = finalizers
    if ends is not None or not meta.get("deletionTimestamp"):
        if not meta.get("deletionTimestamp") and meta.get("generation"):
            meta["generation"] += 1
        meta["deletionTimestamp"] = rfc3339(ends if ends is not None else now + (grace or 0))
        if grace is not None:
            meta["deletionGracePeriodSeconds"] = grace
    return old if new == old else new


def _garbage_finalizers(old: Obj, options: DeleteOptions) -> list[str]:
    """The object's finalizers, with those the propagation policy adds or takes away."""
    present: list[str] = list(old["metadata"].get("finalizers") or [])
    if not options.propagation:
        return present
    wanted = {"Orphan": "orphan", "Foreground": "foregroundDeletion"}.get(options.propagation)
    kept = [name for name in present if name not in ("orphan", "foregroundDeletion") or name == wanted]
    return [*kept, wanted] if wanted and wanted not in kept else kept
