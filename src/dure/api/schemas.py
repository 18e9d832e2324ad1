"""The structure of every built-in type, and of custom ones: what validation, patches, apply and OpenAPI read.

The table is made by `scripts/make_schemas.py` from the upstream OpenAPI definitions, without prose. Nodes are made
when first asked for, so a process pays only for the kinds it touches. Marks follow Kubernetes' `x-kubernetes-*`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from importlib import resources, util
from pathlib import Path
from types import MappingProxyType
from typing import Any

import zstandard

from dure.core.json import loads

OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_EMPTY: Mapping[str, Any] = MappingProxyType({})


class Schema:
    """One node of a type. `$ref`s are followed; marks beside a `$ref` win over those of its target."""

    def __init__(self, raw: Mapping[str, Any], table: Schemas | None = None, ref: str = "") -> None:
        self.raw = raw
        """The node as OpenAPI writes it, `$ref`s being bare definition names. Frozen."""
        self.ref = ref
        """Name of the definition this node is, empty for an inline one."""
        self._table = table
        get = raw.get
        self.type: str = get("type") or ""
        """object, array, string, integer, number, boolean; empty when any JSON value is allowed."""
        self.format: str = get("format") or ""
        """Among others int32, int64, byte (base64), date-time, quantity, int-or-string."""
        self.required: tuple[str, ...] = tuple(get("required") or ())
        self.list_type: str = get("x-kubernetes-list-type") or ""
        """map, set, atomic or empty (upstream then treats the list as atomic)."""
        self.list_map_keys: tuple[str, ...] = tuple(get("x-kubernetes-list-map-keys") or ())
        self.patch_merge_key: str = get("x-kubernetes-patch-merge-key") or ""
        self.patch_strategy: tuple[str, ...] = tuple(
            filter(None, (get("x-kubernetes-patch-strategy") or "").split(","))
        )
        """Any of merge, replace, retainKeys, for a strategic merge patch."""
        self.map_type: str = get("x-kubernetes-map-type") or ""
        """granular, atomic or empty (granular)."""
        self.int_or_string: bool = bool(get("x-kubernetes-int-or-string"))
        self.embedded_resource: bool = bool(get("x-kubernetes-embedded-resource"))
        self.preserve_unknown: bool = bool(get("x-kubernetes-preserve-unknown-fields"))
        self.nullable: bool = bool(get("nullable"))

    @property
    def go_name(self) -> str:
        """The type's short name, `DeploymentSpec`; empty for an inline node."""
        return self.ref.rpartition(".")[2]

    @cached_property
    def properties(self) -> Mapping[str, Schema]:
        """The named members; empty for maps and free-form objects."""
        raw = self.raw.get("properties")
        if not raw:
            return _EMPTY
        return {name: self._child(child) for name, child in raw.items()}

    @cached_property
    def items(self) -> Schema | None:
        """Of an array's elements."""
        raw = self.raw.get("items")
        return self._child(raw) if isinstance(raw, Mapping) else None

    @cached_property
    def additional(self) -> Schema | None:
        """Of a map's values; None when the object is not a map."""
        raw = self.raw.get("additionalProperties")
        if raw is True:
            return ANYTHING
        return self._child(raw) if isinstance(raw, Mapping) else None

    @property
    def is_map(self) -> bool:
        return self.additional is not None

    def at(self, *path: str) -> Schema | None:
        """The node below named members, stepping into elements and map values on the way; None when there is none."""
        here: Schema | None = self
        for name in path:
            while here is not None and here.items is not None:
                here = here.items
            here = None if here is None else here.properties.get(name) or here.additional
        return here

    def _child(self, raw: Mapping[str, Any]) -> Schema:
        ref = raw.get("$ref")
        if not isinstance(ref, str) or self._table is None:
            return Schema(raw, self._table)
        target = self._table.definition(ref)
        marks = {key: value for key, value in raw.items() if key != "$ref"}
        return Schema({**target.raw, **marks}, self._table, ref) if marks else target

    @classmethod
    def from_openapi(cls, raw: Mapping[str, Any], table: Schemas | None = None) -> Schema:
        """A structural schema, as in a CustomResourceDefinition; `$ref`s name definitions of `table`."""
        return cls(raw, table)

    def __repr__(self) -> str:
        return f"<Schema {self.ref or self.type or 'anything'}>"


ANYTHING = Schema({"x-kubernetes-preserve-unknown-fields": True})
"""Allows every JSON value and prunes nothing."""


class Schemas:
    """The table: definitions by upstream name (`io.k8s.api.core.v1.Pod`), and the list of served resources."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.release: str = table["release"]
        """The Kubernetes release the table describes."""
        self.raw: Mapping[str, Mapping[str, Any]] = table["definitions"]
        self.resources: list[dict[str, Any]] = table["resources"]
        """group, version, kind, plural, namespaced, verbs, subresources [{name, verbs, kind: [g, v, k]}]."""
        self._made: dict[str, Schema] = {}

    @staticmethod
    @cache
    def load() -> Schemas:
        """The table that is installed with the package; read once a process."""
        packed = resources.files("dure.api").joinpath("data/schemas.json.zst").read_bytes()
        return Schemas(loads(zstandard.ZstdDecompressor().decompress(packed)))

    def definition(self, name: str) -> Schema:
        """Raises KeyError for a name that is not in the table."""
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = Schema(self.raw[name], self, name)
        return made

    @cached_property
    def by_gvk(self) -> Mapping[tuple[str, str, str], str]:
        """Definition names by group, version and kind."""
        return {
            (gvk["group"], gvk["version"], gvk["kind"]): name
            for name, raw in self.raw.items()
            for gvk in raw.get("x-kubernetes-group-version-kind", ())
        }

    @cached_property
    def object_meta(self) -> Schema:
        return self.definition(OBJECT_META)


def read_descriptions() -> Mapping[str, Mapping[str, Any]]:
    """Upstream's full definitions with prose, from `kubernetes-validate` when that is installed, else nothing.

    Read anew each time, in a few milliseconds: they are large and wanted rarely.
    """
    spec = util.find_spec("kubernetes_validate")
    if spec is None or not spec.origin:
        return _EMPTY
    folder = Path(spec.origin).parent / f"kubernetes-json-schema/{Schemas.load().release}-local"
    file = folder / "_definitions.json"
    if not file.is_file():
        return _EMPTY
    definitions: Mapping[str, Mapping[str, Any]] = loads(file.read_bytes())["$defs"]
    return definitions
