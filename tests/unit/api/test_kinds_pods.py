"""Pod: defaults, quality of service, what users get wrong, what may change."""

# ruff: noqa: E501 - tables of whole messages, one a line
from __future__ import annotations

from typing import Any

import pytest

from dure.api.kinds import builtin_kinds
from dure.api.kinds.pods import qos_class
from dure.api.kinds.podspec import image_pull_policy
from dure.core.json import Obj, thaw

POD = builtin_kinds().resource("pods")


def pod(*containers: Obj, **spec: Any) -> Obj:
    """As stored: defaulted and prepared."""
    obj: Obj = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {"containers": list(containers) or [{"name": "c", "image": "i:1"}], **spec},
    }
    POD.strategy.default(obj)
    POD.strategy.prepare_create(obj)
    return obj


def faults(obj: Obj) -> list[str]:
    return [f"{error.field}: {error.message}" for error in POD.strategy.validate(obj)]


def test_a_minimal_pod_gets_upstreams_defaults() -> None:
    obj = pod({"name": "nginx", "image": "nginx:1.7.9", "ports": [{"containerPort": 8090}]})
    spec = obj["spec"]
    assert spec.pop("containers") == [
        {
            "name": "nginx",
            "image": "nginx:1.7.9",
            "ports": [{"containerPort": 8090, "protocol": "TCP"}],
            "resources": {},
            "imagePullPolicy": "IfNotPresent",
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
        }
    ]
    tolerations = spec.pop("tolerations")
    assert [(item["key"], item["tolerationSeconds"]) for item in tolerations] == [
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 300),
    ]
    assert spec == {
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "terminationGracePeriodSeconds": 30,
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "enableServiceLinks": True,
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
    }
    assert obj["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert obj["metadata"]["generation"] == 1


def test_a_minimal_pod_is_valid() -> None:
    assert faults(pod()) == []


def test_defaulting_twice_changes_nothing() -> None:
    obj = pod({"name": "c", "image": "i", "livenessProbe": {"httpGet": {"port": 80}}}, volumes=[{"name": "v"}])
    again = thaw(obj)
    POD.strategy.default(again)
    assert again == obj


def test_probes_and_volumes_get_defaults() -> None:
    obj = pod(
        {"name": "c", "image": "i", "livenessProbe": {"httpGet": {"port": 80}}},
        volumes=[{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}],
    )
    assert obj["spec"]["containers"][0]["livenessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert obj["spec"]["volumes"] == [
        {"name": "v", "emptyDir": {}},
        {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}},
    ]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("host:5000/nginx", "Always"),
        ("host:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:00", "IfNotPresent"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert image_pull_policy(image) == policy


def test_a_limit_is_a_request_too() -> None:
    obj = pod({"name": "c", "image": "i", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}})
    assert obj["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    assert obj["status"]["qosClass"] == "Guaranteed"


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}, "Guaranteed"),
        ({"requests": {"ephemeral-storage": "1Gi"}}, "BestEffort"),
    ],
)
def test_quality_of_service(resources: Obj, quality: str) -> None:
    assert qos_class({"containers": [{"resources": resources}]}) == quality


