"""ConfigMap and Secret: keys, sizes, immutability, and what each type of secret must hold."""

from __future__ import annotations

import base64

from dure.api.fields import forbidden, invalid, required, too_long
from dure.api.kind import FieldError
from dure.api.kinds.strategy import StandardStrategy, field
from dure.api.names import config_key
from dure.core.json import JSONDecodeError, Obj, loads

SIZE_LIMIT = 1024 * 1024
_SECRET_FIELDS = {"type": field("type")}
_REQUIRED_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_BASIC_AUTH = ("username", "password")
_ACCOUNT = "kubernetes.io/service-account.name"


class ConfigMapStrategy(StandardStrategy):
    def check(self, obj: Obj) -> list[FieldError]:
        data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
        errors = []
        for key in data:
            errors += [invalid(f"data[{key}]", key, message) for message in config_key(key)]
            if key in binary:
                errors.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
        for key in binary:
            errors += [invalid(f"binaryData[{key}]", key, message) for message in config_key(key)]
        size = sum(len(value.encode()) for value in data.values()) + sum(_decoded(value) for value in binary.values())
        return [*errors, too_long("", SIZE_LIMIT)] if size > SIZE_LIMIT else errors

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        return _frozen(obj, old, ("data", "binaryData"))


class SecretStrategy(StandardStrategy):
    selectable = _SECRET_FIELDS

    def default(self, obj: Obj) -> None:
        if not obj.get("type"):
            obj["type"] = "Opaque"
        plain = obj.pop("stringData", None)
        if plain:
            data = obj.setdefault("data", {})
            for key, value in plain.items():
                data[key] = base64.b64encode(value.encode()).decode()

    def check(self, obj: Obj) -> list[FieldError]:
        data = obj.get("data") or {}
        errors = []
        for key in data:
            errors += [invalid(f"data[{key}]", key, message) for message in config_key(key)]
        if sum(_decoded(value) for value in data.values()) > SIZE_LIMIT:
            errors.append(too_long("data", SIZE_LIMIT))
        return errors + _by_type(obj, data)

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        errors = []
        if obj.get("type") != old.get("type"):
            errors.append(invalid("type", obj.get("type"), "field is immutable"))
        return errors + _frozen(obj, old, ("data",))


def _decoded(text: str) -> int:
    """Bytes behind a base64 text."""
    return len(text) * 3 // 4 - text.count("=")


def _frozen(obj: Obj, old: Obj, names: tuple[str, ...]) -> list[FieldError]:
    if not old.get("immutable"):
        return []
    detail = "field is immutable when `immutable` is set"
    errors = [] if obj.get("immutable") else [forbidden("immutable", detail)]
    return errors + [forbidden(name, detail) for name in names if (obj.get(name) or {}) != (old.get(name) or {})]


def _by_type(obj: Obj, data: Obj) -> list[FieldError]:
    type_ = obj["type"]
    errors = [required(f"data[{key}]") for key in _REQUIRED_KEYS.get(type_, ()) if key not in data]
    if type_ == "kubernetes.io/basic-auth" and not any(key in data for key in _BASIC_AUTH):
        errors += [required(f"data[{key}]") for key in _BASIC_AUTH]
    if type_ == "kubernetes.io/service-account-token":
        account = (obj["metadata"].get("annotations") or {}).get(_ACCOUNT)
        if not account:
            errors.append(required(f"metadata.annotations[{_ACCOUNT}]"))
    if type_.startswith("kubernetes.io/docker") and not errors:
        errors += _docker_config(data, _REQUIRED_KEYS[type_][0]) if type_ in _REQUIRED_KEYS else []
    return errors


def _docker_config(data: Obj, key: str) -> list[FieldError]:
    try:
        loads(base64.b64decode(data[key]))
    except (JSONDecodeError, ValueError) as error:
        return [invalid(f"data[{key}]", "<secret contents redacted>", str(error))]
    return []
