"""Rules of one container: image, ports, environment, mounts, resources, probes (`core/validation`)."""

from __future__ import annotations

import re
from collections.abc import Collection

from dure.api.fields import duplicate, forbidden, invalid, not_found, not_supported, required
from dure.api.kind import FieldError
from dure.api.kinds.rules import (
    NOT_NEGATIVE,
    check_choice,
    check_name,
    check_not_negative,
    check_one_of,
    check_optional,
    check_port,
    check_required_fields,
)
from dure.api.names import config_key, dns1123_label, env_var_name, ip_address, port_name, port_number, qualified_name
from dure.api.quantities import parse_quantity
from dure.core.json import Obj

PROTOCOLS = ("TCP", "UDP", "SCTP")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
HOOKS = ("exec", "httpGet", "tcpSocket", "sleep")
_STANDARD_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_ENV_FIELDS = frozenset(
    {f"metadata.{name}" for name in ("name", "namespace", "uid")}
    | {f"spec.{name}" for name in ("nodeName", "serviceAccountName")}
    | {f"status.{name}" for name in ("hostIP", "hostIPs", "podIP", "podIPs")}
)
_SUBSCRIPTED = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")
_ENV_RESOURCES = frozenset(
    f"{side}.{name}" for side in ("limits", "requests") for name in ("cpu", "memory", "ephemeral-storage")
)
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_ID_LIMIT = (1 << 31) - 1


def validate_container(container: Obj, path: str, volumes: Collection[str]) -> list[FieldError]:
    """What holds for main, init and ephemeral containers alike."""
    image = container.get("image") or ""
    errors = check_name(f"{path}.name", container.get("name"), dns1123_label)
    if not image:
        errors.append(required(f"{path}.image"))
    elif image != image.strip():
        errors.append(invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    policies = ("File", "FallbackToLogsOnError")
    errors += check_choice(f"{path}.terminationMessagePolicy", container.get("terminationMessagePolicy"), policies)
    errors += check_choice(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), PULL_POLICIES)
    errors += _ports(container.get("ports") or [], f"{path}.ports")
    errors += _environment(container, path)
    errors += _mounts(container, path, volumes)
    errors += validate_resources(container.get("resources") or {}, f"{path}.resources")
    errors += _security(container.get("securityContext") or {}, f"{path}.securityContext")
    return errors


def validate_health(container: Obj, path: str) -> list[FieldError]:
    """Probes and hooks, which only containers that stay may have."""
    errors = []
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe is not None:
            errors += _probe(probe, f"{path}.{name}")
            threshold = probe.get("successThreshold", 1)
            if name != "readinessProbe" and threshold != 1:
                errors.append(invalid(f"{path}.{name}.successThreshold", threshold, "must be 1"))
    for name in ("postStart", "preStop"):
        hook = (container.get("lifecycle") or {}).get(name)
        if hook is not None:
            errors += _handler(hook, f"{path}.lifecycle.{name}", HOOKS)
    return errors


def _ports(ports: list[Obj], path: str) -> list[FieldError]:
    errors, names = [], set()
    for index, port in enumerate(ports):
        here, name = f"{path}[{index}]", port.get("name")
        if name:
            faults = port_name(name)
            errors += [invalid(f"{here}.name", name, message) for message in faults]
            if not faults and name in names:
                errors.append(duplicate(f"{here}.name", name))
            names.add(name)
        number = port.get("containerPort") or 0
        if not number:
            errors.append(required(f"{here}.containerPort"))
        else:
            errors += [invalid(f"{here}.containerPort", number, message) for message in port_number(number)]
        if host := port.get("hostPort"):
            errors += [invalid(f"{here}.hostPort", host, message) for message in port_number(host)]
        errors += check_choice(f"{here}.protocol", port.get("protocol"), PROTOCOLS)
        errors += check_optional(f"{here}.hostIP", port.get("hostIP"), ip_address)
    return errors


