"""create, update and patch: from body to `Objects`, with field validation and the four kinds of patch."""

from __future__ import annotations

from typing import Any

from dure.api.kind import Kind
from dure.api.patches import apply_json_patch, apply_merge_patch, apply_strategic_patch
from dure.api.schemas import Schema
from dure.api.validation import decode_object, strict_error
from dure.apiserver.access import Access
from dure.apiserver.call import Call
from dure.apiserver.decoding import Body, decode_body, decode_json, decode_yaml, media_type
from dure.apiserver.errors import method_not_allowed, not_found
from dure.apiserver.field_ownership import apply_configuration, schema_of
from dure.apiserver.rbac import Action
from dure.apiserver.rest.objects import Objects, Write, require_kind, require_place
from dure.apiserver.rest.options import WriteOptions, check_apply_options, read_write_options
from dure.apiserver.rest.reading import Reading
from dure.core.errors import AlreadyExists, ApiError, BadRequest, NotFound, UnsupportedMediaType
from dure.core.json import Obj, thaw
from dure.wire.http import Response

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_HEAD = ("apiVersion", "kind", "metadata")
PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)

_CREATE_ON_UPDATE = frozenset(
    {
        "endpoints", "endpointslices.discovery.k8s.io", "events", "events.events.k8s.io", "leases.coordination.k8s.io",
        "limitranges", "services", "roles.rbac.authorization.k8s.io", "clusterroles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io",
        "runtimeclasses.node.k8s.io", "csinodes.storage.k8s.io", "priorityclasses.scheduling.k8s.io",
    }
)  # fmt: skip
"""Kinds whose PUT makes what is not there."""


def write_of(call: Call, options: WriteOptions, subresource: str = "") -> Write:
    return Write(call.kind, call.namespace, call.name, call.user, options, subresource, call.warnings)


def report_unknown(call: Call, options: WriteOptions, problems: list[str]) -> None:
    """Refuse or warn of unknown and repeated fields, as `fieldValidation` says."""
    if not problems or options.validation == "Ignore":
        return
    if options.validation == "Strict":
        raise strict_error(call.kind, problems)
    call.warnings.extend(problems)


def read_object(call: Call, options: WriteOptions) -> Obj:
    """The body as an object of the endpoint's kind, its own to change."""
    return check_object(call, call.kind, options, decode_body(call.request, call.kind.kind))


def check_object(call: Call, kind: Kind, options: WriteOptions, body: Body) -> Obj:
    obj: Obj = thaw(body.value) if body.shared else body.value
    require_kind(kind, obj)
    problems = [f'duplicate field "{path}"' for path in body.duplicates]
    unknown = decode_object(kind, obj)
    report_unknown(call, options, problems + unknown)
    return obj


def patch_type(call: Call) -> str:
    """The kind of patch in the body, one that the object's kind takes. Raises UnsupportedMediaType."""
    type_ = media_type(call.request, "")
    if type_ in PATCHES and (type_ != STRATEGIC_PATCH or call.kind.custom is None):
        return type_
    known = [name for name in PATCHES if call.kind.custom is None or name != STRATEGIC_PATCH]
    raise UnsupportedMediaType(
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(known)
    )


