"""Deployment, ReplicaSet, StatefulSet, DaemonSet, ControllerRevision, ReplicationController, PodTemplate."""

from __future__ import annotations

from typing import Any

from dure.api.fields import forbidden, immutable, invalid, not_supported, required
from dure.api.kind import FieldError
from dure.api.kinds.podrules import validate_template
from dure.api.kinds.podspec import default_template
from dure.api.kinds.rules import check_choice, check_label_selector, check_not_negative
from dure.api.kinds.strategy import StandardStrategy, field
from dure.api.meta import labels_of
from dure.api.objectmeta import validate_labels
from dure.api.selectors import from_label_selector
from dure.core.json import Obj, thaw

_REPLICA_FIELDS = {"status.replicas": field("status", "replicas", default="0")}
_STATEFUL_CHANGEABLE = (
    "'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', "
    "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds'"
)


def default_rolling(rolling: Obj, **defaults: Any) -> None:
    for name, value in defaults.items():
        rolling.setdefault(name, value)


def check_int_or_percent(path: str, value: Any) -> list[FieldError]:
    """Not negative, or a percentage."""
    if isinstance(value, str):
        if value.endswith("%") and value[:-1].isdigit():
            return []
        detail = "a valid percent string must be a numeric string followed by an ending '%'"
        return [invalid(path, value, f"{detail} (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')")]
    return check_not_negative(path, value)


