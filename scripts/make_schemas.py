"""Write the compact table of structure that `dure.api.schemas` loads.

Run with the extra `schemas` installed: `python scripts/make_schemas.py`. It reads the upstream definitions in
`kubernetes-validate` and the resource list in `lightkube`, drops all prose, and mends what the first distorts:
`null` added to types and enums, IntOrString and Quantity as plain alternatives, free-form types without a mark.
Only stable versions are kept: those are what an API server serves by default.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import lightkube.resources
import zstandard

RELEASE = "v1.37.0"
TARGET = Path(__file__).parent.parent / "src/dure/api/data/schemas.json.zst"
STABLE = re.compile(r"v\d+")
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."

SPECIAL: dict[str, dict[str, Any]] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"format": "int-or-string", "x-kubernetes-int-or-string": True},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"format": "quantity"},
    "io.k8s.apimachinery.pkg.runtime.RawExtension": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    f"{META}FieldsV1": {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "x-kubernetes-map-type": "atomic",
    },
    f"{META}Patch": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    f"{EXTENSIONS}JSON": {"x-kubernetes-preserve-unknown-fields": True},
    f"{EXTENSIONS}JSONSchemaPropsOrArray": {"x-kubernetes-preserve-unknown-fields": True},
    f"{EXTENSIONS}JSONSchemaPropsOrBool": {"x-kubernetes-preserve-unknown-fields": True},
    f"{EXTENSIONS}JSONSchemaPropsOrStringArray": {"x-kubernetes-preserve-unknown-fields": True},
}
KEPT = (
    "format",
    "required",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-patch-merge-key",
    "x-kubernetes-patch-strategy",
    "x-kubernetes-map-type",
    "x-kubernetes-group-version-kind",
    "x-kubernetes-unions",
)
SUB_VERBS = {"get": "get", "patch": "patch", "put": "update", "post": "create"}
VERBS = {**SUB_VERBS, "delete": "delete", "deletecollection": "deletecollection", "list": "list", "watch": "watch"}


def node(raw: dict[str, Any]) -> dict[str, Any]:
    """One schema node without prose; `$ref` holds the bare definition name."""
    out: dict[str, Any] = {key: raw[key] for key in KEPT if key in raw}
    if isinstance(raw.get("$ref"), str):
        out["$ref"] = raw["$ref"].rsplit("/", 1)[1]
    kind = raw.get("type")
    if isinstance(kind, list):
        kind = next(name for name in kind if name != "null")
    if kind is not None:
        out["type"] = kind
    if "properties" in raw:
        out["properties"] = {name: node(child) for name, child in raw["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(raw.get(key), dict):
            out[key] = node(raw[key])
    return out


def read_definitions() -> dict[str, dict[str, Any]]:
    folder = Path(kubernetes_validate.__file__).parent / f"kubernetes-json-schema/{RELEASE}-local"
    definitions = json.loads((folder / "_definitions.json").read_bytes())["$defs"]
    return {name: SPECIAL.get(name) or node(raw) for name, raw in sorted(definitions.items())}


def references(raw: Any) -> set[str]:
    if isinstance(raw, list):
        return {name for item in raw for name in references(item)}
    if not isinstance(raw, dict):
        return set()
    own = {raw["$ref"]} if isinstance(raw.get("$ref"), str) else set()
    return own.union(*(references(value) for value in raw.values()))


def reachable(definitions: dict[str, Any], roots: set[str]) -> dict[str, Any]:
    """The definitions that `roots` need, themselves included."""
    found: set[str] = set()
    todo = set(roots)
    while todo:
        name = todo.pop()
        found.add(name)
        todo |= references(definitions[name]) - found
    return {name: definitions[name] for name in sorted(found)}


def read_resources() -> list[dict[str, Any]]:
    """Every stable resource: group, version, kind, plural, scope, verbs, and subresources with the kind they speak."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    subresources: list[tuple[tuple[str, str, str], Any]] = []
    for module in pkgutil.iter_modules(lightkube.resources.__path__):
        for item in vars(importlib.import_module(f"lightkube.resources.{module.name}")).values():
            info = getattr(item, "_api_info", None)
            if info is None or not STABLE.fullmatch((info.parent or info.resource).version):
                continue
            if info.parent:
                subresources.append(((*info.parent[:2], info.plural), info))
                continue
            group, version, kind = info.resource
            verbs = {"create" if verb == "post" else VERBS.get(verb, "") for verb in info.verbs} - {""}
            found[group, version, info.plural] = {
                "group": group,
                "version": version,
                "kind": kind,
                "plural": info.plural,
                "namespaced": item.__bases__[0].__name__.startswith("Namespaced"),
                "verbs": sorted(verbs),
                "subresources": [],
            }
    for parent, info in subresources:
        verbs = sorted(SUB_VERBS[verb] for verb in info.verbs)
        found[parent]["subresources"].append({"name": info.action, "verbs": verbs, "kind": list(info.resource)})
    for entry in found.values():
        entry["subresources"].sort(key=lambda sub: str(sub["name"]))
    return [found[key] for key in sorted(found)]


def main() -> int:
    definitions = read_definitions()
    resources = read_resources()
    served = {(r["group"], r["version"]) for r in resources} | {("policy", "v1"), ("autoscaling", "v1")}
    roots = {
        name
        for name, raw in definitions.items()
        for gvk in raw.get("x-kubernetes-group-version-kind", ())
        if (gvk["group"], gvk["version"]) in served
    }
    kept = reachable(definitions, roots | set(SPECIAL))
    table = {"release": RELEASE, "definitions": kept, "resources": resources}
    data = json.dumps(table, separators=(",", ":"), sort_keys=True).encode()
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(zstandard.ZstdCompressor(level=19).compress(data))
    print(f"{len(kept)} definitions, {len(resources)} resources, {len(data)} bytes, {TARGET.stat().st_size} compressed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