@pytest.mark.parametrize(
    ("container", "fault"),
    [
        ({"name": "c"}, "image: Required value"),
        ({"image": "i"}, "name: Required value"),
        ({"name": "c", "image": " i"}, 'image: Invalid value: " i": must not have leading or trailing whitespace'),
        ({"name": "c", "image": "i", "imagePullPolicy": "Sometimes"}, 'imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"'),
        ({"name": "c", "image": "i", "ports": [{"containerPort": 70000}]}, "ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"),
        ({"name": "c", "image": "i", "ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}, 'ports[1].name: Duplicate value: "a"'),
        ({"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}, 'volumeMounts[0].name: Not found: "v"'),
        ({"name": "c", "image": "i", "env": [{"name": "A=B", "value": "x"}]}, 'env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable ASCII characters other than \'=\''),
        ({"name": "c", "image": "i", "env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}, 'env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty'),
        ({"name": "c", "image": "i", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.foo"}}}]}, 'env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.foo": error converting fieldPath: field label not supported: spec.foo'),
        ({"name": "c", "image": "i", "livenessProbe": {}}, "livenessProbe: Required value: must specify a handler type"),
        ({"name": "c", "image": "i", "livenessProbe": {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}}, "livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"),
        ({"name": "c", "image": "i", "livenessProbe": {"exec": {"command": ["a"]}, "successThreshold": 2}}, "livenessProbe.successThreshold: Invalid value: 2: must be 1"),
        ({"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}, 'resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'),
        ({"name": "c", "image": "i", "resources": {"limits": {"cpu": "-1"}}}, 'resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0'),
    ],
)  # fmt: skip
def test_what_users_get_wrong_in_a_container(container: Obj, fault: str) -> None:
    assert f"spec.containers[0].{fault}" in faults(pod(container))


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"restartPolicy": "Sometimes"}, 'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"'),
        ({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]}, 'spec.volumes[1].name: Duplicate value: "v"'),
        ({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]}, "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"),
        ({"volumes": [{"name": "v", "configMap": {}}]}, "spec.volumes[0].configMap.name: Required value"),
        ({"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"),
        ({"initContainers": [{"name": "c", "image": "i"}]}, 'spec.initContainers[0].name: Duplicate value: "c"'),
        ({"initContainers": [{"name": "d", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]}, "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "spec.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'"),
        ({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "z"}]}, "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"),
        ({"dnsPolicy": "None"}, 'spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is "None"'),
    ],
)  # fmt: skip
def test_what_users_get_wrong_in_a_spec(spec: Obj, fault: str) -> None:
    assert fault in faults(pod(**spec))


def test_no_containers() -> None:
    obj = pod()
    obj["spec"]["containers"] = []
    assert faults(obj) == ["spec.containers: Required value"]


def updated(old: Obj, subresource: str = "", **changes: Any) -> tuple[Obj, list[str]]:
    new = thaw(old)
    new["spec"].update(changes)
    POD.strategy.prepare_update(new, old, subresource)
    errors = POD.strategy.validate_update(new, old, subresource)
    return new, [f"{error.field}: {error.message}" for error in errors]


def test_an_image_may_change_and_counts_as_a_generation() -> None:
    new, errors = updated(pod(), containers=[{**pod()["spec"]["containers"][0], "image": "i:2"}])
    assert errors == []
    assert new["metadata"]["generation"] == 2


def test_anything_else_may_not() -> None:
    _, errors = updated(pod(), restartPolicy="Never")
    assert len(errors) == 1
    assert errors[0].startswith(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"
    )


def test_tolerations_may_only_be_added() -> None:
    old = pod()
    more = [*old["spec"]["tolerations"], {"key": "a", "operator": "Exists"}]
    assert updated(old, tolerations=more)[1] == []
    assert updated(old, tolerations=[])[1] != []


def test_a_deadline_may_only_shrink() -> None:
    old = pod(activeDeadlineSeconds=10)
    assert updated(old, activeDeadlineSeconds=5)[1] == []
    assert updated(old, activeDeadlineSeconds=11)[1] == [
        "spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"
    ]


def test_the_status_endpoint_keeps_the_spec_and_the_class() -> None:
    old = pod()
    new = thaw(old)
    new["spec"]["nodeName"] = "n"
    new["status"] = {"phase": "Running"}
    POD.strategy.prepare_update(new, old, "status")
    assert new["spec"] == old["spec"]
    assert new["status"] == {"phase": "Running", "qosClass": "BestEffort"}
    assert new["metadata"]["generation"] == 1


def test_the_resize_endpoint_changes_resources_only() -> None:
    old = pod()
    new = thaw(old)
    new["spec"]["containers"][0].update(image="other", resources={"limits": {"cpu": "2"}})
    POD.strategy.prepare_update(new, old, "resize")
    container = new["spec"]["containers"][0]
    assert (container["image"], container["resources"]) == ("i:1", {"limits": {"cpu": "2"}})
    assert new["metadata"]["generation"] == 2


def test_a_resize_keeps_the_class() -> None:
    old = pod()
    new = thaw(old)
    new["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "2"}}
    assert [error.field for error in POD.strategy.validate_update(new, old, "resize")] == ["spec"]


def test_ephemeral_containers_may_only_be_added() -> None:
    one, two = ({"name": name, "image": "i"} for name in ("d1", "d2"))
    old = pod(ephemeralContainers=[one])
    more = thaw(old)
    more["spec"]["ephemeralContainers"].append(two)
    assert POD.strategy.validate_update(more, old, "ephemeralcontainers") == []
    assert len(POD.strategy.validate_update(pod(), old, "ephemeralcontainers")) == 1


def test_fields_that_can_be_selected() -> None:
    obj = pod(nodeName="n1")
    assert POD.strategy.selectable_fields(obj)["spec.nodeName"] == "n1"
    assert POD.strategy.selectable_fields(obj)["status.phase"] == "Pending"
    assert "spec.restartPolicy" in POD.strategy.field_labels
