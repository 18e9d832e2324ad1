"""Rules of `metadata` that hold for every kind (`apimachinery/pkg/api/validation/objectmeta.go`)."""

from __future__ import annotations

from typing import Any

from dure.api.fields import forbidden, immutable, invalid, required, too_long
from dure.api.kind import FieldError
from dure.api.names import NameRule, as_prefix, dns1123_label, label_value, qualified_name
from dure.core.json import Obj

ANNOTATIONS_LIMIT = 256 * 1024
_STANDARD_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
_IMMUTABLE = ("name", "namespace", "uid", "creationTimestamp")


def validate_object_meta(obj: Obj, *, namespaced: bool, name_rule: NameRule) -> list[FieldError]:
    """Names, labels, annotations, owners and finalizers of an object about to be stored."""
    meta = obj["metadata"]
    return [
        *_names(meta, name_rule),
        *_namespace(meta, namespaced),
        *validate_labels(meta.get("labels"), "metadata.labels"),
        *validate_annotations(meta.get("annotations"), "metadata.annotations"),
        *_owners(meta.get("ownerReferences") or []),
        *_finalizers(meta.get("finalizers") or []),
    ]


def _names(meta: Obj, rule: NameRule) -> list[FieldError]:
    prefix, name = meta.get("generateName") or "", meta.get("name") or ""
    errors = []
    if prefix:
        errors += [invalid("metadata.generateName", prefix, message) for message in as_prefix(rule)(prefix)]
    if not name:
        return [*errors, required("metadata.name", "name or generateName is required")]
    return errors + [invalid("metadata.name", name, message) for message in rule(name)]


def _namespace(meta: Obj, namespaced: bool) -> list[FieldError]:
    namespace = meta.get("namespace") or ""
    if not namespaced:
        return [forbidden("metadata.namespace", "not allowed on this type")] if namespace else []
    if not namespace:
        return [required("metadata.namespace")]
    return [invalid("metadata.namespace", namespace, message) for message in dns1123_label(namespace)]


def validate_labels(labels: dict[str, Any] | None, path: str) -> list[FieldError]:
    errors = []
    for key, value in (labels or {}).items():
        errors += [invalid(path, key, message) for message in qualified_name(key)]
        errors += [invalid(path, value, message) for message in label_value(value)]
    return errors


def validate_annotations(annotations: dict[str, str] | None, path: str) -> list[FieldError]:
    errors, size = [], 0
    for key, value in (annotations or {}).items():
        size += len(key.encode()) + len(value.encode())
        errors += [invalid(path, key, message) for message in qualified_name(key.lower())]
    if size > ANNOTATIONS_LIMIT:
        errors.append(too_long(path, ANNOTATIONS_LIMIT))
    return errors


def _owners(owners: list[Obj]) -> list[FieldError]:
    path, errors = "metadata.ownerReferences", []
    for index, owner in enumerate(owners):
        here = f"{path}[{index}]"
        errors += [
            invalid(f"{here}.{name}", owner.get(name, ""), "must not be empty")
            for name in ("apiVersion", "kind", "name", "uid")
            if not owner.get(name)
        ]
    controllers = [owner.get("name", "") for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        names = " and ".join(controllers)
        detail = f'Only one reference can have Controller set to true. Found "true" in references for {names}'
        errors.append(invalid(path, owners, detail))
    return errors


def _finalizers(finalizers: list[str]) -> list[FieldError]:
    errors = []
    for name in finalizers:
        errors += [invalid("metadata.finalizers", name, message) for message in qualified_name(name)]
        if "/" not in name and name not in _STANDARD_FINALIZERS:
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            errors.append(invalid("metadata.finalizers", name, detail))
    return errors


def validate_object_meta_update(obj: Obj, old: Obj) -> list[FieldError]:
    """What no update may change."""
    meta, before = obj["metadata"], old["metadata"]
    errors = [error for name in _IMMUTABLE for error in immutable(f"metadata.{name}", meta.get(name), before.get(name))]
    if before.get("deletionTimestamp"):
        added = sorted(set(meta.get("finalizers") or []) - set(before.get("finalizers") or []))
        if added:
            found = "[]string{" + ", ".join(f'"{name}"' for name in added) + "}"
            detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {found}"
            errors.append(forbidden("metadata.finalizers", detail))
    return errors
