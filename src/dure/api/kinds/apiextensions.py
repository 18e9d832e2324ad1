"""CustomResourceDefinition: defaults and rules (`apiextensions/validation`)."""

from __future__ import annotations

from typing import Any

from dure.api.fields import immutable, invalid, not_supported, required
from dure.api.jsonpath import is_readable
from dure.api.kind import FieldError
from dure.api.kinds.rules import check_choice, check_name
from dure.api.kinds.strategy import StandardStrategy
from dure.api.names import dns1035_label, dns1123_subdomain
from dure.core.json import Obj

_SCOPES = ("Cluster", "Namespaced")
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"


class CustomResourceDefinitionStrategy(StandardStrategy):
    has_status = True
    has_generation = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        names = spec.setdefault("names", {})
        if not spec.get("scope"):
            spec["scope"] = "Namespaced"
        if not names.get("singular"):
            names["singular"] = (names.get("kind") or "").lower()
        if not names.get("listKind") and names.get("kind"):
            names["listKind"] = names["kind"] + "List"
        conversion = spec.setdefault("conversion", {})
        if not conversion.get("strategy"):
            conversion["strategy"] = "None"
        service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
        if service is not None:
            service.setdefault("port", 443)

    def prepare_create(self, obj: Obj) -> None:
        """All its versions that are stored now are the only ones there may be objects of."""
        super().prepare_create(obj)
        stored = [version["name"] for version in obj["spec"].get("versions") or [] if version.get("storage")]
        obj["status"] = {
            "acceptedNames": {"kind": "", "plural": ""},
            "conditions": [],
            "storedVersions": stored,
        }

    def prepare_update(self, obj: Obj, old: Obj, subresource: str) -> None:
        super().prepare_update(obj, old, subresource)
        if subresource:
            return
        status = obj.setdefault("status", {})
        stored = list(status.get("storedVersions") or [])
        new = [version["name"] for version in obj["spec"].get("versions") or [] if version.get("storage")]
        status["storedVersions"] = stored + [name for name in new if name not in stored]

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj["spec"]
        names, group = spec["names"], spec.get("group") or ""
        errors = []
        wanted = f"{names.get('plural') or ''}.{group}"
        name = obj["metadata"].get("name") or ""
        if name != wanted:
            errors.append(invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
        errors += check_name("spec.group", group, dns1123_subdomain)
        if group and "." not in group:
            errors.append(invalid("spec.group", group, "should be a domain with at least one dot"))
        errors += check_choice("spec.scope", spec.get("scope"), _SCOPES)
        errors += _names(names)
        return errors + _versions(spec)

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        new, was = obj["spec"], old["spec"]
        errors = immutable("spec.group", new.get("group"), was.get("group"))
        errors += immutable("spec.names.plural", new["names"].get("plural"), was["names"].get("plural"))
        if _is_established(old):
            errors += immutable("spec.scope", new.get("scope"), was.get("scope"))
            errors += immutable("spec.names.kind", new["names"].get("kind"), was["names"].get("kind"))
        served = {version["name"] for version in new.get("versions") or []}
        for index, stored in enumerate((obj.get("status") or {}).get("storedVersions") or []):
            if stored not in served:
                detail = (
                    "missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions"
                )
                detail += " until a storage migration ensures no data remains persisted in this version and removes it"
                detail += " from status.storedVersions"
                errors.append(
                    invalid(f"status.storedVersions[{index}]", stored, detail.replace("v1 was", f"{stored} was"))
                )
        return errors


def _is_established(obj: Obj) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or []
    return any(item.get("type") == "Established" and item.get("status") == "True" for item in conditions)


def _names(names: Obj) -> list[FieldError]:
    errors = check_name("spec.names.plural", names.get("plural"), dns1035_label)
    errors += check_name("spec.names.singular", names.get("singular"), dns1035_label)
    errors += check_name("spec.names.kind", names.get("kind"), _kind_rule)
    errors += check_name("spec.names.listKind", names.get("listKind"), _kind_rule)
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        errors.append(invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same"))
    for group in ("shortNames", "categories"):
        for index, name in enumerate(names.get(group) or []):
            errors += [invalid(f"spec.names.{group}[{index}]", name, message) for message in dns1035_label(name)]
    return errors


def _kind_rule(value: str) -> list[str]:
    """A kind may have capital letters."""
    faults = dns1035_label(value.lower())
    return [f"may have mixed case, but should otherwise match: {fault}" for fault in faults]


def _versions(spec: Obj) -> list[FieldError]:
    versions = spec.get("versions") or []
    if not versions:
        return [required("spec.versions", "must have at least one version")]
    errors: list[FieldError] = []
    if sum(1 for version in versions if version.get("storage")) != 1:
        detail = "must have exactly one version marked as storage version"
        errors.append(invalid("spec.versions", versions, detail))
    seen: set[str] = set()
    for index, version in enumerate(versions):
        path, name = f"spec.versions[{index}]", version.get("name") or ""
        errors += check_name(f"{path}.name", name, dns1035_label)
        if name in seen:
            errors.append(invalid(f"{path}.name", name, "must be unique"))
        seen.add(name)
        errors += _schema_of(version, path, spec)
        for number, column in enumerate(version.get("additionalPrinterColumns") or []):
            errors += _column(column, f"{path}.additionalPrinterColumns[{number}]")
        for number, entry in enumerate(version.get("selectableFields") or []):
            here, place = f"{path}.selectableFields[{number}].jsonPath", entry.get("jsonPath") or ""
            if not place.startswith(".") or not is_readable(place):
                errors.append(invalid(here, place, "must be a simple json path starting with ."))
    return errors


def _column(column: Obj, path: str) -> list[FieldError]:
    errors = [] if column.get("name") else [required(f"{path}.name")]
    errors += check_choice(f"{path}.type", column.get("type"), _COLUMN_TYPES)
    place = column.get("jsonPath") or ""
    if not place:
        return [*errors, required(f"{path}.jsonPath")]
    if not place.startswith(".") or not is_readable(place):
        errors.append(invalid(f"{path}.jsonPath", place, "must be a simple json path starting with ."))
    return errors


def _schema_of(version: Obj, path: str, spec: Obj) -> list[FieldError]:
    here = f"{path}.schema.openAPIV3Schema"
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if schema is None:
        return [required(here, "schemas are required")]
    errors = []
    if schema.get("type") != "object":
        errors.append(invalid(f"{here}.type", schema.get("type") or "", 'must be "object"'))
    if schema.get("nullable"):
        errors.append(
            FieldError(f"{here}.nullable", "FieldValueForbidden", "Forbidden: nullable cannot be true at the root")
        )
    return errors + check_structural(schema, here)


def check_structural(schema: Any, path: str) -> list[FieldError]:
    """A structural schema: a type everywhere, no references, properties or additional ones but not both."""
    if not isinstance(schema, dict):
        return []
    errors: list[FieldError] = []
    type_ = schema.get("type") or ""
    if not type_ and not schema.get(_PRESERVE) and not schema.get(_INT_OR_STRING):
        errors.append(required(f"{path}.type", "must not be empty for specified object fields"))
    elif type_ and type_ not in _TYPES:
        errors.append(not_supported(f"{path}.type", type_, _TYPES))
    if schema.get("$ref"):
        errors.append(FieldError(f"{path}.$ref", "FieldValueForbidden", "Forbidden: $ref is not supported"))
    if type_ == "array" and not isinstance(schema.get("items"), dict):
        errors.append(required(f"{path}.items", "must be specified"))
    if schema.get("properties") and isinstance(schema.get("additionalProperties"), dict):
        detail = "Forbidden: additionalProperties and properties are mutual exclusive"
        errors.append(FieldError(f"{path}.additionalProperties", "FieldValueForbidden", detail))
    for name, child in (schema.get("properties") or {}).items():
        errors += check_structural(child, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        errors += check_structural(schema.get(name), f"{path}.{name}")
    return errors
