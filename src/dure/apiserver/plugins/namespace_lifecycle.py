"""Nothing is made in a namespace that is not there or is ending; the first namespaces cannot be deleted."""

from __future__ import annotations

from dure.api.kind import Kinds
from dure.apiserver.admission import Attributes
from dure.apiserver.errors import forbidden, not_found, resource_details
from dure.core.errors import Forbidden
from dure.core.json import Obj, loads
from dure.store.model import KeyNotFound, Store

_IMMORTAL = frozenset({"default", "kube-system", "kube-public"})
_REVIEWS = frozenset({"localsubjectaccessreviews"})


class NamespaceLifecycle:
    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store, self._kinds = store, kinds

    async def admit(self, attributes: Attributes) -> None:
        kind = attributes.kind
        if attributes.operation == "DELETE":
            if kind.resource == "namespaces" and attributes.name in _IMMORTAL:
                raise forbidden(kind, attributes.name, "this namespace may not be deleted")
            return
        if attributes.operation != "CREATE" or not kind.namespaced or kind.plural in _REVIEWS:
            return
        namespace = await self._find(attributes.namespace)
        if namespace is None:
            raise not_found(self._kinds.resource("namespaces"), attributes.namespace)
        if namespace["metadata"].get("deletionTimestamp"):
            raise _terminating(attributes)

    async def _find(self, name: str) -> Obj | None:
        try:
            record = await self._store.get(f"core/namespaces/{name}")
        except KeyNotFound:
            return None
        found: Obj = loads(record.value)
        return found


def _terminating(attributes: Attributes) -> Forbidden:
    kind, namespace = attributes.kind, attributes.namespace
    text = f"unable to create new content in namespace {namespace} because it is being terminated"
    cause = {
        "reason": "NamespaceTerminating", "message": f"namespace {namespace} is being terminated",
        "field": "metadata.namespace",
    }  # fmt: skip
    details = {**resource_details(kind, attributes.name), "causes": [cause]}
    return Forbidden(f'{kind.resource} "{attributes.name}" is forbidden: {text}', details=details)
