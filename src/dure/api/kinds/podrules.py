"""Rules of a pod's spec, wherever one appears (`core/validation.ValidatePodSpec`)."""

from __future__ import annotations

from dure.api.fields import duplicate, invalid, not_supported, required
from dure.api.kind import FieldError
from dure.api.kinds.containerrules import (
    check_ids,
    forbidden_for_init,
    validate_container,
    validate_health,
)
from dure.api.kinds.rules import (
    check_choice,
    check_label_selector,
    check_name,
    check_not_negative,
    check_optional,
    check_optional_choice,
)
from dure.api.kinds.volumerules import validate_volumes
from dure.api.names import dns1123_label, dns1123_subdomain, ip_address, qualified_name
from dure.api.objectmeta import validate_annotations, validate_labels
from dure.core.json import Obj

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def validate_template(template: Obj, path: str) -> list[FieldError]:
    """Labels, annotations and spec of a workload's template."""
    meta = template.get("metadata") or {}
    return [
        *validate_labels(meta.get("labels"), f"{path}.labels"),
        *validate_annotations(meta.get("annotations"), f"{path}.annotations"),
        *validate_pod_spec(template.get("spec") or {}, f"{path}.spec"),
    ]


def validate_pod_spec(spec: Obj, path: str) -> list[FieldError]:
    volumes = spec.get("volumes") or []
    names = {volume.get("name") for volume in volumes} - {None}
    errors = validate_volumes(volumes, f"{path}.volumes")
    errors += _containers(spec, path, names)
    errors += check_choice(f"{path}.restartPolicy", spec.get("restartPolicy"), RESTART_POLICIES)
    errors += check_choice(f"{path}.dnsPolicy", spec.get("dnsPolicy"), DNS_POLICIES)
    errors += _dns(spec, path)
    errors += validate_labels(spec.get("nodeSelector"), f"{path}.nodeSelector")
    errors += check_ids(spec.get("securityContext") or {}, f"{path}.securityContext")
    errors += check_optional(f"{path}.serviceAccountName", spec.get("serviceAccountName"), dns1123_subdomain)
    errors += check_optional(f"{path}.nodeName", spec.get("nodeName"), dns1123_subdomain)
    errors += check_optional(f"{path}.hostname", spec.get("hostname"), dns1123_label)
    errors += check_optional(f"{path}.subdomain", spec.get("subdomain"), dns1123_label)
    errors += check_optional(f"{path}.priorityClassName", spec.get("priorityClassName"), dns1123_subdomain)
    errors += check_not_negative(f"{path}.terminationGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= (1 << 31) - 1:
        errors.append(invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive"))
    errors += _tolerations(spec.get("tolerations") or [], f"{path}.tolerations")
    errors += _affinity(spec.get("affinity") or {}, f"{path}.affinity")
    errors += _spreading(spec.get("topologySpreadConstraints") or [], f"{path}.topologySpreadConstraints")
    return errors + _host_aliases(spec.get("hostAliases") or [], f"{path}.hostAliases")


def _containers(spec: Obj, path: str, volumes: set[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    if not spec.get("containers"):
        errors.append(required(f"{path}.containers"))
    names: set[str] = set()
    for group in ("containers", "initContainers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(group) or []):
            here, name = f"{path}.{group}[{index}]", container.get("name") or ""
            errors += validate_container(container, here, volumes)
            if name and name in names:
                errors.append(duplicate(f"{here}.name", name))
            names.add(name)
            errors += _container_of(group, container, here)
            if group == "containers" and spec.get("hostNetwork"):
                errors += _host_ports(container, here)
    return errors


def _container_of(group: str, container: Obj, path: str) -> list[FieldError]:
    policy = container.get("restartPolicy")
    if group == "initContainers":
        errors = check_optional_choice(f"{path}.restartPolicy", policy, RESTART_POLICIES)
        stays = policy == "Always"
        return errors + (validate_health(container, path) if stays else forbidden_for_init(container, path))
    if group == "containers":
        return check_optional_choice(f"{path}.restartPolicy", policy, RESTART_POLICIES) + validate_health(
            container, path
        )
    return []


def _host_ports(container: Obj, path: str) -> list[FieldError]:
    return [
        invalid(
            f"{path}.ports[{index}].hostPort", port["hostPort"], "must match `containerPort` when `hostNetwork` is true"
        )
        for index, port in enumerate(container.get("ports") or [])
        if port.get("hostPort") and port["hostPort"] != port.get("containerPort")
    ]


def _dns(spec: Obj, path: str) -> list[FieldError]:
    config = spec.get("dnsConfig") or {}
    here = f"{path}.dnsConfig"
    servers = config.get("nameservers") or []
    errors = []
    if spec.get("dnsPolicy") == "None" and not servers:
        detail = 'must provide at least one DNS nameserver when `dnsPolicy` is "None"'
        errors.append(required(f"{here}.nameservers", detail))
    if len(servers) > 3:
        errors.append(invalid(f"{here}.nameservers", servers, "must not have more than 3 nameservers"))
    for index, server in enumerate(servers):
        errors += check_optional(f"{here}.nameservers[{index}]", server, ip_address)
    for index, option in enumerate(config.get("options") or []):
        if not option.get("name"):
            errors.append(required(f"{here}.options[{index}]", "must not be empty"))
    return errors


def _tolerations(tolerations: list[Obj], path: str) -> list[FieldError]:
    errors = []
    for index, item in enumerate(tolerations):
        here, key = f"{path}[{index}]", item.get("key") or ""
        operator, effect = item.get("operator") or "", item.get("effect") or ""
        errors += [invalid(f"{here}.key", key, message) for message in qualified_name(key)] if key else []
        if not key and operator != "Exists":
            detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errors.append(invalid(f"{here}.operator", operator, detail))
        if item.get("tolerationSeconds") is not None and effect != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(invalid(f"{here}.effect", effect, detail))
        if operator == "Exists" and item.get("value"):
            detail = "value must be empty when `operator` is 'Exists'"
            errors.append(invalid(f"{here}.operator", item["value"], detail))
        elif operator not in ("", "Equal", "Exists"):
            errors.append(not_supported(f"{here}.operator", operator, ("Equal", "Exists")))
        errors += check_optional_choice(f"{here}.effect", effect, _EFFECTS)
    return errors


def _affinity(affinity: Obj, path: str) -> list[FieldError]:
    node = affinity.get("nodeAffinity") or {}
    here = f"{path}.nodeAffinity"
    errors = []
    hard = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if hard is not None:
        errors += validate_node_selector(hard, f"{here}.requiredDuringSchedulingIgnoredDuringExecution")
    for index, term in enumerate(node.get("preferredDuringSchedulingIgnoredDuringExecution") or []):
        where = f"{here}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        errors += _weight(term, where) + _node_term(term.get("preference") or {}, f"{where}.preference")
    for kind in ("podAffinity", "podAntiAffinity"):
        errors += _pod_affinity(affinity.get(kind) or {}, f"{path}.{kind}")
    return errors


def _weight(term: Obj, path: str) -> list[FieldError]:
    weight = term.get("weight") or 0
    return [] if 1 <= weight <= 100 else [invalid(f"{path}.weight", weight, "must be in the range 1-100")]


def validate_node_selector(selector: Obj, path: str) -> list[FieldError]:
    """A `core/v1.NodeSelector`."""
    terms = selector.get("nodeSelectorTerms") or []
    if not terms:
        return [required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")]
    return [
        error for index, term in enumerate(terms) for error in _node_term(term, f"{path}.nodeSelectorTerms[{index}]")
    ]


def _node_term(term: Obj, path: str) -> list[FieldError]:
    errors = []
    for index, item in enumerate(term.get("matchExpressions") or []):
        here = f"{path}.matchExpressions[{index}]"
        operator, values = item.get("operator") or "", item.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                errors.append(required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                errors.append(invalid(f"{here}.values", values, detail))
        elif operator in ("Gt", "Lt"):
            if len(values) != 1:
                detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
                errors.append(required(f"{here}.values", detail))
        else:
            errors.append(invalid(f"{here}.operator", operator, "not a valid selector operator"))
        errors += [
            invalid(f"{here}.key", item.get("key") or "", fault) for fault in qualified_name(item.get("key") or "")
        ]
    return errors


def _pod_affinity(affinity: Obj, path: str) -> list[FieldError]:
    errors = []
    for index, term in enumerate(affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or []):
        errors += _pod_term(term, f"{path}.requiredDuringSchedulingIgnoredDuringExecution[{index}]")
    for index, weighted in enumerate(affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []):
        here = f"{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        errors += _weight(weighted, here) + _pod_term(weighted.get("podAffinityTerm") or {}, f"{here}.podAffinityTerm")
    return errors


def _pod_term(term: Obj, path: str) -> list[FieldError]:
    errors = check_label_selector(term.get("labelSelector"), f"{path}.labelSelector")
    key = term.get("topologyKey") or ""
    if not key:
        return [*errors, required(f"{path}.topologyKey", "can not be empty")]
    return errors + [invalid(f"{path}.topologyKey", key, message) for message in qualified_name(key)]


def _spreading(constraints: list[Obj], path: str) -> list[FieldError]:
    errors = []
    for index, item in enumerate(constraints):
        here, skew, key = f"{path}[{index}]", item.get("maxSkew") or 0, item.get("topologyKey") or ""
        if skew <= 0:
            errors.append(invalid(f"{here}.maxSkew", skew, "must be greater than zero"))
        if not key:
            errors.append(required(f"{here}.topologyKey", "can not be empty"))
        when = item.get("whenUnsatisfiable")
        errors += check_choice(f"{here}.whenUnsatisfiable", when, ("DoNotSchedule", "ScheduleAnyway"))
        errors += check_label_selector(item.get("labelSelector"), f"{here}.labelSelector")
    return errors


def _host_aliases(aliases: list[Obj], path: str) -> list[FieldError]:
    errors = []
    for index, alias in enumerate(aliases):
        errors += check_name(f"{path}[{index}].ip", alias.get("ip"), ip_address)
        for name in alias.get("hostnames") or []:
            errors += [invalid(f"{path}[{index}].hostnames", name, message) for message in dns1123_subdomain(name)]
    return errors
