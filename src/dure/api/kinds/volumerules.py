"""Rules of a pod's volumes (`core/validation.ValidateVolumes`)."""

from __future__ import annotations

from dure.api.fields import duplicate, forbidden, invalid, required
from dure.api.kind import FieldError
from dure.api.kinds.containerrules import check_descending, validate_field_ref
from dure.api.kinds.rules import (
    check_name,
    check_one_of,
    check_optional_choice,
    check_quantity,
    check_required_fields,
)
from dure.api.names import config_key, dns1123_label
from dure.core.json import Obj

_HOST_PATH_TYPES = (
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
)
_DOWNWARD_FIELDS = frozenset(
    {"metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"}
)
_REQUIRED = {
    "secret": ("secretName",),
    "configMap": ("name",),
    "persistentVolumeClaim": ("claimName",),
    "hostPath": ("path",),
    "nfs": ("server", "path"),
    "csi": ("driver",),
    "flexVolume": ("driver",),
    "gitRepo": ("repository",),
}


def validate_volumes(volumes: list[Obj], path: str) -> list[FieldError]:
    errors, names = [], set()
    for index, volume in enumerate(volumes):
        here, name = f"{path}[{index}]", volume.get("name") or ""
        faults = check_name(f"{here}.name", name, dns1123_label)
        errors += faults
        if not faults and name in names:
            errors.append(duplicate(f"{here}.name", name))
        names.add(name)
        errors += _source(volume, here)
    return errors


def _source(volume: Obj, path: str) -> list[FieldError]:
    given = [name for name in volume if name != "name" and volume[name] is not None]
    if not given:
        return [required(path, "must specify a volume type")]
    errors = [forbidden(f"{path}.{name}", "may not specify more than 1 volume type") for name in given[1:]]
    kind = given[0]
    body, here = volume[kind], f"{path}.{kind}"
    errors += check_required_fields(body, here, _REQUIRED.get(kind, ()))
    errors += _mode(body, here, "defaultMode")
    if kind in ("secret", "configMap"):
        errors += _items(body, here)
    elif kind == "emptyDir" and body.get("sizeLimit") is not None:
        errors += check_quantity(f"{here}.sizeLimit", body["sizeLimit"])
    elif kind == "hostPath":
        errors += check_optional_choice(f"{here}.type", body.get("type"), _HOST_PATH_TYPES)
        errors += check_descending(f"{here}.path", (body.get("path") or "").lstrip("/"))
    elif kind == "downwardAPI":
        errors += _downward(body, here)
    elif kind == "projected":
        errors += _projected(body, here)
    return errors


def _mode(body: Obj, path: str, field: str) -> list[FieldError]:
    mode = body.get(field)
    if mode is None or 0 <= mode <= 0o777:
        return []
    return [invalid(f"{path}.{field}", mode, "must be a number between 0 and 0777 (octal), both inclusive")]


def _items(body: Obj, path: str) -> list[FieldError]:
    errors = []
    for index, item in enumerate(body.get("items") or []):
        here = f"{path}.items[{index}]"
        errors += check_name(f"{here}.key", item.get("key"), config_key)
        errors += _file(item, here)
    return errors


def _file(item: Obj, path: str) -> list[FieldError]:
    place = item.get("path") or ""
    if not place:
        return [required(f"{path}.path")]
    errors = check_descending(f"{path}.path", place)
    if not errors and place.startswith(".."):
        errors.append(invalid(f"{path}.path", place, "must not start with '..'"))
    return errors + _mode(item, path, "mode")


def _downward(body: Obj, path: str) -> list[FieldError]:
    errors = []
    for index, item in enumerate(body.get("items") or []):
        here = f"{path}.items[{index}]"
        errors += _file(item, here)
        if item.get("fieldRef") is not None:
            errors += validate_field_ref(item["fieldRef"], f"{here}.fieldRef", _DOWNWARD_FIELDS)
        elif item.get("resourceFieldRef") is not None:
            errors += check_required_fields(item["resourceFieldRef"], f"{here}.resourceFieldRef", ["containerName"])
        else:
            errors.append(required(here, "one of fieldRef and resourceFieldRef must be specified"))
    return errors


def _projected(body: Obj, path: str) -> list[FieldError]:
    errors = []
    sources = ("secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate")
    for index, source in enumerate(body.get("sources") or []):
        here = f"{path}.sources[{index}]"
        errors += check_one_of(source, here, sources, "volume type")
        for kind in ("secret", "configMap"):
            if source.get(kind) is not None:
                errors += check_required_fields(source[kind], f"{here}.{kind}", ["name"])
                errors += _items(source[kind], f"{here}.{kind}")
        if source.get("downwardAPI") is not None:
            errors += _downward(source["downwardAPI"], f"{here}.downwardAPI")
        if (token := source.get("serviceAccountToken")) is not None:
            errors += check_required_fields(token, f"{here}.serviceAccountToken", ["path"])
            if token.get("expirationSeconds", 600) < 600:
                detail = "may not specify a duration less than 10 minutes"
                errors.append(
                    invalid(f"{here}.serviceAccountToken.expirationSeconds", token["expirationSeconds"], detail)
                )
    return errors
