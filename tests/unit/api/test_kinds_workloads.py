"""Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob, autoscalers."""

# ruff: noqa: E501 - tables of whole messages, one a line
from __future__ import annotations

from typing import Any

import pytest

from dure.api.kinds import builtin_kinds
from dure.api.kinds.policy import autoscaler_from_v1, autoscaler_to_v1
from dure.core.json import Obj, thaw

KINDS = builtin_kinds()
_CONTAINERS = [{"name": "c", "image": "i:1"}]


def workload(resource: str, labels: Obj | None = None, pod: Obj | None = None, **spec: Any) -> Obj:
    template = {"metadata": {"labels": {"app": "web"} if labels is None else labels}}
    obj: Obj = {
        "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {**template, "spec": {"containers": thaw(_CONTAINERS), **(pod or {})}},
            **spec,
        },
    }
    return prepared(resource, obj)


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


def test_a_deployment_gets_upstreams_defaults() -> None:
    obj = workload("deployments.apps")
    spec = {name: value for name, value in obj["spec"].items() if name not in ("selector", "template")}
    assert spec == {
        "replicas": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    }
    assert obj["spec"]["template"]["spec"]["restartPolicy"] == "Always"
    assert "enableServiceLinks" not in obj["spec"]["template"]["spec"]
    assert obj["metadata"]["generation"] == 1
    assert faults("deployments.apps", obj) == []


def test_the_selector_must_match_the_template() -> None:
    obj = workload("deployments.apps", labels={"app": "other"})
    assert faults("deployments.apps", obj) == [
        'spec.template.metadata.labels: Invalid value: {"app":"other"}: `selector` does not match template `labels`'
    ]


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ({"selector": None}, "spec.selector: Required value"),
        ({"selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
        ({"strategy": {"type": "Recreate", "rollingUpdate": {}}}, "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"),
        ({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}, "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"),
        ({"progressDeadlineSeconds": 5, "minReadySeconds": 5}, "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"),
    ],
)  # fmt: skip
def test_what_users_get_wrong_in_a_deployment(spec: Obj, fault: str) -> None:
    assert faults("deployments.apps", workload("deployments.apps", **spec)) == [fault]


def test_a_deployments_pods_always_restart() -> None:
    obj = workload("deployments.apps", pod={"restartPolicy": "Never"})
    assert faults("deployments.apps", obj) == [
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'
    ]


def test_a_selector_is_immutable() -> None:
    old = workload("deployments.apps")
    new = workload("deployments.apps", selector={"matchLabels": {"app": "x"}}, labels={"app": "x"})
    assert update_faults("deployments.apps", new, old) == [
        'spec.selector: Invalid value: {"matchLabels":{"app":"x"}}: field is immutable'
    ]


def test_generations_count_changes_of_the_spec_only() -> None:
    strategy = KINDS.resource("deployments.apps").strategy
    old = workload("deployments.apps")
    new = thaw(old)
    new["metadata"]["labels"] = {"a": "b"}
    new["status"] = {"replicas": 9}
    strategy.prepare_update(new, old, "")
    assert new["metadata"]["generation"] == 1
    assert new["status"] == old["status"]
    new["spec"]["replicas"] = 4
    strategy.prepare_update(new, old, "")
    assert new["metadata"]["generation"] == 2


def test_the_status_endpoint_changes_status_only() -> None:
    strategy = KINDS.resource("deployments.apps").strategy
    old = workload("deployments.apps")
    new = thaw(old)
    new["spec"]["replicas"] = 7
    new["status"] = {"replicas": 9}
    strategy.prepare_update(new, old, "status")
    assert (new["spec"]["replicas"], new["status"], new["metadata"]["generation"]) == (1, {"replicas": 9}, 1)


