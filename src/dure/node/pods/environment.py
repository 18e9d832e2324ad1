"""The environment of a container: image, services, envFrom, env with `$(NAME)` expansion, in kubelet's order. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dure.core.errors import DureError
from dure.core.json import Obj
from dure.node.payload import secret_data
from dure.node.pods.downward import Downward

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_PRINTABLE_NAME = re.compile(r"^[ -<>-~]+$")


class ConfigFailure(DureError):
    """The container cannot be configured yet: reason CreateContainerConfigError."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Config maps and secrets by name, absent when they do not exist."""

    config_maps: Mapping[str, Obj]
    secrets: Mapping[str, Obj]


def referenced(container: Obj) -> set[tuple[str, str]]:
    """(resource, name) of every config map and secret the environment reads."""
    found: set[tuple[str, str]] = set()
    for entry in container.get("envFrom") or []:
        for field, resource in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
            if ref := entry.get(field):
                found.add((resource, ref.get("name", "")))
    for entry in container.get("env") or []:
        source = entry.get("valueFrom") or {}
        for field, resource in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
            if ref := source.get(field):
                found.add((resource, ref.get("name", "")))
    return found


def make_environment(
    container: Obj, sources: Sources, downward: Downward, services: Mapping[str, str], image_env: Iterable[str]
) -> dict[str, str]:
    """Name to value, in order. Raises ConfigFailure."""
    known = dict(entry.partition("=")[::2] for entry in image_env)
    own: dict[str, str] = {}
    for entry in container.get("envFrom") or []:
        own.update(_from_source(entry, sources))
    for entry in container.get("env") or []:
        value = _value(entry, sources, downward, container, {**services, **own})
        if value is not None:
            own[entry["name"]] = value
    return {**known, **services, **own}


def expand(text: str, lookup: Mapping[str, str]) -> str:
    """`$(NAME)` by its value, `$$` by `$`; an unknown name stays as it is written."""

    def replace(match: re.Match[str]) -> str:
        if match.group(1) == "$":
            return "$"
        return lookup.get(match.group(2), match.group(0))

    return _REFERENCE.sub(replace, text)


def _from_source(entry: Obj, sources: Sources) -> dict[str, str]:
    prefix = entry.get("prefix") or ""
    values: Mapping[str, str] | None
    if ref := entry.get("configMapRef"):
        kind, found = "configmap", sources.config_maps.get(ref.get("name", ""))
        values = (found.get("data") or {}) if found is not None else None
    else:
        ref = entry.get("secretRef") or {}
        kind, found = "secret", sources.secrets.get(ref.get("name", ""))
        values = secret_texts(found) if found is not None else None
    if values is None:
        if ref.get("optional"):
            return {}
        raise ConfigFailure(f'{kind} "{ref.get("name", "")}" not found')
    return {prefix + name: value for name, value in values.items() if _PRINTABLE_NAME.match(prefix + name)}


def _value(entry: Obj, sources: Sources, downward: Downward, container: Obj, lookup: Mapping[str, str]) -> str | None:
    source: dict[str, Any] | None = entry.get("valueFrom")
    if source is None:
        return expand(entry.get("value") or "", lookup)
    if ref := source.get("fieldRef"):
        return downward.field(ref.get("fieldPath", ""))
    if ref := source.get("resourceFieldRef"):
        return downward.resource(ref, container)
    if ref := source.get("configMapKeyRef"):
        found = sources.config_maps.get(ref.get("name", ""))
        return _keyed(ref, "configmap", "ConfigMap", (found.get("data") or {}) if found is not None else None, downward)
    if ref := source.get("secretKeyRef"):
        found = sources.secrets.get(ref.get("name", ""))
        return _keyed(ref, "secret", "Secret", secret_texts(found) if found is not None else None, downward)
    raise ConfigFailure(f"env {entry['name']!r} has a source this node does not know: {', '.join(source)}")


def _keyed(ref: Obj, word: str, kind: str, values: Mapping[str, str] | None, downward: Downward) -> str | None:
    name, key = ref.get("name", ""), ref.get("key", "")
    if values is None:
        if ref.get("optional"):
            return None
        raise ConfigFailure(f'{word} "{name}" not found')
    if key not in values:
        if ref.get("optional"):
            return None
        raise ConfigFailure(f"couldn't find key {key} in {kind} {downward.namespace}/{name}")
    return values[key]


def secret_texts(secret: Obj) -> dict[str, str]:
    return {name: data.decode(errors="surrogateescape") for name, data in secret_data(secret).items()}


def service_environment(
    pod: Obj, services: Sequence[Obj], *, master_namespace: str = "default", master_name: str = "kubernetes"
) -> dict[str, str]:
    """Docker-link style variables: the API server's always, the namespace's unless `enableServiceLinks` is off."""
    namespace = pod["metadata"].get("namespace", "")
    links = pod["spec"].get("enableServiceLinks")
    chosen: dict[str, Obj] = {}
    for service in services:
        meta = service["metadata"]
        address = service["spec"].get("clusterIP")
        if not address or address == "None":
            continue
        is_master = meta.get("namespace") == master_namespace and meta["name"] == master_name
        own = meta.get("namespace") == namespace and links is not False
        if own or (is_master and meta["name"] not in chosen):
            chosen[meta["name"]] = service
    result: dict[str, str] = {}
    for name in sorted(chosen):
        result.update(_service_variables(chosen[name]))
    return result


def _service_variables(service: Obj) -> dict[str, str]:
    name = service["metadata"]["name"].upper().replace("-", "_")
    address = service["spec"]["clusterIP"]
    ports = service["spec"].get("ports") or []
    if not ports:
        return {}
    first = ports[0]
    result = {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(first["port"])}
    for port in ports:
        if port.get("name"):
            result[f"{name}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
    join = _host_port(address)
    result[f"{name}_PORT"] = f"{(first.get('protocol') or 'TCP').lower()}://{join(first['port'])}"
    for port in ports:
        protocol = port.get("protocol") or "TCP"
        prefix = f"{name}_PORT_{port['port']}_{protocol}"
        result |= {
            prefix: f"{protocol.lower()}://{join(port['port'])}",
            f"{prefix}_PROTO": protocol.lower(),
            f"{prefix}_PORT": str(port["port"]),
            f"{prefix}_ADDR": address,
        }
    return result


def _host_port(address: str) -> Callable[[int], str]:
    host = f"[{address}]" if ":" in address else address
    return lambda port: f"{host}:{port}"