def _environment(container: Obj, path: str) -> list[FieldError]:
    errors = []
    for index, variable in enumerate(container.get("env") or []):
        here = f"{path}.env[{index}]"
        errors += check_name(f"{here}.name", variable.get("name"), env_var_name)
        if variable.get("valueFrom") is not None:
            errors += _value_from(variable, f"{here}.valueFrom")
    for index, source in enumerate(container.get("envFrom") or []):
        here = f"{path}.envFrom[{index}]"
        errors += check_optional(f"{here}.prefix", source.get("prefix"), env_var_name)
        given = [name for name in ("configMapRef", "secretRef") if source.get(name) is not None]
        if not given:
            errors.append(invalid(here, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(given) > 1:
            errors.append(invalid(here, "", "may not have more than one field specified at a time"))
        for name in given:
            errors += check_required_fields(source[name], f"{here}.{name}", ["name"])
    return errors


def _value_from(variable: Obj, path: str) -> list[FieldError]:
    source, errors = variable["valueFrom"], []
    given = [name for name in _ENV_SOURCES if source.get(name) is not None]
    if (reference := source.get("fieldRef")) is not None:
        errors += validate_field_ref(reference, f"{path}.fieldRef", _ENV_FIELDS)
    if (reference := source.get("resourceFieldRef")) is not None:
        errors += _resource_ref(reference, f"{path}.resourceFieldRef")
    for name in ("configMapKeyRef", "secretKeyRef"):
        if (reference := source.get(name)) is not None:
            errors += check_required_fields(reference, f"{path}.{name}", ["name"])
            errors += check_name(f"{path}.{name}.key", reference.get("key"), config_key)
    if not given:
        names = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        errors.append(invalid(path, "", f"must specify one of: {names}"))
    elif variable.get("value"):
        errors.append(invalid(path, "", "may not be specified when `value` is not empty"))
    elif len(given) > 1:
        errors.append(invalid(path, "", "may not have more than one field specified at a time"))
    return errors


def validate_field_ref(reference: Obj, path: str, allowed: Collection[str]) -> list[FieldError]:
    """A downward API field; label and annotation keys in brackets."""
    field = reference.get("fieldPath") or ""
    if not field:
        return [required(f"{path}.fieldPath")]
    if match := _SUBSCRIPTED.match(field):
        key = match.group(2).lower() if match.group(1) == "annotations" else match.group(2)
        return [invalid(path, match.group(2), message) for message in qualified_name(key)]
    if field in allowed:
        return []
    detail = f"error converting fieldPath: field label not supported: {field}"
    return [invalid(f"{path}.fieldPath", field, detail)]


def _resource_ref(reference: Obj, path: str) -> list[FieldError]:
    name = reference.get("resource") or ""
    if not name:
        return [required(f"{path}.resource")]
    if name in _ENV_RESOURCES or name.partition(".")[2].startswith("hugepages-"):
        return []
    return [not_supported(f"{path}.resource", name, _ENV_RESOURCES)]


def _mounts(container: Obj, path: str, volumes: Collection[str]) -> list[FieldError]:
    errors, places = [], set()
    for index, mount in enumerate(container.get("volumeMounts") or []):
        here, name, place = f"{path}.volumeMounts[{index}]", mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            errors.append(required(f"{here}.name"))
        elif name not in volumes:
            errors.append(not_found(f"{here}.name", name))
        if not place:
            errors.append(required(f"{here}.mountPath"))
        elif place in places:
            errors.append(invalid(f"{here}.mountPath", place, "must be unique"))
        places.add(place)
        for field in ("subPath", "subPathExpr"):
            errors += check_descending(f"{here}.{field}", mount.get(field) or "")
        if mount.get("subPath") and mount.get("subPathExpr"):
            errors.append(
                invalid(f"{here}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive")
            )
    return errors


def check_descending(path: str, value: str) -> list[FieldError]:
    """A path that stays below where it starts."""
    errors = [invalid(path, value, "must be a relative path")] if value.startswith("/") else []
    if ".." in value.split("/"):
        errors.append(invalid(path, value, "must not contain '..'"))
    return errors


def validate_resources(resources: Obj, path: str) -> list[FieldError]:
    """Requests and limits of a container."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    errors = _amounts(limits, f"{path}.limits") + _amounts(requests, f"{path}.requests")
    for name, amount in requests.items():
        limit = limits.get(name)
        if limit is None or parse_quantity(amount) <= parse_quantity(limit):
            continue
        errors.append(invalid(f"{path}.requests", amount, f"must be less than or equal to {name} limit of {limit}"))
    return errors


def _amounts(amounts: Obj, path: str) -> list[FieldError]:
    errors = []
    for name, amount in amounts.items():
        here = f"{path}[{name}]"
        faults = qualified_name(name)
        errors += [invalid(here, name, message) for message in faults]
        if not faults and "/" not in name and name not in _STANDARD_RESOURCES and not name.startswith("hugepages-"):
            errors.append(invalid(here, name, "must be a standard resource type or fully qualified"))
            errors.append(invalid(here, name, "must be a standard resource for containers"))
        value = parse_quantity(amount)
        if value < 0:
            errors.append(invalid(here, amount, NOT_NEGATIVE))
        elif "/" in name and value != int(value):
            errors.append(invalid(here, amount, "must be an integer"))
    return errors


def _security(context: Obj, path: str) -> list[FieldError]:
    errors = check_ids(context, path)
    if context.get("allowPrivilegeEscalation") is False and context.get("privileged"):
        detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        errors.append(invalid(path, context, detail))
    return errors


def check_ids(context: Obj, path: str) -> list[FieldError]:
    """User and group ids of a security context."""
    return [
        invalid(f"{path}.{name}", context[name], f"must be between 0 and {_ID_LIMIT}, inclusive")
        for name in ("runAsUser", "runAsGroup", "fsGroup")
        if context.get(name) is not None and not 0 <= context[name] <= _ID_LIMIT
    ]


def _probe(probe: Obj, path: str) -> list[FieldError]:
    errors = _handler(probe, path, HANDLERS)
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        errors += check_not_negative(f"{path}.{name}", probe.get(name))
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and grace <= 0:
        errors.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0"))
    return errors


def _handler(body: Obj, path: str, choices: Collection[str]) -> list[FieldError]:
    errors = check_one_of(body, path, choices, "handler type")
    if (command := body.get("exec")) is not None:
        errors += check_required_fields(command, f"{path}.exec", ["command"])
    if (get := body.get("httpGet")) is not None:
        errors += check_required_fields(get, f"{path}.httpGet", ["path"])
        errors += check_port(f"{path}.httpGet.port", get.get("port"))
        errors += check_choice(f"{path}.httpGet.scheme", get.get("scheme"), ("HTTP", "HTTPS"))
        for index, header in enumerate(get.get("httpHeaders") or []):
            errors += check_name(f"{path}.httpGet.httpHeaders[{index}].name", header.get("name"), _header_name)
    if (socket := body.get("tcpSocket")) is not None:
        errors += check_port(f"{path}.tcpSocket.port", socket.get("port"))
    if (grpc := body.get("grpc")) is not None:
        errors += check_port(f"{path}.grpc.port", grpc.get("port"))
    return errors


def _header_name(value: str) -> list[str]:
    if re.fullmatch("[-A-Za-z0-9]+", value):
        return []
    return [
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', "
        "regex used for validation is '[-A-Za-z0-9]+')"
    ]


def forbidden_for_init(container: Obj, path: str) -> list[FieldError]:
    """An init container that ends may not be watched; one that stays (`restartPolicy: Always`) may."""
    names = ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
    detail = "may not be set for init containers without restartPolicy=Always"
    return [forbidden(f"{path}.{name}", detail) for name in names if container.get(name) is not None]