class WorkloadStrategy(StandardStrategy):
    """A spec with replicas, a selector and a template that the selector must match."""

    has_status = True
    has_generation = True
    selector_is_immutable = True
    restart_policies: tuple[str, ...] = ("Always",)

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        default_template(spec)
        self.default_spec(spec)

    def default_spec(self, spec: Obj) -> None:
        spec.setdefault("replicas", 1)

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        obj["status"] = {}

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj["spec"]
        errors = check_not_negative("spec.replicas", spec.get("replicas"))
        errors += check_not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
        errors += check_not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
        errors += self.check_selector(spec)
        errors += self.check_template(spec["template"], "spec.template")
        return errors + self.check_strategy(spec)

    def check_selector(self, spec: Obj) -> list[FieldError]:
        selector = spec.get("selector")
        if selector is None:
            return [required("spec.selector")]
        errors = check_label_selector(selector, "spec.selector")
        if not (selector.get("matchLabels") or selector.get("matchExpressions")):
            errors.append(invalid("spec.selector", selector, "empty selector is invalid for deployment"))
        if errors:
            return errors
        labels = (spec["template"].get("metadata") or {}).get("labels") or {}
        parsed = from_label_selector(selector)
        if parsed is not None and not parsed.matches(labels):
            return [invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")]
        return []

    def check_template(self, template: Obj, path: str) -> list[FieldError]:
        errors = validate_template(template, path)
        policy = (template.get("spec") or {}).get("restartPolicy")
        if policy and policy not in self.restart_policies:
            errors.append(not_supported(f"{path}.spec.restartPolicy", policy, self.restart_policies))
        if (template.get("spec") or {}).get("activeDeadlineSeconds") is not None:
            detail = "activeDeadlineSeconds in ReplicaSet is not Supported"
            errors.append(forbidden(f"{path}.spec.activeDeadlineSeconds", detail))
        return errors

    def check_strategy(self, spec: Obj) -> list[FieldError]:
        return []

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        if subresource or not self.selector_is_immutable:
            return []
        return immutable("spec.selector", obj["spec"].get("selector"), old["spec"].get("selector"))


class DeploymentStrategy(WorkloadStrategy):
    def default_spec(self, spec: Obj) -> None:
        super().default_spec(spec)
        strategy = spec.setdefault("strategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            default_rolling(strategy.setdefault("rollingUpdate", {}), maxUnavailable="25%", maxSurge="25%")
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)

    def check_strategy(self, spec: Obj) -> list[FieldError]:
        strategy, path = spec["strategy"], "spec.strategy"
        errors = check_choice(f"{path}.type", strategy.get("type"), ("Recreate", "RollingUpdate"))
        rolling = strategy.get("rollingUpdate")
        if strategy.get("type") == "Recreate" and rolling is not None:
            detail = "may not be specified when strategy `type` is 'Recreate'"
            errors.append(forbidden(f"{path}.rollingUpdate", detail))
        elif rolling is not None:
            errors += _rolling(rolling, f"{path}.rollingUpdate")
        deadline, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds") or 0
        errors += check_not_negative("spec.progressDeadlineSeconds", deadline)
        if deadline is not None and deadline <= ready:
            errors.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
        return errors


def _rolling(rolling: Obj, path: str) -> list[FieldError]:
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    errors = check_int_or_percent(f"{path}.maxUnavailable", unavailable)
    errors += check_int_or_percent(f"{path}.maxSurge", surge)
    if unavailable in (0, "0%") and surge in (0, "0%"):
        errors.append(invalid(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    elif isinstance(unavailable, str) and unavailable[:-1].isdigit() and int(unavailable[:-1]) > 100:
        errors.append(invalid(f"{path}.maxUnavailable", unavailable, "must not be greater than 100%"))
    return errors


class ReplicaSetStrategy(WorkloadStrategy):
    selectable = _REPLICA_FIELDS

    def default(self, obj: Obj) -> None:
        super().default(obj)
        labels = (obj["spec"]["template"].get("metadata") or {}).get("labels")
        if labels and not labels_of(obj):
            obj["metadata"]["labels"] = dict(labels)

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        obj["status"] = {"replicas": 0}


class StatefulSetStrategy(WorkloadStrategy):
    def default_spec(self, spec: Obj) -> None:
        super().default_spec(spec)
        spec.setdefault("podManagementPolicy", "OrderedReady")
        strategy = spec.setdefault("updateStrategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            default_rolling(strategy.setdefault("rollingUpdate", {}), partition=0)
        retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
        default_rolling(retention, whenDeleted="Retain", whenScaled="Retain")
        spec.setdefault("revisionHistoryLimit", 10)
        for claim in spec.get("volumeClaimTemplates") or []:
            claim.setdefault("apiVersion", "v1")
            claim.setdefault("kind", "PersistentVolumeClaim")
            claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
            claim.setdefault("status", {"phase": "Pending"})

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        obj["status"] = {"replicas": 0, "availableReplicas": 0}

    def check_template(self, template: Obj, path: str) -> list[FieldError]:
        """Mounts may name a claim template, which is not among the template's volumes."""
        return super().check_template(template, path)

    def check(self, obj: Obj) -> list[FieldError]:
        claims = [claim["metadata"]["name"] for claim in obj["spec"].get("volumeClaimTemplates") or []]
        if not claims:
            return super().check(obj)
        merged = thaw(obj)
        volumes = merged["spec"]["template"]["spec"].setdefault("volumes", [])
        have = {volume.get("name") for volume in volumes}
        volumes += [{"name": name, "emptyDir": {}} for name in claims if name not in have]
        return super().check(merged)

    def check_strategy(self, spec: Obj) -> list[FieldError]:
        policies = ("OrderedReady", "Parallel")
        errors = check_choice("spec.podManagementPolicy", spec.get("podManagementPolicy"), policies)
        kinds = ("RollingUpdate", "OnDelete")
        errors += check_choice("spec.updateStrategy.type", spec["updateStrategy"].get("type"), kinds)
        partition = (spec["updateStrategy"].get("rollingUpdate") or {}).get("partition")
        return errors + check_not_negative("spec.updateStrategy.rollingUpdate.partition", partition)

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        if subresource:
            return []
        changeable = (
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        )
        new = {name: value for name, value in obj["spec"].items() if name not in changeable}
        was = {name: value for name, value in old["spec"].items() if name not in changeable}
        if new == was:
            return []
        detail = f"updates to statefulset spec for fields other than {_STATEFUL_CHANGEABLE} are forbidden"
        return [forbidden("spec", detail)]


class DaemonSetStrategy(WorkloadStrategy):
    def default_spec(self, spec: Obj) -> None:
        strategy = spec.setdefault("updateStrategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            default_rolling(strategy.setdefault("rollingUpdate", {}), maxUnavailable=1, maxSurge=0)
        spec.setdefault("revisionHistoryLimit", 10)

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        counts = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
        obj["status"] = dict.fromkeys(counts, 0)

    def check_strategy(self, spec: Obj) -> list[FieldError]:
        kinds = ("RollingUpdate", "OnDelete")
        return check_choice("spec.updateStrategy.type", spec["updateStrategy"].get("type"), kinds)


class ControllerRevisionStrategy(StandardStrategy):
    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        return immutable("data", obj.get("data"), old.get("data"))


class ReplicationControllerStrategy(WorkloadStrategy):
    """The selector is a plain map and may change."""

    selectable = _REPLICA_FIELDS
    selector_is_immutable = False

    def default(self, obj: Obj) -> None:
        super().default(obj)
        spec = obj["spec"]
        labels = (spec["template"].get("metadata") or {}).get("labels")
        if labels:
            if not spec.get("selector"):
                spec["selector"] = dict(labels)
            if not labels_of(obj):
                obj["metadata"]["labels"] = dict(labels)

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        obj["status"] = {"replicas": 0}

    def check_selector(self, spec: Obj) -> list[FieldError]:
        selector = spec.get("selector") or {}
        if not selector:
            return [required("spec.selector")]
        labels = (spec["template"].get("metadata") or {}).get("labels") or {}
        errors = validate_labels(selector, "spec.selector")
        if not errors and any(labels.get(key) != value for key, value in selector.items()):
            detail = "`selector` does not match template `labels`"
            errors.append(invalid("spec.template.metadata.labels", labels, detail))
        return errors


class PodTemplateStrategy(StandardStrategy):
    def default(self, obj: Obj) -> None:
        default_template(obj)

    def check(self, obj: Obj) -> list[FieldError]:
        return validate_template(obj["template"], "template")
