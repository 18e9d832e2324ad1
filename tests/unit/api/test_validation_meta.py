"""Names, labels, annotations, owners, finalizers, and the Invalid answer."""

from __future__ import annotations

from typing import Any

import pytest

from dure.api import fields
from dure.api.names import (
    config_key,
    dns1035_label,
    dns1123_label,
    dns1123_subdomain,
    label_value,
    path_segment,
    port_name,
    qualified_name,
)
from dure.api.objectmeta import validate_object_meta, validate_object_meta_update


def meta_errors(namespaced: bool = True, **meta: Any) -> list[str]:
    base = {"name": "a", **({"namespace": "default"} if namespaced else {})}
    found = validate_object_meta({"metadata": {**base, **meta}}, namespaced=namespaced, name_rule=dns1123_subdomain)
    return [f"{error.field}: {error.message}" for error in found]


def test_a_bad_name_is_refused_in_upstreams_words() -> None:
    assert meta_errors(name="Foo") == [
        'metadata.name: Invalid value: "Foo": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
        "characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
        r"for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    ]


def test_a_label_message_has_two_examples() -> None:
    assert dns1123_label("A") == (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
        "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
        "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    )


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (dns1035_label, "a-1", "1-a"),
        (label_value, "", "-a"),
        (label_value, "A_b.c", "a b"),
        (qualified_name, "example.com/Name", "a/b/c"),
        (qualified_name, "x", "/x"),
        (config_key, "a_b.C-1", ".."),
        (config_key, ".dockercfg", "a/b"),
        (port_name, "http-2", "2222"),
        (port_name, "a", "a--b"),
        (path_segment, "system:node", "a/b"),
        (dns1123_subdomain, "a.b", "a..b"),
    ],
)  # fmt: skip
def test_rules(rule: Any, good: str, bad: str) -> None:
    assert not rule(good)
    assert rule(bad)


def test_without_name_or_generate_name() -> None:
    assert meta_errors(name="") == ["metadata.name: Required value: name or generateName is required"]


def test_generate_name_may_end_in_a_dash() -> None:
    assert meta_errors(generateName="web-") == []
    assert meta_errors(generateName="Web-")[0].startswith('metadata.generateName: Invalid value: "Web-"')


def test_namespaces_where_they_belong() -> None:
    assert meta_errors(namespace="") == ["metadata.namespace: Required value"]
    assert meta_errors(namespaced=False, namespace="x") == ["metadata.namespace: Forbidden: not allowed on this type"]


def test_labels_and_annotations() -> None:
    assert meta_errors(labels={"a": "ok"}, annotations={"Example.com/x": "any text"}) == []
    assert meta_errors(labels={"a": "b c"})[0].startswith(
        'metadata.labels: Invalid value: "b c": a valid label must be'
    )
    assert meta_errors(annotations={"a": "x" * 300_000}) == [
        "metadata.annotations: Too long: may not be more than 262144 bytes"
    ]


def test_finalizers_need_a_domain() -> None:
    assert meta_errors(finalizers=["example.com/x", "orphan", "foregroundDeletion"]) == []
    assert meta_errors(finalizers=["x"]) == [
        'metadata.finalizers: Invalid value: "x": name is neither a standard finalizer name nor is it fully qualified'
    ]


def test_only_one_controller() -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": True}
    assert "Only one reference can have Controller set to true" in meta_errors(ownerReferences=[owner, owner])[0]


def test_updates_keep_what_is_immutable() -> None:
    old = {"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "t", "finalizers": []}}
    new = {"metadata": {"name": "a", "uid": "2", "deletionTimestamp": "t", "finalizers": ["e.com/x"]}}
    assert [f"{error.field}: {error.message}" for error in validate_object_meta_update(new, old)] == [
        'metadata.uid: Invalid value: "2": field is immutable',
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
        'found new finalizers []string{"e.com/x"}',
    ]


def test_one_cause() -> None:
    error = fields.invalid_error("", "Pod", "x", [fields.required("spec.containers[0].image")])
    assert error.message == 'Pod "x" is invalid: spec.containers[0].image: Required value'
    assert error.details == {
        "name": "x",
        "kind": "Pod",
        "causes": [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers[0].image"}],
    }


def test_several_causes() -> None:
    errors = [fields.duplicate("a", "b"), fields.not_supported("c", "d", ["f", "e"]), fields.too_many("g", 3, 2)]
    error = fields.invalid_error("apps", "Deployment", "x", errors)
    assert error.message == (
        'Deployment.apps "x" is invalid: [a: Duplicate value: "b", '
        'c: Unsupported value: "d": supported values: "e", "f", g: Too many: 3: must have at most 2 items]'
    )
    assert error.details["group"] == "apps"
