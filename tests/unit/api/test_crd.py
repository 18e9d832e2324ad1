"""Custom kinds: their definitions' rules, defaults, validation, columns and names."""

# ruff: noqa: E501 - tables of whole messages, one a line
from __future__ import annotations

from typing import Any

import pytest

from dure.api.crd import is_established, kinds_of, settled_status, version_priority
from dure.api.jsonpath import find
from dure.api.kind import Kind
from dure.api.kinds import builtin_kinds
from dure.api.structural import default_custom, validate_custom
from dure.api.tables import make_table
from dure.api.validation import decode_object
from dure.core.json import Obj, thaw

CRD = builtin_kinds().resource("customresourcedefinitions.apiextensions.k8s.io")
SCHEMA: Obj = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["image"],
            "properties": {
                "cronSpec": {"type": "string", "pattern": r"^\d+$"},
                "image": {"type": "string", "maxLength": 9},
                "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
                "policy": {"type": "string", "enum": ["Allow", "Forbid"]},
                "port": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "sidecars": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"name": {"type": "string", "default": "x"}}},
                },
            },
        },
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    },
}


def definition(**changes: Any) -> Obj:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": SCHEMA},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas"}},
        "selectableFields": [{"jsonPath": ".spec.policy"}],
        "additionalPrinterColumns": [
            {"name": "Image", "type": "string", "jsonPath": ".spec.image"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
            {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    }
    obj = {
        "metadata": {"name": "crontabs.example.com", "uid": "u"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"]},
            "versions": [version],
            **changes,
        },
    }
    CRD.strategy.default(obj)
    CRD.strategy.prepare_create(obj)
    return obj


def faults(obj: Obj) -> list[str]:
    return [f"{error.field}: {error.message}" for error in CRD.strategy.validate(obj)]


@pytest.fixture
def kind() -> Kind:
    return kinds_of(definition())[0]


def cron_tab(**spec: Any) -> Obj:
    return {
        "apiVersion": "example.com/v1",
        "kind": "CronTab",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"image": "i", **spec},
    }


# ── the definition itself ────────────────────────────────────────────────────────────────────────────────────────


def test_names_are_filled_in() -> None:
    obj = definition()
    assert obj["spec"]["names"]["singular"] == "crontab"
    assert obj["spec"]["names"]["listKind"] == "CronTabList"
    assert obj["status"]["storedVersions"] == ["v1"]
    assert faults(obj) == []


def test_its_name_is_plural_and_group() -> None:
    obj = definition(group="other.com")
    assert faults(obj) == [
        'metadata.name: Invalid value: "crontabs.example.com": must be spec.names.plural+"."+spec.group'
    ]


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (None, "schema.openAPIV3Schema: Required value: schemas are required"),
        ({"type": "string"}, 'schema.openAPIV3Schema.type: Invalid value: "string": must be "object"'),
        (
            {"type": "object", "properties": {"a": {}}},
            "schema.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields",
        ),
        (
            {"type": "object", "properties": {"a": {"type": "array"}}},
            "schema.openAPIV3Schema.properties[a].items: Required value: must be specified",
        ),
    ],
)
def test_schemas_must_be_structural(schema: Obj | None, fault: str) -> None:
    version: Obj = {"name": "v1", "served": True, "storage": True}
    if schema is not None:
        version["schema"] = {"openAPIV3Schema": schema}
    assert faults(definition(versions=[version])) == [f"spec.versions[0].{fault}"]


def test_exactly_one_version_is_stored() -> None:
    version = {"name": "v1", "served": True, "storage": False, "schema": {"openAPIV3Schema": {"type": "object"}}}
    assert faults(definition(versions=[version]))[0].endswith("must have exactly one version marked as storage version")


def test_names_are_accepted_once_nobody_else_has_them() -> None:
    obj = definition()
    obj["status"] = settled_status(obj, builtin_kinds(), "2026-01-01T00:00:00Z")
    assert is_established(obj)
    assert obj["status"]["acceptedNames"]["plural"] == "crontabs"
    assert settled_status(obj, builtin_kinds(), "2027-01-01T00:00:00Z") == obj["status"]


def test_a_name_that_is_taken_is_not_accepted() -> None:
    kinds = builtin_kinds()
    for made in kinds_of(definition()):
        kinds.add(made)
    other = definition(names={"plural": "tables", "kind": "Table", "shortNames": ["ct"]})
    other["metadata"]["name"] = "tables.example.com"
    status = settled_status(other, kinds, "2026-01-01T00:00:00Z")
    found = {item["type"]: (item["status"], item["reason"], item["message"]) for item in status["conditions"]}
    assert found == {
        "NamesAccepted": ("False", "ShortNamesConflict", '"ct" is already in use'),
        "Established": ("False", "NotAccepted", "not all names are accepted"),
    }


# ── the kinds it makes ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_kind_for_each_served_version(kind: Kind) -> None:
    assert (kind.resource, kind.kind, kind.short_names) == ("crontabs.example.com", "CronTab", ("ct",))
    assert {sub.name for sub in kind.subresources} == {"scale", "status"}
    assert kind.strategy.field_labels == {"spec.policy"}


