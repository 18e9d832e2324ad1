"""The `scale` subresource: an `autoscaling/v1` Scale over any kind that counts replicas.

Built-in kinds keep the count in spec.replicas; custom ones say where in `subresources.scale`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dure.api.fields import forbidden, invalid, invalid_error
from dure.api.kind import Kind
from dure.api.patches import apply_json_patch, apply_merge_patch, apply_strategic_patch
from dure.api.schemas import Schemas
from dure.api.selectors import format_label_selector
from dure.apiserver.call import Call
from dure.apiserver.decoding import decode_body, decode_json, decode_yaml
from dure.apiserver.errors import conflict
from dure.apiserver.field_ownership import apply_configuration
from dure.apiserver.representation import encode_value
from dure.apiserver.rest.objects import Objects
from dure.apiserver.rest.options import check_apply_options, read_write_options
from dure.apiserver.rest.writing import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, patch_type, write_of
from dure.core.errors import BadRequest, Invalid
from dure.core.json import Obj, thaw
from dure.wire.http import Response

_API_VERSION = "autoscaling/v1"
_DEFINITION = "io.k8s.api.autoscaling.v1.Scale"


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a kind keeps its counts and its selector."""

    wanted: tuple[str, ...] = ("spec", "replicas")
    present: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ("spec", "selector")


def paths_of(kind: Kind) -> Paths:
    entry = ((kind.custom or {}).get("subresources") or {}).get("scale")
    if not entry:
        return Paths()
    return Paths(
        _split(entry["specReplicasPath"]),
        _split(entry["statusReplicasPath"]),
        _split(entry.get("labelSelectorPath", "")),
    )


def _split(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split(".") if part)


def _read(obj: Obj, path: tuple[str, ...]) -> Any:
    here: Any = obj
    for name in path:
        here = here.get(name) if isinstance(here, dict) else None
    return here if path else None


def _write(obj: Obj, path: tuple[str, ...], value: Any) -> None:
    here = obj
    for name in path[:-1]:
        here = here.setdefault(name, {})
    here[path[-1]] = value


def scale_of(kind: Kind, obj: Obj) -> Obj:
    """The Scale that shows an object's counts."""
    paths, meta = paths_of(kind), obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Obj = {"replicas": _read(obj, paths.present) or 0}
    selector = _read(obj, paths.selector)
    if isinstance(selector, str):
        text = selector
    elif isinstance(selector, dict) and ("matchLabels" in selector or "matchExpressions" in selector):
        text = format_label_selector(selector)
    else:
        text = format_label_selector({"matchLabels": selector}) if selector else ""
    if text:
        status["selector"] = text
    wanted = _read(obj, paths.wanted)
    return {
        "kind": "Scale",
        "apiVersion": _API_VERSION,
        "metadata": {name: meta[name] for name in kept if name in meta},
        "spec": {"replicas": wanted} if wanted else {},
        "status": status,
    }


def wanted_replicas(kind: Kind, name: str, scale: Obj) -> int:
    """The count a Scale asks for. Raises Invalid, BadRequest."""
    if scale.get("kind", "Scale") != "Scale":
        raise BadRequest(f'{scale.get("kind")} in version "{scale.get("apiVersion")}" cannot be handled as a Scale')
    _require_parts(scale)
    count = (scale.get("spec") or {}).get("replicas", 0)
    if isinstance(count, bool) or not isinstance(count, int):
        raise BadRequest('Scale in version "v1" cannot be handled as a Scale: spec.replicas must be an integer')
    if count < 0:
        detail = "must be greater than or equal to 0"
        raise _invalid_scale(name, [invalid("spec.replicas", count, detail)])
    given = (scale.get("metadata") or {}).get("name")
    if given and given != name:
        raise BadRequest(f"the name of the object ({given}) does not match the name on the URL ({name})")
    return count


