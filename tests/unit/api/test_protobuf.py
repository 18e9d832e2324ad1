"""Protobuf bodies: kubectl's own, upstream's encoder, and our way there and back."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dure.api.protobuf import decode, encode
from dure.core.errors import ApiError, BadRequest, UnsupportedMediaType

HERE = Path(__file__).parent / "golden"
KUBECTL = json.loads((HERE / "kubectl_protobuf.json").read_text())
UPSTREAM = json.loads((HERE / "protobuf_upstream.json").read_text())


@pytest.mark.parametrize("name", KUBECTL)
def test_what_kubectl_sends_is_understood(name: str) -> None:
    assert decode(base64.b64decode(KUBECTL[name]["body"])) == KUBECTL[name]["object"]


@pytest.mark.parametrize("case", UPSTREAM, ids=lambda case: case["object"]["kind"])
def test_what_upstream_encodes_is_understood(case: Any) -> None:
    assert decode(base64.b64decode(case["body"])) == case["object"]


@pytest.mark.parametrize("case", [*UPSTREAM, *KUBECTL.values()], ids=lambda case: case["object"]["kind"])
def test_what_is_encoded_decodes_to_the_same(case: Any) -> None:
    assert decode(encode(case["object"])) == case["object"]


def test_schemas_of_custom_kinds_keep_their_either_or_members() -> None:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "a": {"type": "array", "items": {"type": "number", "minimum": 0.5, "enum": [1, "x", None]}},
            "b": {"additionalProperties": {"type": "string", "default": {"k": [1]}}},
            "c": {"x-kubernetes-preserve-unknown-fields": False, "$ref": "#/x"},
        },
        "dependencies": {"a": ["b"], "b": {"type": "null"}},
    }
    obj = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "x.y"},
        "spec": {"versions": [{"name": "v1", "served": True, "storage": False, "schema": {"openAPIV3Schema": schema}}]},
    }
    assert decode(encode(obj)) == obj


@pytest.mark.parametrize("text", ["0s", "1ns", "1.5µs", "250ms", "1.5s", "1m0s", "1h0m0.25s", "-30s", "100h0m0s"])
def test_durations_are_written_as_go_does(text: str) -> None:
    obj = {"apiVersion": "metrics.k8s.io/v1beta1", "kind": "NodeMetrics", "metadata": {}, "window": text}
    assert decode(encode(obj)) == obj


def test_json_inside_the_envelope_is_taken_as_it_is() -> None:
    inner = b'{"kind":"Pod","apiVersion":"v1"}'
    body = b"k8s\0" + b"\x12" + bytes([len(inner)]) + inner + b"\x22\x10application/json"
    assert decode(body) == {"kind": "Pod", "apiVersion": "v1"}


def test_an_unknown_field_is_refused_not_dropped() -> None:
    body = encode({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    broken = body.replace(b"\x12\x05\x0a\x03\x0a\x01a", b"\x12\x0a\x0a\x03\x0a\x01a\xa2\x06\x02hi")
    assert broken != body
    with pytest.raises(UnsupportedMediaType, match=r"field number 100 of core/v1\.ConfigMap"):
        decode(broken)


def test_unknown_kinds_are_unsupported() -> None:
    with pytest.raises(UnsupportedMediaType):
        encode({"apiVersion": "example.com/v1", "kind": "Gadget"})
    with pytest.raises(UnsupportedMediaType):
        decode(b"k8s\0\x0a\x06\x0a\x02v9\x12\x00")


def test_deep_nesting_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(200):
        schema = {"not": schema}
    obj = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]},
    }
    with pytest.raises(BadRequest, match="nested too deeply"):
        decode(encode(obj))


SAMPLE = encode(UPSTREAM[10]["object"])


@given(st.binary(max_size=60))
@example(b"k8s\0")
def test_no_bytes_break_the_decoder(junk: bytes) -> None:
    for body in (junk, b"k8s\0" + junk, SAMPLE[:-20] + junk):
        try:
            decode(body)
        except ApiError as error:
            assert error.code in (400, 415)


@given(st.integers(4, len(SAMPLE) - 1), st.integers(0, 255))
def test_no_changed_byte_breaks_the_decoder(at: int, byte: int) -> None:
    try:
        decode(SAMPLE[:at] + bytes([byte]) + SAMPLE[at + 1 :])
    except ApiError as error:
        assert error.code in (400, 415)