def test_a_stateful_set_may_mount_its_claims() -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    mount = {"name": "data", "mountPath": "/data"}
    containers = [{"name": "c", "image": "i", "volumeMounts": [mount]}]
    obj = workload("statefulsets.apps", pod={"containers": containers}, volumeClaimTemplates=[claim], serviceName="x")
    assert faults("statefulsets.apps", obj) == []
    new = thaw(obj)
    new["spec"]["serviceName"] = "y"
    assert update_faults("statefulsets.apps", new, obj)[0].startswith(
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template'"
    )


def test_a_daemon_set_replaces_one_pod_at_a_time() -> None:
    obj = workload("daemonsets.apps")
    assert obj["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    assert "replicas" not in obj["spec"]


def job(pod: Obj | None = None, **spec: Any) -> Obj:
    template = {"spec": {"containers": thaw(_CONTAINERS), "restartPolicy": "Never", **(pod or {})}}
    obj: Obj = {
        "metadata": {"name": "j", "namespace": "default", "uid": "u1"},
        "spec": {"template": template, **spec},
    }
    return prepared("jobs.batch", obj)


def test_a_job_gets_defaults_and_a_selector_of_its_own() -> None:
    obj = job()
    labels = {
        "controller-uid": "u1",
        "job-name": "j",
        "batch.kubernetes.io/controller-uid": "u1",
        "batch.kubernetes.io/job-name": "j",
    }
    assert obj["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}}
    assert obj["spec"]["template"]["metadata"]["labels"] == labels
    assert obj["metadata"]["labels"] == labels
    rest = {name: value for name, value in obj["spec"].items() if name not in ("selector", "template")}
    assert rest == {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "podReplacementPolicy": "TerminatingOrFailed",
    }
    assert faults("jobs.batch", obj) == []


def test_a_work_queue_job_has_no_completions() -> None:
    assert "completions" not in job(parallelism=3)["spec"]


def test_a_jobs_pods_must_be_able_to_end() -> None:
    assert faults("jobs.batch", job(pod={"restartPolicy": "Always"})) == [
        'spec.template.spec.restartPolicy: Unsupported value: "Always": supported values: "Never", "OnFailure"'
    ]


def test_a_jobs_template_is_immutable_but_its_parallelism_not() -> None:
    old = job()
    new = thaw(old)
    new["spec"]["parallelism"] = 5
    assert update_faults("jobs.batch", new, old) == []
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "x"
    assert [text.partition(":")[0] for text in update_faults("jobs.batch", new, old)] == ["spec.template"]


def cron_job(**spec: Any) -> Obj:
    template = {"spec": {"template": {"spec": {"containers": thaw(_CONTAINERS), "restartPolicy": "OnFailure"}}}}
    metadata = {"name": "c", "namespace": "default"}
    return prepared("cronjobs.batch", {"metadata": metadata, "spec": {"jobTemplate": template, **spec}})


@pytest.mark.parametrize("schedule", ["* * * * *", "*/5 0-3 1,15 jan-mar mon", "@hourly", "@every 1h30m"])
def test_good_schedules(schedule: str) -> None:
    assert faults("cronjobs.batch", cron_job(schedule=schedule)) == []


@pytest.mark.parametrize(
    ("schedule", "fault"),
    [
        ("", "spec.schedule: Required value"),
        ("* *", 'spec.schedule: Invalid value: "* *": expected exactly 5 fields, found 2: [* *]'),
        ("61 * * * *", 'spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61'),
        ("x * * * *", 'spec.schedule: Invalid value: "x * * * *": failed to parse int from x: x'),
    ],
)
def test_bad_schedules(schedule: str, fault: str) -> None:
    assert faults("cronjobs.batch", cron_job(schedule=schedule)) == [fault]


def test_an_autoscaler_looks_the_same_after_a_round_trip() -> None:
    obj = {
        "apiVersion": "autoscaling/v1",
        "metadata": {"name": "a", "annotations": {"x": "y"}},
        "spec": {"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50},
        "status": {"currentReplicas": 0, "desiredReplicas": 0},
    }
    newer = autoscaler_from_v1(obj)
    target = {"type": "Utilization", "averageUtilization": 50}
    assert newer["spec"]["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    assert autoscaler_to_v1(newer) == obj
