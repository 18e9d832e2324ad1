"""The registry as a whole, and the kinds with small rules of their own."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from dure.api.kinds import builtin_kinds
from dure.api.meta import GroupVersionKind
from dure.core.json import Obj, thaw

KINDS = builtin_kinds()


def prepared(resource: str, obj: Obj) -> Obj:
    strategy = KINDS.resource(resource).strategy
    strategy.default(obj)
    strategy.prepare_create(obj)
    return obj


def faults(resource: str, obj: Obj) -> list[str]:
    return [f"{error.field}: {error.message}" for error in KINDS.resource(resource).strategy.validate(obj)]


def update_faults(resource: str, new: Obj, old: Obj) -> list[str]:
    errors = KINDS.resource(resource).strategy.validate_update(new, old, "")
    return [f"{error.field}: {error.message}" for error in errors]


def named(name: str = "a", namespace: str = "default", **more: Any) -> Obj:
    return {"metadata": {"name": name, **({"namespace": namespace} if namespace else {})}, **more}


def test_every_kind_takes_an_empty_object_without_breaking() -> None:
    for kind in KINDS:
        obj = named(namespace="default" if kind.namespaced else "")
        kind.strategy.default(obj)
        kind.strategy.prepare_create(obj)
        kind.strategy.validate(obj)
        kind.strategy.prepare_update(thaw(obj), obj, "")
        assert kind.strategy.field_labels == frozenset(kind.strategy.selectable_fields(obj))


def test_names_that_kubectl_knows() -> None:
    short = {name: kind.resource for kind in KINDS for name in kind.short_names if kind.group != "events.k8s.io"}
    assert (short["po"], short["deploy"], short["cm"], short["crd"]) == (
        "pods",
        "deployments.apps",
        "configmaps",
        "customresourcedefinitions.apiextensions.k8s.io",
    )
    everything = {kind.plural for kind in KINDS if "all" in kind.categories}
    assert everything == {
        "pods", "services", "replicationcontrollers", "deployments", "replicasets", "statefulsets", "daemonsets",
        "jobs", "cronjobs", "horizontalpodautoscalers",
    }  # fmt: skip


def test_connections_are_subresources_of_pods() -> None:
    pods = KINDS.resource("pods")
    names = {sub.name for sub in pods.subresources}
    assert names >= {"attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "resize", "status"}
    scale = KINDS.resource("deployments.apps").subresource("scale")
    assert scale is not None
    assert scale.kind == GroupVersionKind("autoscaling", "v1", "Scale")


def test_the_newer_autoscaler_is_preferred_and_stored() -> None:
    assert KINDS.resource("horizontalpodautoscalers.autoscaling").version == "v2"
    older = KINDS.at("autoscaling", "v1", "horizontalpodautoscalers")
    assert older is not None
    assert older.conversion is not None
    assert older.conversion.stored.version == "v2"


def test_both_event_apis_share_one_collection() -> None:
    old, new = KINDS.resource("events"), KINDS.resource("events.events.k8s.io")
    assert new.key("default", "e") == old.key("default", "e") == "core/events/default/e"
    assert new.conversion is not None
    event = {"apiVersion": "v1", "kind": "Event", "message": "m", "involvedObject": {"name": "p"}, "count": 2}
    seen = new.conversion.from_stored(event)
    assert seen == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "note": "m",
        "regarding": {"name": "p"},
        "deprecatedCount": 2,
    }
    assert new.conversion.to_stored(seen) == event


def test_events_are_selected_by_their_object() -> None:
    event = {"involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "kubelet"}, "reason": "Pulled"}
    found = KINDS.resource("events").strategy.selectable_fields(event)
    assert (found["involvedObject.name"], found["source"], found["reason"]) == ("p", "kubelet", "Pulled")


def test_a_namespace_begins_active_with_its_finalizer() -> None:
    obj = prepared("namespaces", named("x", ""))
    assert obj["spec"] == {"finalizers": ["kubernetes"]}
    assert obj["status"] == {"phase": "Active"}
    assert obj["metadata"]["labels"] == {"kubernetes.io/metadata.name": "x"}


def test_only_finalize_takes_a_namespaces_finalizers_away() -> None:
    strategy = KINDS.resource("namespaces").strategy
    old = prepared("namespaces", named("x", ""))
    new = thaw(old)
    new["spec"] = {}
    strategy.prepare_update(new, old, "")
    assert new["spec"] == {"finalizers": ["kubernetes"]}
    new["spec"] = {"finalizers": []}
    strategy.prepare_update(new, old, "finalize")
    assert new["spec"] == {}


def test_a_node_is_created_with_its_status() -> None:
    obj = prepared("nodes", named("n", "", status={"capacity": {"cpu": "2"}}))
    assert obj["status"] == {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}


def test_secrets_take_plain_text() -> None:
    obj = prepared("secrets", named(stringData={"a": "b"}, data={"a": "eA=="}))
    assert obj["data"] == {"a": base64.b64encode(b"b").decode()}
    assert "stringData" not in obj
    assert obj["type"] == "Opaque"


@pytest.mark.parametrize(
    ("type_", "missing"),
    [
        ("kubernetes.io/tls", ["data[tls.crt]", "data[tls.key]"]),
        ("kubernetes.io/dockerconfigjson", ["data[.dockerconfigjson]"]),
        ("kubernetes.io/ssh-auth", ["data[ssh-privatekey]"]),
        ("kubernetes.io/basic-auth", ["data[username]", "data[password]"]),
    ],
)
def test_typed_secrets_need_their_keys(type_: str, missing: list[str]) -> None:
    obj = prepared("secrets", named(type=type_))
    assert faults("secrets", obj) == [f"{name}: Required value" for name in missing]


def test_an_immutable_config_map_stays() -> None:
    old = named(immutable=True, data={"a": "b"})
    assert update_faults("configmaps", named(immutable=True, data={"a": "c"}), old) == [
        "data: Forbidden: field is immutable when `immutable` is set"
    ]
    assert update_faults("configmaps", named(data={"a": "b"}), old) == [
        "immutable: Forbidden: field is immutable when `immutable` is set"
    ]


def test_keys_and_sizes_of_a_config_map() -> None:
    assert faults("configmaps", named(data={"a": "x" * 1048577})) == [": Too long: may not be more than 1048576 bytes"]
    assert faults("configmaps", named(data={"a b": ""}))[0].startswith(
        'data[a b]: Invalid value: "a b": a valid config'
    )


def test_a_binding_fills_in_groups_and_keeps_its_role() -> None:
    resource = "rolebindings.rbac.authorization.k8s.io"
    subject = {"kind": "User", "name": "u"}
    obj = prepared(resource, named("system:x", roleRef={"kind": "Role", "name": "r"}, subjects=[subject]))
    assert obj["roleRef"]["apiGroup"] == obj["subjects"][0]["apiGroup"] == "rbac.authorization.k8s.io"
    assert faults(resource, obj) == []
    new = thaw(obj)
    new["roleRef"]["name"] = "other"
    assert update_faults(resource, new, obj)[0].endswith("cannot change roleRef")


def test_rules_need_verbs_and_resources() -> None:
    resource = "roles.rbac.authorization.k8s.io"
    assert faults(resource, named(rules=[{"apiGroups": [""], "resources": ["pods"]}])) == [
        "rules[0].verbs: Required value: verbs must contain at least one value"
    ]
    assert faults(resource, named(rules=[{"verbs": ["get"], "nonResourceURLs": ["/x"]}])) == [
        'rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs'
    ]


def test_a_review_needs_one_kind_of_attributes() -> None:
    resource = "selfsubjectaccessreviews.authorization.k8s.io"
    assert faults(resource, {"metadata": {}, "spec": {"resourceAttributes": {}}}) == []
    assert faults(resource, {"metadata": {}, "spec": {}}) == [
        "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes "
        "must be specified"
    ]


def test_a_claim_is_immutable_but_for_growing_once_bound() -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    old = prepared("persistentvolumeclaims", named(spec=spec))
    assert faults("persistentvolumeclaims", old) == []
    bigger = thaw(old)
    bigger["spec"]["resources"]["requests"]["storage"] = "2Gi"
    assert len(update_faults("persistentvolumeclaims", bigger, old)) == 1
    old["status"]["phase"] = "Bound"
    assert update_faults("persistentvolumeclaims", bigger, old) == []


def test_webhooks_get_defaults_and_a_long_name() -> None:
    resource = "validatingwebhookconfigurations.admissionregistration.k8s.io"
    webhook: Obj = {"name": "a.b.c", "clientConfig": {"url": "https://x"}, "sideEffects": "None"}
    webhook["admissionReviewVersions"] = ["v1"]
    obj = prepared(resource, named("x", "", webhooks=[webhook]))
    assert (webhook["failurePolicy"], webhook["timeoutSeconds"]) == ("Fail", 10)
    assert faults(resource, obj) == []
    webhook["name"] = "short"
    assert "three segments" in faults(resource, obj)[0]