def _require_parts(scale: Obj) -> None:
    for part in ("metadata", "spec"):
        if not isinstance(scale.get(part) or {}, dict):
            raise BadRequest(f'Scale in version "v1" cannot be handled as a Scale: {part} must be an object')


def _invalid_scale(name: str, errors: list[Any]) -> Invalid:
    return invalid_error("autoscaling", "Scale", name, errors)


class Scaling:
    """Answers get, update and patch on `scale`."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def get(self, call: Call) -> Response:
        obj = await self._objects.get(call.kind, call.namespace, call.name)
        return encode_value(scale_of(call.kind, obj), call.media)

    async def update(self, call: Call) -> Response:
        body = decode_body(call.request, "Scale").value
        return await self._set(call, "UpdateOptions", lambda scale: thaw(body))

    async def patch(self, call: Call) -> Response:
        type_ = patch_type(call)
        request = call.request
        if request.value is not None:
            patch = request.value
        elif type_ == APPLY_PATCH:
            patch = decode_yaml(request.body, "Scale").value
        else:
            patch = decode_json(request.body, "Scale").value
        if type_ == APPLY_PATCH:
            return await self._apply(call, patch)
        return await self._set(call, "PatchOptions", lambda scale: _patched(scale, patch, type_))

    async def _set(self, call: Call, options_kind: str, change: Any) -> Response:
        kind = call.kind
        write = write_of(call, read_write_options(call.request, options_kind), "scale")

        def scaled(old: Obj) -> Obj:
            scale = change(scale_of(kind, old))
            new: Obj = thaw(old)
            _write(new, paths_of(kind).wanted, wanted_replicas(kind, call.name, scale))
            return _as_asked(kind, old, scale, new)

        made = await self._objects.update(write, scaled)
        return encode_value(scale_of(kind, made), call.media)

    async def _apply(self, call: Call, patch: Any) -> Response:
        """Who applies a Scale owns the object's count, as if the object were applied with nothing else in it."""
        kind = call.kind
        check_apply_options(call.request)
        options = read_write_options(call.request, "PatchOptions")
        write = write_of(call, options, "scale")
        write.applied = True

        def scaled(old: Obj) -> Obj:
            scale = _patched(scale_of(kind, old), patch, APPLY_PATCH)
            count = wanted_replicas(kind, call.name, scale)
            given: Obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": call.name}}
            if (patch.get("spec") or {}).get("replicas") is not None:
                _write(given, paths_of(kind).wanted, count)
            now, force = self._objects.now(), options.force
            new: Obj = thaw(
                apply_configuration(
                    old, given, manager=options.manager, force=force, kind=kind, subresource="scale", now=now
                )
            )
            return _as_asked(kind, old, scale, new)

        made = await self._objects.update(write, scaled)
        return encode_value(scale_of(kind, made), call.media)


def _as_asked(kind: Kind, old: Obj, scale: Obj, new: Obj) -> Obj:
    """`new` with the resourceVersion the Scale insists on. Raises Conflict if it insists on another uid."""
    meta = scale.get("metadata") or {}
    if meta.get("uid") and meta["uid"] != old["metadata"]["uid"]:
        raise conflict(kind, old["metadata"]["name"], "the UID does not match")
    if "resourceVersion" in meta:
        new["metadata"]["resourceVersion"] = meta["resourceVersion"]
    return new


def _patched(scale: Obj, patch: Any, type_: str) -> Obj:
    if type_ == JSON_PATCH:
        return apply_json_patch(scale, patch)
    if not isinstance(patch, dict):
        raise BadRequest("the patch is not an object")
    _require_parts(patch)
    if type_ == MERGE_PATCH:
        return apply_merge_patch(scale, patch)
    if type_ == STRATEGIC_PATCH:
        return apply_strategic_patch(scale, patch, Schemas.load().definition(_DEFINITION))
    if (patch.get("metadata") or {}).get("managedFields"):
        raise _invalid_scale("", [forbidden("metadata.managedFields", "must be nil")])
    return apply_merge_patch(scale, patch)
