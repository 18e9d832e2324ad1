"""The operations of one kind in an OpenAPI v3 document: every path with its verbs, parameters and bodies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dure.api.kind import Kind, Subresource
from dure.api.meta import GroupVersionKind

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_TYPES = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_STREAMING = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_STRATEGIC = "application/strategic-merge-patch+json"


def _query(name: str, type_: str, description: str) -> dict[str, Any]:
    schema = {"type": type_, "uniqueItems": True}
    return {"name": name, "in": "query", "description": description, "schema": schema}


_DRY_RUN = _query("dryRun", "string", "All: do everything but store the result.")
_MANAGER = _query("fieldManager", "string", "The name of the actor whose fields the request sets.")
_FORCE = _query("force", "boolean", "Take over fields that other actors own; for apply requests.")
_VALIDATION = _query(
    "fieldValidation",
    "string",
    "What to do with unknown and repeated fields: Ignore, Warn (the default) or Strict.",
)
_PRETTY = _query("pretty", "string", "Whether the answer is indented.")
_LIST = (
    _query("allowWatchBookmarks", "boolean", "Send bookmarks to a watcher that understands them."),
    _query("continue", "string", "The token of the answer before, for the next part of a list."),
    _query("fieldSelector", "string", "Only objects whose fields match."),
    _query("labelSelector", "string", "Only objects whose labels match."),
    _query("limit", "integer", "The most objects to answer at once."),
    _query("resourceVersion", "string", "The state to answer from."),
    _query("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    _query("sendInitialEvents", "boolean", "Begin a watch with what is there."),
    _query("timeoutSeconds", "integer", "How long a watch may last."),
    _query("watch", "boolean", "Answer with changes as they come instead of a list."),
)
_DELETE = (
    _DRY_RUN,
    _query("gracePeriodSeconds", "integer", "How long the object may take to end; 0 is at once."),
    _query("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    _query("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
)


def _path_parameter(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "uniqueItems": True}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


class _Operations:
    """Makes operations on one path of one kind."""

    def __init__(self, kind: Kind, gvk: GroupVersionKind, own: str, listed: str, suffix: str) -> None:
        self._kind, self._gvk, self._own, self._list = kind, gvk, own, listed
        self._suffix = suffix

    def make(
        self, action: str, *, parameters: tuple[dict[str, Any], ...] = (), everywhere: bool = False
    ) -> dict[str, Any]:
        """`action` is what upstream calls it: get, list, post, put, patch, delete, deletecollection, connect."""
        operation: dict[str, Any] = {
            "tags": [_tag(self._kind)],
            "description": f"{_VERBS.get(action, action)} {self._gvk.kind}",
            "operationId": self._id(action, everywhere),
        }
        if parameters:
            operation["parameters"] = list(parameters)
        if action in ("post", "put"):
            operation["requestBody"] = {"content": {"*/*": {"schema": _ref(self._own)}}, "required": True}
        elif action == "patch":
            operation["requestBody"] = {"content": self._patches(), "required": True}
        elif action in ("delete", "deletecollection"):
            operation["requestBody"] = {"content": {"*/*": {"schema": _ref(f"{_META}DeleteOptions")}}}
        operation["responses"] = self._responses(action)
        operation["x-kubernetes-action"] = action
        operation["x-kubernetes-group-version-kind"] = {
            "group": self._gvk.group,
            "kind": self._gvk.kind,
            "version": self._gvk.version,
        }
        return operation

    def _patches(self) -> dict[str, Any]:
        types = _PATCHES if self._kind.custom is None else tuple(name for name in _PATCHES if name != _STRATEGIC)
        return {name: {"schema": _ref(f"{_META}Patch")} for name in types}

    def _responses(self, action: str) -> dict[str, Any]:
        schema = {"list": self._list, "delete": f"{_META}Status", "deletecollection": f"{_META}Status"}
        if action == "connect":
            body: dict[str, Any] = {"*/*": {"schema": {"type": "string"}}}
        else:
            types = _TYPES + (_STREAMING if action == "list" else ())
            body = {name: {"schema": _ref(schema.get(action, self._own))} for name in types}
        answers: dict[str, Any] = {"200": {"description": "OK", "content": body}}
        if action in ("post", "put", "patch"):
            answers["201"] = {"description": "Created", "content": body}
        if action in ("post", "delete"):
            answers["202"] = {"description": "Accepted", "content": body}
        answers["401"] = {"description": "Unauthorized"}
        return answers

    def _id(self, action: str, everywhere: bool) -> str:
        verb = _VERBS.get(action, action)
        scope = "Namespaced" if self._kind.namespaced and not everywhere else ""
        tail = "ForAllNamespaces" if everywhere and self._kind.namespaced else ""
        return f"{verb}{_group_name(self._kind)}{scope}{self._kind.kind}{self._suffix}{tail}"


_VERBS = {
    "get": "read",
    "post": "create",
    "put": "replace",
    "deletecollection": "deleteCollection",
    "connect": "connect",
}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _group_name(kind: Kind) -> str:
    """`CoreV1`, `AppsV1`, `RbacAuthorizationV1`, and for custom groups the whole name."""
    group = kind.group or "core"
    group = group if kind.custom else group.removesuffix(".k8s.io")
    return "".join(part[:1].upper() + part[1:] for part in [*group.replace("-", ".").split("."), kind.version])


def _tag(kind: Kind) -> str:
    group = (kind.group or "core").removesuffix(".k8s.io").replace(".", "")
    return f"{group}_{kind.version}"


def paths_of(
    kind: Kind, own: str, listed: str, schema_of: Callable[[GroupVersionKind], str]
) -> dict[str, dict[str, Any]]:
    """All paths of a kind. `own` and `listed` name its schemas; `schema_of` gives those of subresources."""
    operations = _Operations(kind, kind.gvk, own, listed, "")
    namespace = "{namespace}" if kind.namespaced else ""
    scope = [_path_parameter("namespace", "object name and auth scope, such as for teams and projects")]
    shared = [*(scope if kind.namespaced else []), _PRETTY]
    paths = {kind.path(namespace): {**_collection(kind, operations), "parameters": shared}}
    if kind.namespaced and "list" in kind.verbs:
        paths[kind.path()] = {"get": operations.make("list", everywhere=True), "parameters": [*_LIST, _PRETTY]}
    named = [_path_parameter("name", f"name of the {kind.kind}"), *shared]
    item = _item(kind.verbs, operations)
    if item:
        paths[kind.path(namespace, "{name}")] = {**item, "parameters": named}
    for sub in kind.subresources:
        schema = schema_of(sub.kind)
        if schema:
            paths[kind.path(namespace, "{name}", sub.name)] = {**_subresource(kind, sub, schema), "parameters": named}
    return {path: item for path, item in paths.items() if len(item) > 1}


def _collection(kind: Kind, operations: _Operations) -> dict[str, Any]:
    made = {}
    if "list" in kind.verbs:
        made["get"] = operations.make("list", parameters=_LIST)
    if "create" in kind.verbs:
        made["post"] = operations.make("post", parameters=(_DRY_RUN, _MANAGER, _VALIDATION))
    if "deletecollection" in kind.verbs:
        made["delete"] = operations.make("deletecollection", parameters=(*_LIST[:7], *_DELETE))
    return made


def _item(verbs: frozenset[str], operations: _Operations) -> dict[str, Any]:
    made = {}
    if "get" in verbs:
        made["get"] = operations.make("get")
    if "update" in verbs:
        made["put"] = operations.make("put", parameters=(_DRY_RUN, _MANAGER, _VALIDATION))
    if "patch" in verbs:
        made["patch"] = operations.make("patch", parameters=(_DRY_RUN, _MANAGER, _VALIDATION, _FORCE))
    if "delete" in verbs:
        made["delete"] = operations.make("delete", parameters=_DELETE)
    return made


def _subresource(kind: Kind, sub: Subresource, schema: str) -> dict[str, Any]:
    suffix = sub.name[:1].upper() + sub.name[1:]
    operations = _Operations(kind, sub.kind, schema, schema, suffix)
    if sub.kind.kind.endswith(("ProxyOptions", "AttachOptions", "ExecOptions", "ForwardOptions")):
        return {_METHODS[verb]: operations.make("connect") for verb in sorted(sub.verbs) if verb in _METHODS}
    made = _item(sub.verbs, operations)
    if "create" in sub.verbs:
        made["post"] = operations.make("post", parameters=(_DRY_RUN, _MANAGER, _VALIDATION))
    return made


_METHODS = {"get": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete"}
