"""Strategic merge patch; the golden file holds answers of upstream's own implementation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dure.api.patches import apply_strategic_patch
from dure.api.schemas import Schemas
from dure.core.errors import BadRequest, UnsupportedMediaType

DEPLOYMENT = Schemas.load().definition("io.k8s.api.apps.v1.Deployment")
POD = Schemas.load().definition("io.k8s.api.core.v1.Pod")
GOLDEN = json.loads((Path(__file__).parent / "golden/strategic_upstream.json").read_text())


def _plain(value: Any) -> Any:
    """Nulls and directives left in new items are dropped when the object is decoded."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None and not k.startswith("$")}
    return [_plain(item) for item in value if item is not None] if isinstance(value, list) else value


@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_agrees_with_upstream(case: Any) -> None:
    assert _plain(apply_strategic_patch(case["object"], case["patch"], DEPLOYMENT)) == case["result"]


def _pod(**spec: Any) -> dict[str, Any]:
    return {"spec": spec}


def test_list_items_merge_by_their_key() -> None:
    pod = _pod(containers=[{"name": "a", "image": "1"}, {"name": "b", "image": "2"}])
    patched = apply_strategic_patch(pod, _pod(containers=[{"name": "b", "tty": True}]), POD)
    assert patched["spec"]["containers"] == [{"name": "a", "image": "1"}, {"name": "b", "image": "2", "tty": True}]
    assert pod["spec"]["containers"][1] == {"name": "b", "image": "2"}


def test_lists_without_strategy_are_replaced() -> None:
    patched = apply_strategic_patch(
        _pod(containers=[{"name": "a", "args": ["x"]}]), _pod(containers=[{"name": "a", "args": ["y"]}]), POD
    )
    assert patched["spec"]["containers"][0]["args"] == ["y"]


def test_items_are_deleted_and_lists_replaced_by_directive() -> None:
    pod = _pod(containers=[{"name": "a"}, {"name": "b"}])
    deleted = apply_strategic_patch(pod, _pod(containers=[{"name": "a", "$patch": "delete"}]), POD)
    replaced = apply_strategic_patch(pod, _pod(containers=[{"$patch": "replace"}, {"name": "c"}]), POD)
    assert deleted["spec"]["containers"] == [{"name": "b"}]
    assert replaced["spec"]["containers"] == [{"name": "c"}]


def test_set_lists_grow_and_shrink() -> None:
    obj = {"metadata": {"finalizers": ["a", "b"]}}
    grown = apply_strategic_patch(obj, {"metadata": {"finalizers": ["c"]}}, POD)
    shrunk = apply_strategic_patch(obj, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}, POD)
    assert sorted(grown["metadata"]["finalizers"]) == ["a", "b", "c"]
    assert shrunk["metadata"]["finalizers"] == ["b"]


def test_element_order_directive_orders_the_list() -> None:
    pod = _pod(containers=[{"name": "a"}, {"name": "b"}, {"name": "c"}])
    patch = {"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}}
    names = [item["name"] for item in apply_strategic_patch(pod, patch, POD)["spec"]["containers"]]
    assert names.index("c") < names.index("a")


def test_retain_keys_clears_the_other_members() -> None:
    obj = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert apply_strategic_patch(obj, patch, DEPLOYMENT) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_map_directives_replace_and_empty() -> None:
    obj = {"metadata": {"labels": {"a": "1"}, "annotations": {"b": "2"}}}
    patch = {"metadata": {"labels": {"$patch": "replace", "c": "3"}, "annotations": {"$patch": "delete"}}}
    assert apply_strategic_patch(obj, patch, POD) == {"metadata": {"labels": {"c": "3"}, "annotations": {}}}


def test_null_removes_and_is_dropped_where_nothing_was() -> None:
    obj = {"metadata": {"labels": {"a": "1"}}}
    patch = {"metadata": {"labels": {"a": None, "b": None}, "annotations": {"x": None, "y": "1"}}}
    assert apply_strategic_patch(obj, patch, POD) == {"metadata": {"labels": {}, "annotations": {"y": "1"}}}


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, "does not contain declared merge key: name"),
        ({"spec": {"containers": [{"name": {}}]}}, "a merge key must be a plain value"),
        ({"spec": {"containers": ["x"]}}, "list element types are not identical"),
        ({"spec": {"containers": [["x"]]}}, "lists of lists are not supported"),
        ({"spec": {"$patch": "explode"}}, "unknown patch type: explode"),
        ({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}, "merging lists cannot yet be specified"),
        ({"spec": {"$setElementOrder/containers": {}}}, "invalid patch format of setElementOrder list"),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}, "invalid patch format of primitive list"),
        ({"spec": {"$retainKeys": ["a"], "hostname": "x"}}, "invalid patch format of retainKeys"),
        ([], "invalid JSON document"),
    ],
)
def test_malformed_patches_are_refused(patch: Any, why: str) -> None:
    with pytest.raises(BadRequest, match=why.replace("$", r"\$")):
        apply_strategic_patch({"metadata": {}, "spec": {"containers": [{"name": "a"}]}}, patch, POD)


def test_custom_kinds_have_no_strategic_patch() -> None:
    with pytest.raises(UnsupportedMediaType):
        apply_strategic_patch({}, {}, None)