def test_versions_in_order_and_converted_by_name() -> None:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [
        {"name": name, "served": name != "v1alpha1", "storage": name == "v1", "schema": schema}
        for name in ("v1alpha1", "v1beta1", "v1", "v2beta1")
    ]
    made = kinds_of(definition(versions=versions))
    assert [kind.version for kind in made] == ["v1", "v2beta1", "v1beta1"]
    assert made[0].conversion is None
    assert made[1].conversion is not None
    assert made[1].conversion.from_stored({"apiVersion": "example.com/v1"}) == {"apiVersion": "example.com/v2beta1"}
    assert made[1].prefix() == made[0].prefix()


def test_priorities_of_versions() -> None:
    names = ["foo", "v1alpha1", "v10beta3", "v2", "v11", "v1beta1"]
    assert sorted(names, key=version_priority, reverse=True) == ["v11", "v2", "v10beta3", "v1beta1", "v1alpha1", "foo"]


def test_defaults_reach_into_lists(kind: Kind) -> None:
    obj = cron_tab(sidecars=[{}, {"name": "y"}])
    kind.strategy.default(obj)
    assert obj["spec"] == {"image": "i", "replicas": 1, "sidecars": [{"name": "x"}, {"name": "y"}]}


def test_a_null_takes_the_default() -> None:
    obj: Obj = {"a": None, "b": None}
    properties = {"a": {"type": "integer", "default": 1}, "b": {"type": "integer", "default": 1, "nullable": True}}
    default_custom({"properties": properties}, obj)
    assert obj == {"a": 1, "b": None}


def test_unknown_fields_are_cut_out_and_free_ones_kept(kind: Kind) -> None:
    obj = cron_tab(odd=1, free={"any": [1]})
    obj["metadata"]["foo"] = 1
    assert decode_object(kind, obj) == ['unknown field "metadata.foo"', 'unknown field "spec.odd"']
    assert obj == cron_tab(free={"any": [1]})


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"cronSpec": "x"}, r"""spec.cronSpec: Invalid value: "x": spec.cronSpec in body should match '^\d+$'"""),
        ({"replicas": "2"}, 'spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string"'),
        ({"replicas": 0}, "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1"),
        ({"replicas": 11}, "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10"),
        ({"policy": "x"}, 'spec.policy: Unsupported value: "x": supported values: "Allow", "Forbid"'),
        ({"image": "0123456789"}, "spec.image: Too long: may not be more than 9 bytes"),
        ({"port": True}, 'spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"'),
        ({"tags": ["a", "a"]}, 'spec.tags[1]: Duplicate value: "a"'),
        ({"sidecars": [{"name": 1}]}, 'spec.sidecars[0].name: Invalid value: "integer": spec.sidecars[0].name in body must be of type string: "integer"'),
    ],
)  # fmt: skip
def test_what_users_get_wrong(kind: Kind, spec: Obj, fault: str) -> None:
    found = kind.strategy.validate(cron_tab(**spec))
    assert [f"{error.field}: {error.message}" for error in found] == [fault]


def test_a_required_field(kind: Kind) -> None:
    obj = cron_tab()
    del obj["spec"]["image"]
    assert [f"{error.field}: {error.message}" for error in kind.strategy.validate(obj)] == [
        "spec.image: Required value"
    ]


def test_alternatives() -> None:
    schema = {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]}}
    assert validate_custom(schema, {"a": 1}) == []
    assert len(validate_custom(schema, {"a": 1, "b": 1})) == 1
    assert len(validate_custom(schema, {"a": 1, "c": 1})) == 1


def test_status_and_spec_are_apart(kind: Kind) -> None:
    old = cron_tab()
    kind.strategy.prepare_create(old)
    new = thaw(old)
    new["spec"]["image"] = "other"
    new["metadata"]["labels"] = {"a": "b"}
    new["status"] = {"replicas": 2}
    through_status = thaw(new)
    kind.strategy.prepare_update(through_status, old, "status")
    assert through_status == {**old, "status": {"replicas": 2}}
    kind.strategy.prepare_update(new, old, "")
    assert "status" not in new
    assert new["metadata"] == {**old["metadata"], "labels": {"a": "b"}, "generation": 2}


def test_columns(kind: Kind) -> None:
    obj = cron_tab(replicas=3)
    obj["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    obj["status"] = {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]}
    table = make_table(kind, [obj], 1767225600.0 + 90)
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Image", "Replicas", "Ready", "Age"]
    assert table["rows"][0]["cells"] == ["a", "i", 3, "True", "90s"]


# ── paths ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b", [1]),
        ("{.a.b}", [1]),
        (".list[0].x", [1]),
        (".list[-1].x", [2]),
        (".list[*].x", [1, 2]),
        (r".labels.example\.com/x", ["y"]),
        (".labels['example.com/x']", ["y"]),
        ('.list[?(@.n=="b")].x', [2]),
        (".missing.b", []),
        (".list[9]", []),
    ],
)
def test_json_paths(path: str, found: list[Any]) -> None:
    value = {"a": {"b": 1}, "list": [{"x": 1, "n": "a"}, {"x": 2, "n": "b"}], "labels": {"example.com/x": "y"}}
    assert find(path, value) == found


def test_a_path_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        find(".a[?(length(@)>1)]", {})
