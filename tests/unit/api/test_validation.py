"""Structure of bodies: wrong types, unknown fields, canonical forms, in upstream's words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.api.kinds import builtin_kinds
from dure.api.quantities import canonical_quantity, parse_quantity
from dure.api.validation import decode_as, decode_object, strict_error
from dure.core.errors import BadRequest

KINDS = builtin_kinds()


def deployment(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def pod(container: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}


def refusal(resource: str, obj: dict[str, Any]) -> str:
    with pytest.raises(BadRequest) as caught:
        decode_object(KINDS.resource(resource), obj)
    return caught.value.message


def test_a_good_object_is_left_alone() -> None:
    obj = pod({"name": "c", "image": "i", "resources": {"limits": {"cpu": "500m"}}})
    assert decode_object(KINDS.resource("pods"), obj) == []
    assert obj == pod({"name": "c", "image": "i", "resources": {"limits": {"cpu": "500m"}}})


@pytest.mark.parametrize(
    ("member", "value", "source", "target"),
    [
        ("replicas", "3", "string", "int32"),
        ("replicas", 1.5, "number 1.5", "int32"),
        ("paused", "yes", "string", "bool"),
        ("template", [], "array", "v1.PodTemplateSpec"),
    ],
)
def test_wrong_types_are_named_as_the_decoder_does(member: str, value: Any, source: str, target: str) -> None:
    assert refusal("deployments.apps", deployment(**{member: value})) == (
        'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal '
        f"{source} into Go struct field DeploymentSpec.spec.{member} of type {target}"
    )


def test_the_decoders_path_has_no_indexes() -> None:
    text = refusal("pods", pod({"name": "c", "env": [{"name": "A", "value": 1}]}))
    assert text.endswith("cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string")


def test_a_label_that_is_a_number() -> None:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"a": True}}}
    assert refusal("configmaps", obj) == (
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: '
        "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string"
    )


def test_a_broken_quantity() -> None:
    text = refusal("pods", pod({"name": "c", "resources": {"limits": {"cpu": "lots"}}}))
    assert text.startswith(
        'Pod in version "v1" cannot be handled as a Pod: quantities must match the regular expression'
    )


def test_broken_base64() -> None:
    obj = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "a*bc"}}
    assert refusal("secrets", obj).endswith("illegal base64 data at input byte 1")


def test_unknown_fields_are_cut_out_and_named_with_indexes() -> None:
    obj = pod({"name": "c", "imag": "i"})
    obj["spec"]["foo"] = 1
    assert decode_object(KINDS.resource("pods"), obj) == [
        'unknown field "spec.containers[0].imag"',
        'unknown field "spec.foo"',
    ]
    assert obj == pod({"name": "c"})


def test_strict_validation_says_so() -> None:
    error = strict_error(KINDS.resource("pods"), ['unknown field "spec.foo"'])
    assert error.message == (
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.foo"'
    )


def test_nothing_is_the_same_as_absent() -> None:
    obj = deployment(replicas=None, template={"metadata": {"creationTimestamp": None}})
    assert decode_object(KINDS.resource("deployments.apps"), obj) == []
    assert obj == deployment(template={"metadata": {}})


def test_quantities_and_times_take_their_canonical_form() -> None:
    obj = pod({"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}})
    obj["metadata"]["creationTimestamp"] = "2026-01-31T10:30:00.5+01:00"
    decode_object(KINDS.resource("pods"), obj)
    assert obj["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "500m", "memory": "1Gi"}
    assert obj["metadata"]["creationTimestamp"] == "2026-01-31T09:30:00Z"


def test_options_are_checked_by_their_definition() -> None:
    definition = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
    with pytest.raises(BadRequest, match=r"string into Go struct field DeleteOptions\.gracePeriodSeconds"):
        decode_as(definition, "v1", "DeleteOptions", {"gracePeriodSeconds": "x"})


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1000m", "1"), ("1500m", "1500m"), ("0.5", "500m"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("0.5Ki", "512"),
        ("1e3", "1e3"), ("5e4", "50e3"), ("2000k", "2M"), ("0", "0"), ("0Mi", "0"), (1, "1"), ("-1", "-1"),
    ],
)  # fmt: skip
def test_canonical_quantities(text: str | int, canonical: str) -> None:
    assert canonical_quantity(text) == canonical


@given(st.integers(0, 10**7), st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_the_canonical_form_keeps_the_value_and_is_final(number: int, suffix: str) -> None:
    canonical = canonical_quantity(f"{number}{suffix}")
    assert parse_quantity(canonical) == parse_quantity(f"{number}{suffix}")
    assert canonical_quantity(canonical) == canonical


_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
_MEMBERS = st.sampled_from(["name", "env", "x"])


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(_MEMBERS, inner, max_size=3)


@given(st.recursive(_LEAVES, _containers, max_leaves=8))
def test_any_json_is_either_read_or_a_bad_request(value: Any) -> None:
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": value}}
    try:
        decode_object(KINDS.resource("pods"), obj)
    except BadRequest:
        return
    assert decode_object(KINDS.resource("pods"), obj) == []
