"""Pod: defaults, quality of service, what may change after creation, and its subresources."""

from __future__ import annotations

from typing import Any

from dure.api.fields import forbidden, invalid
from dure.api.kind import FieldError
from dure.api.kinds.podrules import validate_pod_spec
from dure.api.kinds.podspec import default_pod_spec, default_running_spec
from dure.api.kinds.strategy import StandardStrategy, field
from dure.api.quantities import parse_quantity
from dure.core.json import Obj, thaw

_EVICTION_SECONDS = 300
_AUTOMATIC_TOLERATIONS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_CHANGEABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
    "(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
    "previously negative)"
)

_FIELDS = {
    "spec.nodeName": field("spec", "nodeName"),
    "spec.restartPolicy": field("spec", "restartPolicy"),
    "spec.schedulerName": field("spec", "schedulerName"),
    "spec.serviceAccountName": field("spec", "serviceAccountName"),
    "spec.hostNetwork": field("spec", "hostNetwork", default="false"),
    "status.phase": field("status", "phase"),
    "status.podIP": field("status", "podIP"),
    "status.nominatedNodeName": field("status", "nominatedNodeName"),
}


class PodStrategy(StandardStrategy):
    """`resize` may change resources, `ephemeralcontainers` may add such, everything else is nearly frozen."""

    has_status = True
    has_generation = True
    selectable = _FIELDS

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        default_pod_spec(spec)
        default_running_spec(spec)

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        spec = obj["spec"]
        if not spec.get("serviceAccountName"):
            spec["serviceAccountName"] = spec["serviceAccount"] = "default"
        spec.setdefault("priority", _SYSTEM_PRIORITIES.get(spec.get("priorityClassName") or "", 0))
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
        _add_tolerations(spec)
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}

    def prepare_update(self, obj: Obj, old: Obj, subresource: str) -> None:
        if subresource in ("ephemeralcontainers", "resize"):
            wanted = obj.get("spec") or {}
            obj["spec"] = thaw(old["spec"])
            _take_subresource(obj["spec"], wanted, subresource)
            obj["status"] = thaw(old.get("status") or {})
            self._count(obj, old)
            return
        super().prepare_update(obj, old, subresource)
        quality = (old.get("status") or {}).get("qosClass")
        if subresource == "status" and quality:
            obj.setdefault("status", {})["qosClass"] = quality

    def check(self, obj: Obj) -> list[FieldError]:
        return validate_pod_spec(obj["spec"], "spec")

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        if subresource == "ephemeralcontainers":
            return _ephemeral_update(obj["spec"], old["spec"])
        if subresource == "resize":
            return _resize(obj["spec"], old["spec"])
        if subresource:
            return []
        return _validate_spec_update(obj["spec"], old["spec"])


def _add_tolerations(spec: Obj) -> None:
    """A pod stays five minutes on a node that is lost, unless it says otherwise."""
    tolerations = list(spec.get("tolerations") or [])
    for key in _AUTOMATIC_TOLERATIONS:
        covered = any(
            item.get("key", "") in ("", key) and item.get("effect", "") in ("", "NoExecute")
            for item in tolerations
            if item.get("key") or item.get("operator") == "Exists"
        )
        if not covered:
            toleration = {"key": key, "operator": "Exists", "effect": "NoExecute"}
            tolerations.append({**toleration, "tolerationSeconds": _EVICTION_SECONDS})
    spec["tolerations"] = tolerations


def _take_subresource(spec: Obj, wanted: Obj, subresource: str) -> None:
    if subresource == "ephemeralcontainers":
        if "ephemeralContainers" in wanted:
            spec["ephemeralContainers"] = wanted["ephemeralContainers"]
        return
    for group in ("containers", "initContainers"):
        by_name = {item.get("name"): item for item in wanted.get(group) or []}
        for container in spec.get(group) or []:
            new = by_name.get(container["name"]) or container
            for key in ("resources", "resizePolicy"):
                if key in new:
                    container[key] = new[key]


def _ephemeral_update(spec: Obj, old: Obj) -> list[FieldError]:
    """They may be added, never taken away or changed."""
    now = {item.get("name"): item for item in spec.get("ephemeralContainers") or []}
    path = "spec.ephemeralContainers"
    errors = []
    for item in old.get("ephemeralContainers") or []:
        name = item["name"]
        if name not in now:
            errors.append(forbidden(path, f'existing ephemeral containers "{name}" may not be removed'))
        elif now[name] != item:
            errors.append(forbidden(path, f'existing ephemeral containers "{name}" may not be changed'))
    return errors


def _resize(spec: Obj, old: Obj) -> list[FieldError]:
    if qos_class(spec) == qos_class(old):
        return []
    return [invalid("spec", qos_class(spec), "Pod QOS Class may not change as a result of resizing")]


def qos_class(spec: Obj) -> str:
    """BestEffort without any cpu or memory, Guaranteed when every limit equals its request, else Burstable."""
    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    guaranteed = True
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        resources = container.get("resources") or {}
        asked = _counted(resources.get("requests"))
        bound = _counted(resources.get("limits"))
        requests |= asked
        limits |= bound
        if set(bound) != {"cpu", "memory"} or any(asked.get(name, bound[name]) != bound[name] for name in bound):
            guaranteed = False
    if not requests and not limits:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _counted(amounts: Obj | None) -> dict[str, Any]:
    found = {name: parse_quantity((amounts or {}).get(name) or 0) for name in ("cpu", "memory")}
    return {name: amount for name, amount in found.items() if amount > 0}


def _validate_spec_update(spec: Obj, old: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    errors += _deadline(spec, old)
    masked, before = thaw(spec), thaw(old)
    for group in ("containers", "initContainers"):
        for new, was in zip(masked.get(group) or [], before.get(group) or [], strict=False):
            new["image"] = was.get("image")
    masked["activeDeadlineSeconds"] = before.get("activeDeadlineSeconds")
    if before.get("activeDeadlineSeconds") is None:
        masked.pop("activeDeadlineSeconds")
    kept = [item in (spec.get("tolerations") or []) for item in old.get("tolerations") or []]
    if all(kept):
        masked.pop("tolerations", None)
        before.pop("tolerations", None)
    if (before.get("terminationGracePeriodSeconds") or 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        masked["terminationGracePeriodSeconds"] = before["terminationGracePeriodSeconds"]
    if before.get("schedulingGates"):
        _allow_gated_changes(masked, before)
    if masked != before:
        errors.append(forbidden("spec", f"pod updates may not change fields other than {_CHANGEABLE}"))
    return errors


def _allow_gated_changes(spec: Obj, old: Obj) -> None:
    """While it is gated, a pod may lose gates and gain node constraints."""
    for name in ("schedulingGates", "nodeSelector", "affinity"):
        for side in (spec, old):
            side.pop(name, None)


def _deadline(spec: Obj, old: Obj) -> list[FieldError]:
    new, was = spec.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds")
    path = "spec.activeDeadlineSeconds"
    if new is None:
        return [] if was is None else [invalid(path, None, "must not update from a positive integer to nil value")]
    if was is not None and new > was:
        return [invalid(path, new, "must be less than or equal to previous value")]
    return []
