"""A few kinds without rules of their own."""

from __future__ import annotations

from dure.api.kind import FieldError, Kind, Kinds, Subresource
from dure.api.meta import GroupVersionKind
from dure.core.json import Obj


class PlainStrategy:
    """Lets everything through."""

    field_labels: frozenset[str] = frozenset({"spec.nodeName"})

    def default(self, obj: Obj) -> None: ...

    def prepare_create(self, obj: Obj) -> None: ...

    def prepare_update(self, obj: Obj, old: Obj, subresource: str) -> None: ...

    def validate(self, obj: Obj) -> list[FieldError]:
        return []

    def validate_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        return []

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"spec.nodeName": (obj.get("spec") or {}).get("nodeName", "")}

    def warnings(self, obj: Obj) -> list[str]:
        return []


def plain_kind(group: str, version: str, name: str, plural: str, *, namespaced: bool = True) -> Kind:
    status = Subresource("status", frozenset({"get", "update", "patch"}), GroupVersionKind(group, version, name))
    return Kind(group, version, name, plural, namespaced, PlainStrategy(), subresources=(status,))


def plain_kinds() -> Kinds:
    """Pods, ConfigMaps, Events, Nodes, Deployments and Leases."""
    kinds = Kinds()
    for kind in (
        plain_kind("", "v1", "Pod", "pods"),
        plain_kind("", "v1", "ConfigMap", "configmaps"),
        plain_kind("", "v1", "Event", "events"),
        plain_kind("", "v1", "Node", "nodes", namespaced=False),
        plain_kind("apps", "v1", "Deployment", "deployments"),
        plain_kind("coordination.k8s.io", "v1", "Lease", "leases"),
    ):
        kinds.add(kind)
    return kinds


def pod(name: str, namespace: str = "default", *, labels: dict[str, str] | None = None, node: str = "") -> Obj:
    meta: Obj = {"name": name, "namespace": namespace} | ({"labels": labels} if labels else {})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": node} if node else {}}
