"""OpenAPI v3 documents: what kubectl looks for in them."""

from __future__ import annotations

from typing import Any

import pytest

from dure.api.crd import kinds_of
from dure.api.kinds import builtin_kinds
from dure.api.openapi import document
from dure.core.json import dumps


@pytest.fixture(scope="module")
def apps() -> dict[str, Any]:
    return document(builtin_kinds(), "apps", "v1")


def references(value: Any) -> set[str]:
    if isinstance(value, list):
        return {name for item in value for name in references(item)}
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
    return own.union(*(references(item) for item in value.values()))


@pytest.mark.parametrize(("group", "version"), sorted({(kind.group, kind.version) for kind in builtin_kinds()}))
def test_every_reference_is_answered(group: str, version: str) -> None:
    made = document(builtin_kinds(), group, version)
    known = {f"#/components/schemas/{name}" for name in made["components"]["schemas"]}
    assert references(made) <= known


def test_a_patch_has_the_parameters_kubectl_asks_for(apps: dict[str, Any]) -> None:
    patch = apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert {item["name"] for item in patch["parameters"]} == {"dryRun", "fieldManager", "fieldValidation", "force"}
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]
    assert "application/apply-patch+yaml" in patch["requestBody"]["content"]
    assert patch["x-kubernetes-action"] == "patch"
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "kind": "Deployment", "version": "v1"}
    assert patch["operationId"] == "patchAppsV1NamespacedDeployment"


def test_subresources_speak_their_own_kind(apps: dict[str, Any]) -> None:
    scale = apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"]
    assert scale["x-kubernetes-group-version-kind"]["kind"] == "Scale"
    assert "io.k8s.api.autoscaling.v1.Scale" in apps["components"]["schemas"]


def test_schemas_carry_kinds_and_merge_keys(apps: dict[str, Any]) -> None:
    schemas = apps["components"]["schemas"]
    gvks = schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"]
    assert gvks == [{"group": "apps", "kind": "Deployment", "version": "v1"}]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["items"]["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}]


def test_special_types_are_upstreams() -> None:
    schemas = document(builtin_kinds(), "", "v1")["components"]["schemas"]
    port = schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]
    assert {key: port[key] for key in ("format", "oneOf")} == {
        "format": "int-or-string",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
    }


def test_equal_registries_give_equal_bytes() -> None:
    first, second = (dumps(document(builtin_kinds(), "batch", "v1")) for _ in range(2))
    assert first == second


def test_operation_ids_are_unique() -> None:
    made = document(builtin_kinds(), "", "v1")
    operations = [item for path in made["paths"].values() for item in path.values() if isinstance(item, dict)]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))


def test_a_custom_kind_has_its_users_schema() -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "description": "what is wanted"}}}
    names = {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "stable.example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    kinds = builtin_kinds()
    for kind in kinds_of({"metadata": {"name": "crontabs.stable.example.com"}, "spec": spec}):
        kinds.add(kind)
    made = document(kinds, "stable.example.com", "v1")
    own = made["components"]["schemas"]["com.example.stable.v1.CronTab"]
    assert own["properties"]["spec"]["description"] == "what is wanted"
    assert set(own["properties"]) == {"apiVersion", "kind", "metadata", "spec"}
    patch = made["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"]["patch"]
    assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]
