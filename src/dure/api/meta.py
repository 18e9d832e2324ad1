"""Reading and naming objects: keys, references, owners, conditions."""

from __future__ import annotations

from typing import Any, NamedTuple

from dure.core.json import Obj


class ObjectKey(NamedTuple):
    """Namespace (empty for cluster-scoped kinds) and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class GroupVersionKind(NamedTuple):
    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def parse_api_version(api_version: str) -> tuple[str, str]:
    """`apps/v1` → (apps, v1), `v1` → ("", v1)."""
    group, _, version = api_version.rpartition("/")
    return group, version


def gvk_of(obj: Obj) -> GroupVersionKind:
    group, version = parse_api_version(str(obj.get("apiVersion", "")))
    return GroupVersionKind(group, version, str(obj.get("kind", "")))


def key_of(obj: Obj) -> ObjectKey:
    meta = obj["metadata"]
    return ObjectKey(meta.get("namespace") or "", meta["name"])


def name_of(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def namespace_of(obj: Obj) -> str:
    return str(obj["metadata"].get("namespace") or "")


def uid_of(obj: Obj) -> str:
    return str(obj["metadata"].get("uid") or "")


def labels_of(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def is_deleting(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def owners_of(obj: Obj) -> list[dict[str, Any]]:
    return obj["metadata"].get("ownerReferences") or []


def controller_of(obj: Obj) -> dict[str, Any] | None:
    """The owner reference marked as controller, if any."""
    return next((ref for ref in owners_of(obj) if ref.get("controller")), None)


def owner_reference(owner: Obj, *, controller: bool = True) -> dict[str, Any]:
    """A reference that makes `owner` the (controlling) owner of another object."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": controller,
        "blockOwnerDeletion": True,
    }


def condition(obj: Obj, type_: str) -> dict[str, Any] | None:
    """The status condition of that type."""
    conditions = (obj.get("status") or {}).get("conditions") or []
    return next((item for item in conditions if item.get("type") == type_), None)


def with_condition(conditions: list[dict[str, Any]], new: dict[str, Any], now: str) -> list[dict[str, Any]]:
    """`conditions` with `new` in its place; `lastTransitionTime` moves only when the status does."""
    old = next((item for item in conditions if item["type"] == new["type"]), None)
    stamp = old.get("lastTransitionTime", now) if old and old["status"] == new["status"] else now
    entry = {**new, "lastTransitionTime": stamp}
    if old is None:
        return [*conditions, entry]
    return [entry if item["type"] == new["type"] else item for item in conditions]
