"""PersistentVolume, PersistentVolumeClaim, StorageClass and the CSI kinds with defaults of their own."""

from __future__ import annotations

from dure.api.fields import forbidden, immutable, invalid, not_supported, required
from dure.api.kind import FieldError
from dure.api.kinds.rules import check_choice, check_quantity
from dure.api.kinds.strategy import StandardStrategy
from dure.api.quantities import parse_quantity
from dure.core.json import Obj

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_NOT_SOURCES = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)


def _access_modes(modes: list[str], path: str) -> list[FieldError]:
    if not modes:
        return [required(path, "at least 1 access mode is required")]
    errors = [not_supported(path, mode, ACCESS_MODES) for mode in modes if mode not in ACCESS_MODES]
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        errors.append(forbidden(path, "may not use ReadWriteOncePod with other access modes"))
    return errors


class PersistentVolumeStrategy(StandardStrategy):
    has_status = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("persistentVolumeReclaimPolicy"):
            spec["persistentVolumeReclaimPolicy"] = "Retain"
        spec.setdefault("volumeMode", "Filesystem")
        if (host := spec.get("hostPath")) is not None:
            host.setdefault("type", "")

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        obj["status"] = {"phase": "Pending"}

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj["spec"]
        errors = _access_modes(spec.get("accessModes") or [], "spec.accessModes")
        if not spec.get("capacity"):
            errors.append(required("spec.capacity"))
        elif "storage" not in spec["capacity"] or len(spec["capacity"]) > 1:
            errors.append(not_supported("spec.capacity", sorted(spec["capacity"]), ["storage"]))
        policies = ("Delete", "Recycle", "Retain")
        path = "spec.persistentVolumeReclaimPolicy"
        errors += check_choice(path, spec.get("persistentVolumeReclaimPolicy"), policies)
        errors += check_choice("spec.volumeMode", spec.get("volumeMode"), ("Block", "Filesystem"))
        sources = [name for name in spec if name not in _NOT_SOURCES]
        if not sources:
            errors.append(required("spec", "must specify a volume type"))
        errors += [forbidden(f"spec.{name}", "may not specify more than 1 volume type") for name in sources[1:]]
        return errors

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        new, was = obj["spec"], old["spec"]
        changed = [name for name in {*new, *was} - _NOT_SOURCES if new.get(name) != was.get(name)]
        if changed:
            return [forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation")]
        return immutable("spec.volumeMode", new.get("volumeMode"), was.get("volumeMode"))


class PersistentVolumeClaimStrategy(StandardStrategy):
    has_status = True

    def default(self, obj: Obj) -> None:
        obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        obj["status"] = {"phase": "Pending"}

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj["spec"]
        errors = _access_modes(spec.get("accessModes") or [], "spec.accessModes")
        requests = (spec.get("resources") or {}).get("requests") or {}
        if "storage" not in requests:
            errors.append(required("spec.resources[storage]"))
        else:
            errors += check_quantity("spec.resources[storage]", requests["storage"])
            if parse_quantity(requests["storage"]) == 0:
                errors.append(invalid("spec.resources[storage]", requests["storage"], "must be greater than zero"))
        return errors + check_choice("spec.volumeMode", spec.get("volumeMode"), ("Block", "Filesystem"))

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        """A claim may be bound, given a class when it had none, and grown once bound."""
        if subresource:
            return []
        new, was = dict(obj["spec"]), dict(old["spec"])
        for name in ("volumeName", "storageClassName"):
            if not was.get(name):
                new.pop(name, None)
                was.pop(name, None)
        sizes = [_storage(spec) for spec in (new, was)]
        bound = (old.get("status") or {}).get("phase") == "Bound"
        for spec in (new, was):
            spec.pop("volumeAttributesClassName", None)
            if bound:
                spec.pop("resources", None)
        if new != was:
            changeable = "resources.requests and volumeAttributesClassName for bound claims"
            return [forbidden("spec", f"spec is immutable after creation except {changeable}")]
        if bound and sizes[0] < sizes[1]:
            detail = "field can not be less than status.capacity"
            return [forbidden("spec.resources.requests.storage", detail)]
        return []


def _storage(spec: Obj) -> float:
    requests = (spec.get("resources") or {}).get("requests") or {}
    return float(parse_quantity(requests.get("storage") or 0))


class StorageClassStrategy(StandardStrategy):
    def default(self, obj: Obj) -> None:
        if not obj.get("reclaimPolicy"):
            obj["reclaimPolicy"] = "Delete"
        if not obj.get("volumeBindingMode"):
            obj["volumeBindingMode"] = "Immediate"

    def check(self, obj: Obj) -> list[FieldError]:
        errors = [] if obj.get("provisioner") else [required("provisioner")]
        errors += check_choice("reclaimPolicy", obj.get("reclaimPolicy"), ("Delete", "Retain"))
        modes = ("Immediate", "WaitForFirstConsumer")
        return errors + check_choice("volumeBindingMode", obj.get("volumeBindingMode"), modes)

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        errors = []
        for name in ("parameters", "provisioner"):
            if obj.get(name) != old.get(name):
                errors.append(forbidden(name, f"updates to {name} are forbidden."))
        for name in ("reclaimPolicy", "volumeBindingMode"):
            errors += immutable(name, obj.get(name), old.get(name))
        return errors


class CSIDriverStrategy(StandardStrategy):
    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        for name, value in (
            ("attachRequired", True),
            ("podInfoOnMount", False),
            ("storageCapacity", False),
            ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
            ("volumeLifecycleModes", ["Persistent"]),
            ("requiresRepublish", False),
            ("seLinuxMount", False),
        ):
            spec.setdefault(name, value)
