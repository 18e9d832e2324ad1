"""The table of structure: what it knows and how nodes are reached."""

from __future__ import annotations

import pytest

from dure.api.schemas import Schema, Schemas


@pytest.fixture
def deployment() -> Schema:
    return Schemas.load().definition("io.k8s.api.apps.v1.Deployment")


def test_every_resource_has_a_definition() -> None:
    table = Schemas.load()
    missing = [row for row in table.resources if (row["group"], row["version"], row["kind"]) not in table.by_gvk]
    assert not missing


def test_marks_are_read_along_a_path(deployment: Schema) -> None:
    ports = deployment.at("spec", "template", "spec", "containers", "ports")
    assert ports is not None
    assert (ports.type, ports.list_type, ports.list_map_keys) == ("array", "map", ("containerPort", "protocol"))
    assert (ports.patch_strategy, ports.patch_merge_key) == (("merge",), "containerPort")


def test_marks_beside_a_reference_are_kept(deployment: Schema) -> None:
    strategy = deployment.at("spec", "strategy")
    assert strategy is not None
    assert strategy.patch_strategy == ("retainKeys",)
    assert strategy.go_name == "DeploymentStrategy"
    assert "rollingUpdate" in strategy.properties


def test_quantities_and_ports_are_more_than_strings(deployment: Schema) -> None:
    container = deployment.at("spec", "template", "spec", "containers")
    assert container is not None
    limit = container.at("resources", "limits", "cpu")
    port = container.at("livenessProbe", "httpGet", "port")
    assert limit is not None
    assert port is not None
    assert limit.format == "quantity"
    assert port.int_or_string


def test_a_property_named_like_a_reference_is_a_property() -> None:
    schema = Schemas.load().definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    assert schema.properties["$ref"].type == "string"
    assert schema.properties["not"].go_name == "JSONSchemaProps"


def test_a_shared_definition_is_one_node() -> None:
    table = Schemas.load()
    assert table.definition("io.k8s.api.core.v1.Pod").properties["metadata"] is table.object_meta


def test_an_unknown_definition_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Schemas.load().definition("io.k8s.api.core.v1.Nothing")


def test_a_structural_schema_of_a_user() -> None:
    schema = Schema.from_openapi(
        {
            "type": "object",
            "properties": {
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "items": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            },
        }
    )
    assert schema.properties["free"].preserve_unknown
    assert schema.properties["labels"].is_map
    assert schema.properties["items"].list_type == "set"