class Writing:
    """Answers create, update and patch on objects and their `status`-like subresources."""

    def __init__(self, objects: Objects, reading: Reading, access: Access) -> None:
        self._objects = objects
        self._reading = reading
        self._access = access

    async def create(self, call: Call) -> Response:
        if call.name:
            raise method_not_allowed(call.kind)
        options = read_write_options(call.request, "CreateOptions")
        obj = read_object(call, options)
        require_place(call.kind, call.namespace, "", obj)
        if call.kind.namespaced and not call.namespace:
            raise BadRequest("an empty namespace may not be set during creation")
        made = await self._objects.create(write_of(call, options), obj)
        return self._reading.answer(call, made, status=201)

    async def update(self, call: Call, subresource: str = "") -> Response:
        options = read_write_options(call.request, "UpdateOptions")
        obj = read_object(call, options)
        if not obj["metadata"].get("name"):
            raise BadRequest("name must be provided")
        require_place(call.kind, call.namespace, call.name, obj)
        write = write_of(call, options, subresource)
        try:
            made = await self._objects.update(write, lambda old: thaw(obj))
        except NotFound:
            if subresource or call.kind.resource not in _CREATE_ON_UPDATE or obj["metadata"].get("uid"):
                raise
            obj["metadata"].pop("resourceVersion", None)
            self._require_create(call)
            made = await self._objects.create(write, obj)
            return self._reading.answer(call, made, status=201)
        return self._reading.answer(call, made)

    async def patch(self, call: Call, subresource: str = "") -> Response:
        type_ = patch_type(call)
        options = read_write_options(call.request, "PatchOptions")
        if type_ == APPLY_PATCH:
            return await self._apply(call, options, subresource)
        if call.request.param("force"):
            raise BadRequest("force is allowed only for apply patches")
        patch = self._read_patch(call)
        schema = schema_of(call.kind) if type_ == STRATEGIC_PATCH else None

        def change(old: Obj) -> Obj:
            return self._patched(call, options, old, patch, type_, schema)

        made = await self._objects.update(write_of(call, options, subresource), change)
        return self._reading.answer(call, made)

    def _read_patch(self, call: Call) -> Body:
        request = call.request
        return Body(request.value) if request.value is not None else decode_json(request.body, call.kind.kind)

    def _patched(
        self, call: Call, options: WriteOptions, old: Obj, patch: Body, type_: str, schema: Schema | None
    ) -> Obj:
        """The object after a patch; what the patch touched is decoded and checked like a body."""
        obj: Obj = thaw(_apply_patch(old, patch.value, type_, schema))
        require_kind(call.kind, obj)
        touched = _touched(patch.value, type_, obj)
        part = {name: value for name, value in obj.items() if name in _HEAD or name in touched}
        problems = [f'duplicate field "{path}"' for path in patch.duplicates] + decode_object(call.kind, part)
        report_unknown(call, options, problems)
        for name in touched:
            obj.pop(name, None)
        obj.update(part)
        require_place(call.kind, call.namespace, call.name, obj)
        return obj

    async def _apply(self, call: Call, options: WriteOptions, subresource: str) -> Response:
        """Server-side apply creates what is not there."""
        check_apply_options(call.request)
        body = self._read_apply(call)
        applied: Obj = body.value
        require_configuration(call, applied)
        unknown = decode_object(call.kind, applied)
        report_unknown(call, options, [f'duplicate field "{path}"' for path in body.duplicates] + unknown)
        write = write_of(call, options, subresource)
        write.applied = True
        for attempt in range(3):
            try:
                made, created = await self._apply_once(call, write, applied, attempt)
                return self._reading.answer(call, made, status=201 if created else 200)
            except AlreadyExists:
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def _require_create(self, call: Call) -> None:
        """Whoever makes an object by changing it must be allowed to make it."""
        info = call.info
        self._access.demand(call.user, Action("create", info.group, info.resource, "", info.namespace, info.name))

    def _read_apply(self, call: Call) -> Body:
        request = call.request
        body = Body(thaw(request.value)) if request.value is not None else decode_yaml(request.body, call.kind.kind)
        if not isinstance(body.value, dict):
            raise BadRequest("error decoding YAML: the body is not an object")
        return body

    async def _apply_once(self, call: Call, write: Write, applied: Obj, attempt: int) -> tuple[Obj, bool]:
        options, kind = write.options, call.kind

        def merged(live: Obj | None) -> Obj:
            result: Obj = thaw(
                apply_configuration(
                    live,
                    thaw(applied),
                    manager=options.manager,
                    force=options.force,
                    kind=kind,
                    subresource=write.subresource,
                    now=self._objects.now(),
                )
            )
            return result

        if await self._objects.find(kind, call.namespace, call.name) is None:
            if write.subresource:
                raise not_found(kind, call.name)
            if applied["metadata"].get("uid"):
                raise ApiError("uid mismatch", code=409, reason="Conflict")
            self._require_create(call)
            obj = merged(None)
            require_place(kind, call.namespace, call.name, obj)
            return await self._objects.create(write, obj), True
        return await self._objects.update(write, merged), False


def require_configuration(call: Call, applied: Obj) -> None:
    """An applied configuration names its type and, if it has a name, that of the path."""
    for name in ("apiVersion", "kind"):
        if not applied.get(name):
            raise BadRequest(f"invalid object type: {call.kind.api_version}, Kind={call.kind.kind}: {name} is missing")
    if applied["kind"] != call.kind.kind:
        raise BadRequest(f"invalid object type: {applied['apiVersion']}, Kind={applied['kind']}")
    meta = applied.setdefault("metadata", {})
    if not isinstance(meta, dict):
        raise BadRequest("metadata must be an object")
    require_place(call.kind, call.namespace, call.name, applied)
    if call.kind.namespaced:
        meta["namespace"] = call.namespace


def _touched(patch: Any, type_: str, obj: Obj) -> set[str]:
    """The members of the object a patch may have changed."""
    if type_ != JSON_PATCH:
        return set(patch)
    pointers = [str(op[key]) for op in patch for key in ("path", "from") if key in op]
    if "" in pointers:
        return set(obj)
    return {pointer.split("/")[1].replace("~1", "/").replace("~0", "~") for pointer in pointers}


def _apply_patch(old: Obj, patch: Any, type_: str, schema: Schema | None) -> Obj:
    if type_ == JSON_PATCH:
        return apply_json_patch(old, patch)
    if not isinstance(patch, dict):
        raise BadRequest("the patch is not an object")
    if type_ == MERGE_PATCH:
        return apply_merge_patch(old, patch)
    return apply_strategic_patch(old, patch, schema)
