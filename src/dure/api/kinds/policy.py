"""PodDisruptionBudget, HorizontalPodAutoscaler, PriorityClass, RuntimeClass and APIService."""

from __future__ import annotations

from typing import Any

from dure.api.fields import forbidden, immutable, invalid, required
from dure.api.kind import Conversion, FieldError
from dure.api.kinds.apps import check_int_or_percent
from dure.api.kinds.rules import check_label_selector, check_name
from dure.api.kinds.strategy import StandardStrategy
from dure.api.meta import GroupVersionKind
from dure.api.names import path_segment
from dure.core.json import Obj, dumps, loads

_V1_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_V1_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
_V1_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_V1_CURRENT = "autoscaling.alpha.kubernetes.io/current-metrics"
_HIGHEST_PRIORITY = 1_000_000_000


class PodDisruptionBudgetStrategy(StandardStrategy):
    has_status = True
    has_generation = True

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        counts = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
        obj["status"] = dict.fromkeys(counts, 0)

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj.get("spec") or {}
        low, high = spec.get("minAvailable"), spec.get("maxUnavailable")
        if low is not None and high is not None:
            detail = "minAvailable and maxUnavailable cannot be both set"
            return [invalid("spec", spec, detail)]
        errors = check_label_selector(spec.get("selector"), "spec.selector")
        for name, value in (("minAvailable", low), ("maxUnavailable", high)):
            if value is not None:
                errors += check_int_or_percent(f"spec.{name}", value)
        return errors


class AutoscalerStrategy(StandardStrategy):
    """autoscaling/v2, which is what is stored."""

    has_status = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("minReplicas", 1)
        if not spec.get("metrics"):
            target = {"type": "Utilization", "averageUtilization": 80}
            spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        obj["status"] = {"currentReplicas": 0, "desiredReplicas": 0}

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj["spec"]
        low, high = spec.get("minReplicas", 1), spec.get("maxReplicas") or 0
        errors = []
        if low < 1:
            errors.append(invalid("spec.minReplicas", low, "must be greater than or equal to 1"))
        if high < 1:
            errors.append(invalid("spec.maxReplicas", high, "must be greater than 0"))
        if high < low:
            errors.append(invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`"))
        target = spec.get("scaleTargetRef") or {}
        for name in ("kind", "name"):
            errors += check_name(f"spec.scaleTargetRef.{name}", target.get(name), path_segment)
        return errors


class OldAutoscalerStrategy(AutoscalerStrategy):
    """autoscaling/v1: one figure for CPU; the rest of v2 travels in annotations."""

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("minReplicas", 1)
        if spec.get("targetCPUUtilizationPercentage") is None and _V1_METRICS not in _annotations(obj):
            spec["targetCPUUtilizationPercentage"] = 80


def _annotations(obj: Obj) -> Obj:
    return obj["metadata"].get("annotations") or {}


def _is_cpu(metric: Obj) -> bool:
    resource = metric.get("resource") or {}
    return resource.get("name") == "cpu" and "averageUtilization" in (resource.get("target") or {})


def autoscaler_to_v1(obj: Obj) -> Obj:
    spec, meta = dict(obj.get("spec") or {}), dict(obj["metadata"])
    notes = dict(_annotations(obj))
    metrics, behavior = spec.pop("metrics", None) or [], spec.pop("behavior", None)
    cpu = next((metric for metric in metrics if _is_cpu(metric)), None)
    if cpu is not None:
        spec["targetCPUUtilizationPercentage"] = cpu["resource"]["target"]["averageUtilization"]
    others = [metric for metric in metrics if metric is not cpu]
    if others:
        notes[_V1_METRICS] = dumps(others).decode()
    if behavior:
        notes[_V1_BEHAVIOR] = dumps(behavior).decode()
    status = dict(obj.get("status") or {})
    for name, note in (("conditions", _V1_CONDITIONS), ("currentMetrics", _V1_CURRENT)):
        value = status.pop(name, None)
        if value:
            notes[note] = dumps(value).decode()
    status.setdefault("currentReplicas", 0)
    if notes:
        meta["annotations"] = notes
    return {**obj, "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}


def autoscaler_from_v1(obj: Obj) -> Obj:
    spec, meta = dict(obj.get("spec") or {}), dict(obj["metadata"])
    notes = dict(_annotations(obj))
    status = dict(obj.get("status") or {})
    metrics = _note(notes, _V1_METRICS) or []
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}, *metrics]
    if metrics:
        spec["metrics"] = metrics
    for where, name, note in (
        (spec, "behavior", _V1_BEHAVIOR),
        (status, "conditions", _V1_CONDITIONS),
        (status, "currentMetrics", _V1_CURRENT),
    ):
        value = _note(notes, note)
        if value:
            where[name] = value
    status.pop("currentCPUUtilizationPercentage", None)
    meta.pop("annotations", None)
    if notes:
        meta["annotations"] = notes
    return {**obj, "apiVersion": "autoscaling/v2", "metadata": meta, "spec": spec, "status": status}


def _note(notes: dict[str, str], name: str) -> Any:
    """An annotation's JSON, taken out; nothing when a user wrote something else there."""
    text = notes.pop(name, "")
    try:
        return loads(text) if text else None
    except ValueError:
        return None


AUTOSCALER_VIEW = Conversion(
    stored=GroupVersionKind("autoscaling", "v2", "HorizontalPodAutoscaler"),
    group="autoscaling",
    plural="horizontalpodautoscalers",
    to_stored=autoscaler_from_v1,
    from_stored=autoscaler_to_v1,
)


class PriorityClassStrategy(StandardStrategy):
    has_generation = True

    def default(self, obj: Obj) -> None:
        if not obj.get("preemptionPolicy"):
            obj["preemptionPolicy"] = "PreemptLowerPriority"

    def check(self, obj: Obj) -> list[FieldError]:
        name, value = obj["metadata"].get("name") or "", obj.get("value") or 0
        if name.startswith("system-"):
            known = name in ("system-node-critical", "system-cluster-critical")
            detail = "priority class names with 'system-' prefix are reserved for system use only"
            return (
                []
                if known
                else [forbidden("metadata.name", f"{detail}. error: {name} is not a known system priority class")]
            )
        if value > _HIGHEST_PRIORITY:
            return [forbidden("value", f"maximum allowed value of a user defined priority is {_HIGHEST_PRIORITY}")]
        return []

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        errors = []
        if obj.get("value") != old.get("value"):
            errors.append(forbidden("value", "may not be changed in an update."))
        return errors + immutable("preemptionPolicy", obj.get("preemptionPolicy"), old.get("preemptionPolicy"))


class RuntimeClassStrategy(StandardStrategy):
    def check(self, obj: Obj) -> list[FieldError]:
        return [] if obj.get("handler") else [required("handler")]

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        return immutable("handler", obj.get("handler"), old.get("handler"))


class APIServiceStrategy(StandardStrategy):
    has_status = True

    def default(self, obj: Obj) -> None:
        service = (obj.get("spec") or {}).get("service")
        if service is not None:
            service.setdefault("port", 443)

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj.get("spec") or {}
        wanted = f"{spec.get('version', '')}.{spec.get('group', '')}"
        name = obj["metadata"].get("name") or ""
        if name != wanted:
            return [invalid("metadata.name", name, f'must be `spec.version+"."+spec.group`: {wanted!r}')]
        return []
