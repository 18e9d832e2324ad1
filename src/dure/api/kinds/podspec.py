"""Defaults of a pod's spec, wherever one appears: pods and the templates of workloads (`core/v1/defaults.go`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dure.core.json import Obj

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_MODE_0644 = 420
_VOLUMES_WITH_MODE = ("secret", "configMap", "downwardAPI", "projected")


def containers_of(spec: Obj) -> Iterator[Obj]:
    """Init, main and ephemeral containers."""
    for group in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(group) or []


def default_pod_spec(spec: Obj) -> None:
    """In place."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    _default_account(spec)
    for container in containers_of(spec):
        _default_container(container)
    for volume in spec.get("volumes") or []:
        _default_volume(volume)
    for constraint in spec.get("topologySpreadConstraints") or []:
        constraint.setdefault("whenUnsatisfiable", "DoNotSchedule")


def default_running_spec(spec: Obj) -> None:
    """What only a pod itself gets, not a template: requests from limits, host ports, service links."""
    spec.setdefault("enableServiceLinks", True)
    for container in containers_of(spec):
        _default_requests(container["resources"])
        for port in container.get("ports") or []:
            if spec.get("hostNetwork") and not port.get("hostPort"):
                port["hostPort"] = port.get("containerPort", 0)


def default_template(owner_spec: Obj) -> None:
    """The `template` of a workload's spec."""
    template = owner_spec.setdefault("template", {})
    default_pod_spec(template.setdefault("spec", {}))


def _default_account(spec: Obj) -> None:
    """`serviceAccount` is the old name of `serviceAccountName`; both are kept equal."""
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account


def image_pull_policy(image: str) -> str:
    """Always for the tag latest or none, IfNotPresent otherwise."""
    if "@" in image:
        return "IfNotPresent"
    _, _, tag = image.rpartition("/")[2].partition(":")
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _default_container(container: Obj) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = image_pull_policy(container.get("image") or "")
    container.setdefault("resources", {})
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for name in _PROBES:
        if container.get(name) is not None:
            _default_probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _default_handler(hook)
    for variable in container.get("env") or []:
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")


def _default_requests(resources: Obj) -> None:
    """A limit without a request is the request too."""
    limits = resources.get("limits") or {}
    if limits:
        requests = resources.setdefault("requests", {})
        for name, amount in limits.items():
            requests.setdefault(name, amount)


def _default_probe(probe: Obj) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(name):
            probe[name] = value
    if (grpc := probe.get("grpc")) is not None:
        grpc.setdefault("service", "")
    _default_handler(probe)


def _default_handler(handler: Obj) -> None:
    if (get := handler.get("httpGet")) is not None:
        get.setdefault("path", "/")
        get.setdefault("scheme", "HTTP")


def _default_volume(volume: Obj) -> None:
    if not set(volume) - {"name"}:
        volume["emptyDir"] = {}
    for source in _VOLUMES_WITH_MODE:
        if (body := volume.get(source)) is not None:
            body.setdefault("defaultMode", _MODE_0644)
    for item in (volume.get("downwardAPI") or {}).get("items") or []:
        _default_field_reference(item)
    for source_ in (volume.get("projected") or {}).get("sources") or []:
        for item in (source_.get("downwardAPI") or {}).get("items") or []:
            _default_field_reference(item)
        if (token := source_.get("serviceAccountToken")) is not None:
            token.setdefault("expirationSeconds", 3600)
    _default_source(volume)


def _default_field_reference(item: Obj) -> None:
    if (reference := item.get("fieldRef")) is not None:
        reference.setdefault("apiVersion", "v1")


def _default_source(volume: dict[str, Any]) -> None:
    if (host := volume.get("hostPath")) is not None:
        host.setdefault("type", "")
    if (image := volume.get("image")) is not None and not image.get("pullPolicy"):
        image["pullPolicy"] = image_pull_policy(image.get("reference") or "")
    if (iscsi := volume.get("iscsi")) is not None:
        iscsi.setdefault("iscsiInterface", "default")
    if (claim := (volume.get("ephemeral") or {}).get("volumeClaimTemplate")) is not None:
        claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
