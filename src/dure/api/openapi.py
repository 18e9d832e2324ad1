"""OpenAPI v3 documents, one a group and version, as `kubectl explain`, `apply` and `create` read them.

Equal registries give equal bytes. Descriptions are there when the package that carries them is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dure.api.kind import Kind, Kinds
from dure.api.meta import GroupVersionKind
from dure.api.openapi_paths import paths_of
from dure.api.schemas import OBJECT_META, Schemas, read_descriptions
from dure.core.json import thaw

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_COMMON = (f"{_META}DeleteOptions", f"{_META}Patch", f"{_META}Status", f"{_META}WatchEvent", f"{_META}ListMeta")
_SPECIAL: Mapping[str, dict[str, Any]] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "format": "int-or-string",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
    },
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
}
_INTERNAL = ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string")
"""Marks of our own on built-in definitions that upstream's have not."""


def document(kinds: Kinds, group: str, version: str) -> dict[str, Any]:
    """The document of one group version; empty paths when nothing is served there."""
    served = sorted(
        (kind for kind in kinds if (kind.group, kind.version) == (group, version)), key=lambda kind: kind.plural
    )
    schemas = _Components(read_descriptions())
    paths: dict[str, Any] = {}
    for name in _COMMON:
        schemas.add(name)
    for kind in served:
        names = _Names(kind, schemas)
        paths.update(paths_of(kind, names.own, names.list, names.of_subresource))
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": Schemas.load().release},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(sorted(schemas.made.items())), "securitySchemes": _SECURITY},
    }


_SECURITY = {
    "BearerToken": {
        "type": "apiKey",
        "description": "Bearer Token authentication",
        "name": "authorization",
        "in": "header",
    }
}


class _Names:
    """Names of a kind's component schemas, which are put into the document on the way."""

    def __init__(self, kind: Kind, schemas: _Components) -> None:
        self._kind = kind
        self._schemas = schemas
        if kind.custom is None:
            self.own = kind.schema
            schemas.add(kind.schema)
            self.list = self._known(GroupVersionKind(kind.group, kind.version, kind.list_kind)) or kind.schema
        else:
            self.own = schemas.add_custom(kind)
            self.list = schemas.add_custom_list(kind)

    def _known(self, gvk: GroupVersionKind) -> str:
        name = Schemas.load().by_gvk.get((gvk.group, gvk.version, gvk.kind), "")
        if name:
            self._schemas.add(name)
        return name

    def of_subresource(self, gvk: GroupVersionKind) -> str:
        return self.own if gvk == self._kind.gvk else self._known(gvk)


class _Components:
    """Component schemas by name, each with all it refers to."""

    def __init__(self, prose: Mapping[str, Mapping[str, Any]]) -> None:
        self._table = Schemas.load()
        self._prose = prose
        self.made: dict[str, Any] = {}

    def add(self, name: str) -> None:
        if name in self.made:
            return
        prose = self._prose.get(name, {})
        special = _SPECIAL.get(name)
        if special is not None:
            self.made[name] = {**_described(prose), **special}
            return
        self.made[name] = {}
        raw = {key: value for key, value in self._table.raw[name].items() if key not in _INTERNAL}
        self.made[name] = self._node(raw, prose)

    def _node(self, raw: Mapping[str, Any], prose: Mapping[str, Any]) -> dict[str, Any]:
        """An OpenAPI node: references become `allOf`, beside which a description may stand."""
        node = _described(prose)
        for key, value in raw.items():
            if key == "properties":
                inner = prose.get("properties") or {}
                node[key] = {name: self._node(child, inner.get(name, {})) for name, child in sorted(value.items())}
            elif key in ("items", "additionalProperties"):
                node[key] = self._node(value, prose.get(key) or {})
            elif key == "$ref":
                self.add(value)
                node["allOf"] = [reference(value)]
            else:
                node[key] = value
        return node

    def add_custom(self, kind: Kind) -> str:
        """The schema of a custom kind under its reversed group, as upstream names it."""
        name = custom_name(kind)
        schema = thaw((kind.custom or {}).get("schema", {}).get("openAPIV3Schema") or {"type": "object"})
        self.add(OBJECT_META)
        properties = schema.get("properties") or {}
        header = {
            "apiVersion": {"type": "string", **self._prose_of_header("apiVersion")},
            "kind": {"type": "string", **self._prose_of_header("kind")},
            "metadata": {"allOf": [reference(OBJECT_META)], "description": "Standard object's metadata."},
        }
        schema["properties"] = dict(sorted({**properties, **header}.items()))
        schema["x-kubernetes-group-version-kind"] = [_gvk(kind, kind.kind)]
        self.made[name] = schema
        return name

    def add_custom_list(self, kind: Kind) -> str:
        name = f"{custom_name(kind)}List"
        list_kind = kind.list_kind
        self.made[name] = {
            "description": f"{list_kind} is a list of {kind.kind}",
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string", **self._prose_of_header("apiVersion")},
                "items": {
                    "type": "array",
                    "items": reference(custom_name(kind)),
                    "description": f"List of {kind.plural}.",
                },
                "kind": {"type": "string", **self._prose_of_header("kind")},
                "metadata": {"allOf": [reference(f"{_META}ListMeta")], "description": "Standard list metadata."},
            },
            "x-kubernetes-group-version-kind": [_gvk(kind, list_kind)],
        }
        return name

    def _prose_of_header(self, name: str) -> dict[str, Any]:
        return _described((self._prose.get("io.k8s.api.core.v1.Pod", {}).get("properties") or {}).get(name) or {})


def custom_name(kind: Kind) -> str:
    """`crontabs.stable.example.com/v1` → com.example.stable.v1.CronTab."""
    return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])


def reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _described(prose: Mapping[str, Any]) -> dict[str, Any]:
    text = prose.get("description")
    return {"description": text} if isinstance(text, str) else {}


def _gvk(kind: Kind, name: str) -> dict[str, str]:
    return {"group": kind.group, "kind": name, "version": kind.version}
