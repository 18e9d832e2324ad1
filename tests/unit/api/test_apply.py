"""Server-side apply and the record of managers; the golden file holds answers of upstream's own implementation."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from dure.api.apply import LAST_APPLIED, apply, track_update
from dure.api.schemas import Schema, Schemas
from dure.core.errors import BadRequest, Conflict
from dure.core.json import Obj, dumps, thaw

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"
DEPLOYMENT = Schemas.load().definition("io.k8s.api.apps.v1.Deployment")
GOLDEN = json.loads((Path(__file__).parent / "golden/apply_upstream.json").read_text())


def _managers(obj: Obj) -> list[tuple[str, str, Any]]:
    return sorted(
        (e["manager"], e["operation"], dumps(e["fieldsV1"])) for e in obj["metadata"].get("managedFields", [])
    )


def _step(live: Obj | None, step: Any) -> Obj:
    if step["op"] == "update":
        return track_update(live, step["object"], manager=step["manager"], schema=DEPLOYMENT, now=NOW, reset=())
    return apply(
        live, step["object"], manager=step["manager"], force=step["force"], schema=DEPLOYMENT, now=NOW, reset=()
    )


def _shell(value: Any) -> Any:
    """Without empty and zero members, which a typed server writes or leaves out as its types say."""
    if isinstance(value, dict):
        pairs = {key: _shell(member) for key, member in value.items() if key != "managedFields"}
        return {key: member for key, member in pairs.items() if member}
    return [_shell(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("scenario", GOLDEN, ids=range(len(GOLDEN)))
def test_agrees_with_upstream_step_by_step(scenario: Any) -> None:
    live: Obj | None = None
    for step in scenario:
        if "error" in step:
            with pytest.raises(Conflict) as caught:
                _step(live, step)
            assert sorted(caught.value.message.split("\n")) == step["error"]
            continue
        result = _step(live, step)
        assert _managers(result) == _managers(step["live"])
        assert _shell(result) == _shell(step["live"])
        live = thaw(step["live"])
        live["metadata"]["uid"] = "u"


def _deployment(replicas: int | None = None, **meta: Any) -> Obj:
    spec = {} if replicas is None else {"replicas": replicas}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", **meta}, "spec": spec}


def _apply(live: Obj | None, applied: Obj, manager: str, *, force: bool = False, now: str = NOW) -> Obj:
    return apply(live, applied, manager=manager, force=force, schema=DEPLOYMENT, now=now)


def _entry(obj: Obj, manager: str) -> Any:
    return next((entry for entry in obj["metadata"]["managedFields"] if entry["manager"] == manager), None)


def test_a_conflict_names_manager_and_field() -> None:
    live = track_update(None, _deployment(1), manager="kubectl-client-side-apply", schema=DEPLOYMENT, now=NOW)
    with pytest.raises(Conflict) as caught:
        _apply(live, _deployment(3), "me")
    assert caught.value.to_status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Apply failed with 1 conflict: "
        'conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas',
        "reason": "Conflict",
        "details": {
            "causes": [
                {
                    "reason": "FieldManagerConflict",
                    "message": 'conflict with "kubectl-client-side-apply" using apps/v1',
                    "field": ".spec.replicas",
                }
            ]
        },
        "code": 409,
    }


def test_several_conflicts_are_listed_by_manager() -> None:
    live = _apply(None, _deployment(1, labels={"a": "1"}), "one")
    live = track_update(live, {**live, "spec": {"replicas": 2}}, manager="two", schema=DEPLOYMENT, now=NOW)
    with pytest.raises(Conflict) as caught:
        _apply(live, _deployment(3, labels={"a": "2"}), "me")
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "one":\n- .metadata.labels.a\n'
        'conflicts with "two" using apps/v1:\n- .spec.replicas'
    )


def test_force_takes_the_field_from_its_owner() -> None:
    live = _apply(None, _deployment(1), "one")
    forced = _apply(live, _deployment(3), "two", force=True)
    assert forced["spec"]["replicas"] == 3
    assert _entry(forced, "one") is None
    assert _entry(forced, "two")["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


def test_the_same_value_is_owned_together() -> None:
    both = _apply(_apply(None, _deployment(1), "one"), _deployment(1), "two")
    assert [entry["manager"] for entry in both["metadata"]["managedFields"]] == ["one", "two"]
    given_up = _apply(both, _deployment(), "one")
    assert given_up["spec"]["replicas"] == 1
    assert "replicas" not in _apply(given_up, _deployment(), "two").get("spec", {})


def test_a_field_given_up_by_its_only_owner_goes() -> None:
    live = _apply(None, _deployment(1, labels={"a": "1", "b": "2"}), "one")
    assert _apply(live, _deployment(1, labels={"a": "1"}), "one")["metadata"]["labels"] == {"a": "1"}


def test_list_items_are_owned_by_their_keys() -> None:
    def pod_spec(*containers: Obj) -> Obj:
        return {**_deployment(), "spec": {"template": {"spec": {"containers": list(containers)}}}}

    live = _apply(None, pod_spec({"name": "a", "image": "1"}), "one")
    live = _apply(live, pod_spec({"name": "b", "image": "2"}), "two")
    live = _apply(live, pod_spec({"name": "b", "image": "3"}), "two")
    assert live["spec"]["template"]["spec"]["containers"] == [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]
    assert _apply(live, _deployment(), "one")["spec"]["template"]["spec"]["containers"] == [{"name": "b", "image": "3"}]


def test_applying_again_changes_nothing_not_even_the_time() -> None:
    live = _apply(None, _deployment(1), "one")
    assert _apply(live, _deployment(1), "one", now=LATER) == live


def test_untracked_objects_get_an_owner_at_the_first_apply() -> None:
    live = _deployment(1, uid="u")
    with pytest.raises(Conflict, match=r'conflict with "before-first-apply" using apps/v1: \.spec\.replicas'):
        _apply(live, _deployment(2), "me")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"apiVersion": "apps/v2"}, "Incorrect version specified in apply patch"),
        ({"metadata": {"name": "web", "managedFields": []}}, "metadata.managedFields must be nil"),
        ({"spec": {"replica": 1}}, r"\.spec\.replica: field not declared in schema"),
        (
            {"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}},
            r"\.spec\.template\.spec\.containers: duplicate entries for key",
        ),
        (
            {"spec": {"template": {"spec": {"containers": ["a"]}}}},
            "associative list with keys may not have non-map elements",
        ),
    ],
)
def test_configurations_that_do_not_fit_are_refused(change: Obj, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        apply(
            None,
            {**_deployment(), **change},
            manager="me",
            force=False,
            schema=DEPLOYMENT,
            now=NOW,
            api_version="apps/v1",
        )


def test_kubectl_takes_over_what_client_side_apply_set() -> None:
    last = dumps(_deployment(1)).decode()
    obj = _deployment(1, annotations={LAST_APPLIED: last}, uid="u")
    live = track_update(None, obj, manager="kubectl-client-side-apply", schema=DEPLOYMENT, now=NOW)
    with pytest.raises(Conflict):
        _apply(live, _deployment(2), "someone")
    taken = _apply(live, _deployment(2), "kubectl")
    assert taken["spec"]["replicas"] == 2
    assert json.loads(taken["metadata"]["annotations"][LAST_APPLIED]) == _deployment(2)


def test_what_others_changed_since_stays_a_conflict_for_kubectl() -> None:
    last = dumps(_deployment(1)).decode()
    obj = _deployment(1, annotations={LAST_APPLIED: last}, uid="u")
    live = track_update(None, obj, manager="kubectl-client-side-apply", schema=DEPLOYMENT, now=NOW)
    scaled = track_update(live, {**live, "spec": {"replicas": 5}}, manager="hpa", schema=DEPLOYMENT, now=NOW)
    with pytest.raises(Conflict, match='"hpa" using apps/v1'):
        _apply(scaled, _deployment(2), "kubectl")


def test_status_is_owned_at_its_own_endpoint_only() -> None:
    applied = {**_deployment(1), "status": {"replicas": 1}}
    assert _entry(_apply(None, applied, "me"), "me")["fieldsV1"] == {"f:spec": {"f:replicas": {}}}
    live = _deployment(1, uid="u", managedFields=_apply(None, _deployment(1), "me")["metadata"]["managedFields"])
    status = apply(live, applied, manager="controller", force=False, schema=DEPLOYMENT, now=NOW, subresource="status")
    entry = _entry(status, "controller")
    assert (entry["subresource"], entry["fieldsV1"]) == ("status", {"f:status": {"f:replicas": {}}})


def test_updates_record_what_they_changed() -> None:
    live = track_update(None, _deployment(1, labels={"a": "1"}), manager="creator", schema=DEPLOYMENT, now=NOW)
    changed = thaw(live)
    changed["metadata"]["labels"]["a"] = "2"
    changed["status"] = {"replicas": 1}
    after = track_update(live, changed, manager="other", schema=DEPLOYMENT, now=LATER, subresource="status", reset=())
    assert _entry(after, "other") == {
        "manager": "other",
        "operation": "Update",
        "apiVersion": "apps/v1",
        "time": LATER,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}, "f:status": {"f:replicas": {}}},
        "subresource": "status",
    }
    assert _entry(after, "creator")["fieldsV1"] == {"f:metadata": {"f:labels": {}}, "f:spec": {"f:replicas": {}}}


def test_an_update_without_change_leaves_the_record_alone() -> None:
    live = track_update(None, _deployment(1), manager="creator", schema=DEPLOYMENT, now=NOW)
    again = track_update(live, thaw(live), manager="other", schema=DEPLOYMENT, now=LATER)
    assert again == live


def test_clients_that_drop_or_garble_the_record_do_not_lose_it() -> None:
    live = track_update(None, _deployment(1), manager="creator", schema=DEPLOYMENT, now=NOW)
    without = {**live, "metadata": {"name": "web"}}
    garbled = {**live, "metadata": {"name": "web", "managedFields": [{"manager": "x", "operation": "Steal"}]}}
    for sent in (without, garbled):
        assert track_update(live, sent, manager="other", schema=DEPLOYMENT, now=LATER) == live


def test_an_empty_record_sent_clears_it() -> None:
    live = track_update(None, _deployment(1), manager="creator", schema=DEPLOYMENT, now=NOW)
    cleared = {**live, "metadata": {"name": "web", "managedFields": [{}]}}
    after = track_update(live, cleared, manager="other", schema=DEPLOYMENT, now=LATER)
    assert "managedFields" not in after["metadata"]
    assert "managedFields" not in track_update(
        after, _deployment(2), manager="other", schema=DEPLOYMENT, now=LATER
    ).get("metadata", {})


def test_old_update_entries_are_gathered() -> None:
    live = track_update(None, _deployment(1), manager="creator", schema=DEPLOYMENT, now=NOW)
    for index in range(15):
        changed = thaw(live)
        changed["metadata"].setdefault("labels", {})[f"l{index}"] = "x"
        stamp = f"2026-01-01T00:{index:02d}:00Z"
        live = track_update(live, changed, manager=f"m{index}", schema=DEPLOYMENT, now=stamp)
    names = [entry["manager"] for entry in live["metadata"]["managedFields"]]
    assert len(names) == 10
    assert "ancient-changes" in names


CUSTOM = Schema.from_openapi(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "rules": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["id"],
                        "items": {
                            "type": "object",
                            "properties": {"id": {"type": "integer"}, "to": {"type": "string"}},
                        },
                    },
                    "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "steps": {"type": "array", "items": {"type": "string"}},
                    "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {}, "b": {}}},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        },
    }
)


def _custom(spec: Obj) -> Obj:
    return {"apiVersion": "x.io/v1", "kind": "Route", "metadata": {"name": "r"}, "spec": spec}


def test_custom_kinds_follow_the_marks_of_their_schema() -> None:
    spec = {
        "rules": [{"id": 1, "to": "a"}],
        "tags": ["t"],
        "steps": ["x"],
        "whole": {"a": 1},
        "free": {"deep": {"l": [1]}},
    }
    result = apply(None, _custom(spec), manager="me", force=False, schema=CUSTOM, now=NOW)
    assert _entry(result, "me")["fieldsV1"] == {
        "f:spec": {
            "f:free": {"f:deep": {".": {}, "f:l": {}}},
            "f:rules": {'k:{"id":1}': {".": {}, "f:id": {}, "f:to": {}}},
            "f:steps": {},
            "f:tags": {'v:"t"': {}},
            "f:whole": {},
        }
    }


def test_without_a_schema_objects_are_granular_and_lists_atomic() -> None:
    live = apply(None, _custom({"a": {"b": 1}, "l": [1, 2]}), manager="one", force=False, schema=None, now=NOW)
    with pytest.raises(Conflict, match=r"\.spec\.l$"):
        apply(live, _custom({"a": {"c": 2}, "l": [3]}), manager="two", force=False, schema=None, now=NOW)
    merged = apply(live, _custom({"a": {"c": 2}}), manager="two", force=False, schema=None, now=NOW)
    assert merged["spec"] == {"a": {"b": 1, "c": 2}, "l": [1, 2]}


def test_null_in_a_configuration_removes() -> None:
    live = track_update(None, _deployment(1), manager="one", schema=DEPLOYMENT, now=NOW)
    applied = {**_deployment(), "spec": {"replicas": None}}
    assert "replicas" not in _apply(live, applied, "me", force=True)["spec"]


def test_recording_a_status_update_costs_microseconds() -> None:
    live = track_update(None, _deployment(1, labels={"a": "1"}), manager="creator", schema=DEPLOYMENT, now=NOW)
    changed = {**thaw(live), "status": {"replicas": 1}}
    started = time.process_time()
    for _ in range(200):
        track_update(live, changed, manager="controller", schema=DEPLOYMENT, now=NOW, subresource="status")
    assert (time.process_time() - started) / 200 < 0.002
