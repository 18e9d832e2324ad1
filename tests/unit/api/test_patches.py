"""JSON patch (RFC 6902) and JSON merge patch (RFC 7386)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.api.patches import apply_json_patch, apply_merge_patch
from dure.core.errors import ApiError, BadRequest, Invalid, RequestEntityTooLarge

PLAIN = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab/~", max_size=2)
NO_NULL = st.recursive(
    PLAIN.filter(lambda value: value is not None),
    lambda inner: st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text("ab/~", max_size=2), NO_NULL, max_size=4)


@pytest.mark.parametrize(
    ("document", "ops", "result"),
    [
        ({}, [{"op": "add", "path": "/a", "value": 1}], {"a": 1}),
        ({"l": [1, 3]}, [{"op": "add", "path": "/l/1", "value": 2}], {"l": [1, 2, 3]}),
        ({"l": [1]}, [{"op": "add", "path": "/l/-", "value": 2}], {"l": [1, 2]}),
        ({"l": [1, 2]}, [{"op": "remove", "path": "/l/0"}], {"l": [2]}),
        ({"l": [1, 2]}, [{"op": "replace", "path": "/l/-1", "value": 9}], {"l": [1, 9]}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a/b": {"~": 1}}, [{"op": "replace", "path": "/a~1b/~0", "value": 2}], {"a/b": {"~": 2}}),
        ({"a": 1}, [{"op": "test", "path": "/b", "value": None}, {"op": "remove", "path": "/a"}], {}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    ],
)
def test_json_patch_operations(document: Any, ops: Any, result: Any) -> None:
    assert apply_json_patch(document, ops) == result


@pytest.mark.parametrize(
    ("ops", "why"),
    [
        ([{"op": "test", "path": "/a", "value": True}], "testing value /a failed: test failed"),
        ([{"op": "remove", "path": "/x"}], "Unable to remove nonexistent key: x: missing value"),
        ([{"op": "replace", "path": "/x", "value": 1}], "replace operation does not apply: doc is missing key: /x"),
        ([{"op": "add", "path": "/x/y", "value": 1}], 'add operation does not apply: doc is missing path: "/x/y"'),
        ([{"op": "add", "path": "/l/5", "value": 1}], "Unable to access invalid index: 5"),
        ([{"op": "add", "path": "/l/one", "value": 1}], "value was not a proper array index: 'one'"),
        ([{"op": "add", "path": "/a"}], "missing value field"),
        ([{"op": "grow", "path": "/a"}], "Unexpected kind: grow"),
        ([{"op": "move", "from": "/m", "path": "/m/n"}], "cannot move into itself"),
        ([{"op": "copy", "from": "/x", "path": "/y"}], "doc is missing from path: /x"),
        ([{"op": "remove", "path": "a"}], "doc is missing path"),
        ([{"op": "replace", "path": "", "value": 3}], "not an object"),
    ],
)
def test_json_patch_that_does_not_fit_is_invalid(ops: Any, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        apply_json_patch({"a": 1, "l": [], "m": {}}, ops)
    assert caught.value.message.startswith("the server rejected our request due to an error in our request")
    assert why in caught.value.details["causes"][0]["message"]


def test_json_patch_must_be_a_list_of_objects() -> None:
    for patch in ({}, ["add"], "add", None):
        with pytest.raises(BadRequest):
            apply_json_patch({}, patch)


def test_json_patch_has_limits() -> None:
    with pytest.raises(RequestEntityTooLarge):
        apply_json_patch({}, [{"op": "test", "path": "/a", "value": None}] * 10_001)
    doubling = [{"op": "copy", "from": "/a", "path": f"/a/{index}"} for index in range(40)]
    with pytest.raises(Invalid, match="accumulated size"):
        apply_json_patch({"a": {"x": "y" * 100}}, doubling)


def test_a_failing_operation_leaves_the_original_alone() -> None:
    document = {"a": {"b": 1}}
    with pytest.raises(ApiError):
        apply_json_patch(document, [{"op": "remove", "path": "/a/b"}, {"op": "remove", "path": "/z"}])
    assert document == {"a": {"b": 1}}


def test_merge_patch_follows_the_examples_of_its_rfc() -> None:
    document = {"title": "x", "author": {"given": "J", "family": "D"}, "tags": ["a", "b"]}
    patch = {"title": "y", "author": {"family": None}, "tags": ["c"], "phone": {"home": {"n": None, "m": 1}}}
    assert apply_merge_patch(document, patch) == {
        "title": "y",
        "author": {"given": "J"},
        "tags": ["c"],
        "phone": {"home": {"m": 1}},
    }
    assert document["author"] == {"given": "J", "family": "D"}


def test_merge_patch_must_be_an_object() -> None:
    with pytest.raises(BadRequest, match="invalid JSON Patch"):
        apply_merge_patch({}, [])


@given(OBJECTS, OBJECTS)
def test_merging_a_whole_object_with_nulls_for_the_rest_gives_that_object(old: Any, new: Any) -> None:
    assert apply_merge_patch(old, _difference(old, new)) == new


def _difference(old: Any, new: Any) -> Any:
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(old.get(key), dict)
        patch[key] = _difference(old[key], value) if both else value
    return patch


@given(OBJECTS)
def test_a_test_operation_accepts_every_value_that_is_there(document: Any) -> None:
    ops = [
        {"op": "test", "path": "/" + key.replace("~", "~0").replace("/", "~1"), "value": value}
        for key, value in document.items()
    ]
    assert apply_json_patch(document, ops) == document
