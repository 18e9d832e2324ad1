"""Namespace deletion: everything inside goes first, pods before the rest; then the finalizer is taken away."""

from __future__ import annotations

from dure.api.kind import Kinds
from dure.api.meta import ObjectKey, is_deleting, with_condition
from dure.control.controller import Controller, Result
from dure.controllers.shared import Context, itself
from dure.core.errors import ApiError, MethodNotAllowed, NotFound
from dure.core.json import Obj, thaw

_FINALIZER = "kubernetes"
_LOOK_AGAIN_SECONDS = 1.0


class NamespaceReconciler:
    def __init__(self, context: Context, kinds: Kinds) -> None:
        self._context = context
        self._client = context.client
        self._kinds = kinds
        self._namespaces = context.informers.of("namespaces")
        self._pods = context.informers.of("pods")
        self._watched: Controller | None = None

    def build(self) -> Controller:
        controller = Controller("namespace", self, workers=5)
        controller.watches(self._namespaces, itself)
        self._pods.on_change(lambda old, new: self._pod_gone(controller, old, new))
        return controller

    def _pod_gone(self, controller: Controller, old: Obj | None, new: Obj | None) -> None:
        if old is None or new is not None:
            return
        key = ObjectKey("", old["metadata"]["namespace"])
        namespace = self._namespaces.get(key)
        if namespace is not None and is_deleting(namespace):
            controller.queue.add(key)

    async def reconcile(self, key: ObjectKey) -> Result:
        namespace = self._namespaces.get(key)
        if namespace is None or not is_deleting(namespace):
            return Result()
        if _FINALIZER not in (namespace["spec"].get("finalizers") or []):
            return Result()
        left, failures = await self._empty(key.name)
        if left or failures:
            await self._explain(namespace, left, failures)
            return Result(requeue_after=_LOOK_AGAIN_SECONDS)
        changed = thaw(namespace)
        changed["spec"]["finalizers"] = [name for name in changed["spec"]["finalizers"] if name != _FINALIZER]
        try:
            await self._client.update(changed, subresource="finalize")
        except NotFound:
            return Result()
        return Result()

    async def _empty(self, namespace: str) -> tuple[dict[str, int], list[str]]:
        """What is left of each resource, and what could not be deleted."""
        left: dict[str, int] = {}
        failures: list[str] = []
        resources = sorted(
            {kind.resource for kind in self._kinds if kind.namespaced and {"deletecollection", "list"} <= kind.verbs},
            key=lambda resource: (resource != "pods", resource),
        )
        for resource in resources:
            try:
                count = await self._clear(resource, namespace)
            except ApiError as error:
                failures.append(f"{resource}: {error.message}")
                continue
            if count:
                left[resource] = count
                if resource == "pods":
                    break
        return left, failures

    async def _clear(self, resource: str, namespace: str) -> int:
        items = (await self._client.list(resource, namespace)).items
        if not items:
            return 0
        try:
            await self._client.delete_collection(resource, namespace)
        except (NotFound, MethodNotAllowed):
            return 0
        return len((await self._client.list(resource, namespace)).items)

    async def _explain(self, namespace: Obj, left: dict[str, int], failures: list[str]) -> None:
        now = self._context.now()
        remaining = ", ".join(f"{resource} has {count} resource instances" for resource, count in left.items())
        entries = [
            {
                "type": "NamespaceDeletionContentFailure",
                "status": "True" if failures else "False",
                "reason": "ContentDeletionFailed" if failures else "ContentDeleted",
                "message": "; ".join(failures) or "All content successfully deleted, may be waiting on finalization",
            },
            {
                "type": "NamespaceContentRemaining",
                "status": "True" if left else "False",
                "reason": "SomeResourcesRemain" if left else "ContentRemoved",
                "message": f"Some resources are remaining: {remaining}" if left else "All content successfully removed",
            },
        ]
        conditions = (namespace.get("status") or {}).get("conditions") or []
        for entry in entries:
            conditions = with_condition(conditions, entry, now)
        if conditions == (namespace.get("status") or {}).get("conditions"):
            return
        name = namespace["metadata"]["name"]
        patch = {"status": {"conditions": conditions}}
        try:
            await self._client.patch("namespaces", name, "", patch, subresource="status")
        except NotFound:
            return  # gone meanwhile
