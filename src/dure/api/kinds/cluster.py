"""Namespace, Node, ServiceAccount, Event, Lease, ResourceQuota, LimitRange and other plain kinds of a cluster."""

from __future__ import annotations

from dure.api.fields import forbidden, invalid, required
from dure.api.kind import FieldError
from dure.api.kinds.rules import check_choice, check_quantity
from dure.api.kinds.strategy import StandardStrategy, field
from dure.api.names import cidr, dns1123_label, qualified_name
from dure.api.quantities import parse_quantity
from dure.core.json import Obj, thaw

_TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_NAME_LABEL = "kubernetes.io/metadata.name"
_NAMESPACE_FIELDS = {"status.phase": field("status", "phase")}
_NODE_FIELDS = {"spec.unschedulable": field("spec", "unschedulable", default="false")}


class NamespaceStrategy(StandardStrategy):
    """The finalizer `kubernetes` in `spec.finalizers` goes only through the subresource `finalize`."""

    name_rule = staticmethod(dns1123_label)
    has_status = True
    selectable = _NAMESPACE_FIELDS

    def default(self, obj: Obj) -> None:
        name = obj["metadata"].get("name")
        if name:
            labels = obj["metadata"].get("labels") or {}
            obj["metadata"]["labels"] = {**labels, _NAME_LABEL: name}

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        self.default(obj)
        finalizers = (obj.get("spec") or {}).get("finalizers") or []
        obj["spec"] = {"finalizers": [*(name for name in finalizers if name != "kubernetes"), "kubernetes"]}
        obj["status"] = {"phase": "Active"}

    def prepare_update(self, obj: Obj, old: Obj, subresource: str) -> None:
        if subresource == "finalize":
            finalizers = (obj.get("spec") or {}).get("finalizers")
            obj["spec"] = {"finalizers": finalizers} if finalizers else {}
            obj["status"] = thaw(old.get("status") or {})
            return
        super().prepare_update(obj, old, subresource)
        obj["spec"] = thaw(old.get("spec") or {})


class NodeStrategy(StandardStrategy):
    """A node is created together with its first status."""

    has_status = True
    selectable = _NODE_FIELDS

    def default(self, obj: Obj) -> None:
        obj.setdefault("spec", {})
        status = obj.get("status") or {}
        if status.get("capacity") and not status.get("allocatable"):
            status["allocatable"] = dict(status["capacity"])

    def prepare_create(self, obj: Obj) -> None:
        status = obj.get("status")
        super().prepare_create(obj)
        obj["status"] = status or {}

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj["spec"]
        errors = []
        seen: set[tuple[str, str]] = set()
        for index, taint in enumerate(spec.get("taints") or []):
            path, key = f"spec.taints[{index}]", taint.get("key") or ""
            errors += [invalid(f"{path}.key", key, message) for message in qualified_name(key)]
            errors += check_choice(f"{path}.effect", taint.get("effect"), _TAINT_EFFECTS)
            pair = (key, taint.get("effect") or "")
            if pair in seen:
                errors.append(invalid(f"{path}", taint, "taints must be unique by key and effect pair"))
            seen.add(pair)
        for index, network in enumerate(spec.get("podCIDRs") or []):
            errors += [invalid(f"spec.podCIDRs[{index}]", network, message) for message in cidr(network)]
        for name, amount in ((obj.get("status") or {}).get("capacity") or {}).items():
            errors += check_quantity(f"status.capacity[{name}]", amount)
        return errors

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        new, was = obj["spec"], old.get("spec") or {}
        errors = []
        if was.get("podCIDRs") and new.get("podCIDRs") != was["podCIDRs"]:
            detail = 'node updates may not change podCIDR except from "" to valid'
            errors.append(forbidden("spec.podCIDRs", detail))
        if was.get("providerID") and new.get("providerID") != was["providerID"]:
            detail = 'node updates may not change providerID except from "" to valid'
            errors.append(forbidden("spec.providerID", detail))
        return errors


class LeaseStrategy(StandardStrategy):
    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors = []
        seconds, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
        if seconds is not None and seconds <= 0:
            errors.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
        if transitions is not None and transitions < 0:
            errors.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
        if spec.get("preferredHolder") and not spec.get("strategy"):
            errors.append(forbidden("spec.preferredHolder", "may only be specified if `strategy` is defined"))
        return errors


class ResourceQuotaStrategy(StandardStrategy):
    has_status = True

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        obj["status"] = {}

    def check(self, obj: Obj) -> list[FieldError]:
        hard = (obj.get("spec") or {}).get("hard") or {}
        errors = []
        for name, amount in hard.items():
            errors += [invalid(f"spec.hard[{name}]", name, message) for message in qualified_name(name)]
            errors += check_quantity(f"spec.hard[{name}]", amount)
        return errors

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        new, was = obj.get("spec") or {}, old.get("spec") or {}
        if sorted(new.get("scopes") or []) != sorted(was.get("scopes") or []):
            return [invalid("spec.scopes", new.get("scopes"), "field is immutable")]
        return []


class LimitRangeStrategy(StandardStrategy):
    def default(self, obj: Obj) -> None:
        """For containers a default falls back to the maximum, a default request to the default or minimum."""
        for item in (obj.get("spec") or {}).get("limits") or []:
            if item.get("type") != "Container":
                continue
            default = item.setdefault("default", {})
            for name, amount in (item.get("max") or {}).items():
                default.setdefault(name, amount)
            request = item.setdefault("defaultRequest", {})
            for name, amount in default.items():
                request.setdefault(name, amount)
            for name, amount in (item.get("min") or {}).items():
                request.setdefault(name, amount)

    def check(self, obj: Obj) -> list[FieldError]:
        errors = []
        types = ("Container", "Pod", "PersistentVolumeClaim")
        for index, item in enumerate((obj.get("spec") or {}).get("limits") or []):
            path = f"spec.limits[{index}]"
            if not item.get("type"):
                errors.append(required(f"{path}.type"))
            elif item["type"] not in types and "/" not in item["type"]:
                errors += check_choice(f"{path}.type", item["type"], types)
            errors += _order(item, path)
        return errors


def _order(item: Obj, path: str) -> list[FieldError]:
    errors = []
    for name, low in (item.get("min") or {}).items():
        high = (item.get("max") or {}).get(name)
        if high is not None and parse_quantity(low) > parse_quantity(high):
            detail = f"min value {low} is greater than max value {high}"
            errors.append(invalid(f"{path}.min[{name}]", low, detail))
    return errors
