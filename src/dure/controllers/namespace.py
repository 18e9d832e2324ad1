"""Namespace deletion: everything inside goes first, pods before the rest; then the finalizer is taken away.

Conditions and their words follow upstream's namespaced resources deleter: they say what is left and who holds it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dure.api.kind import Kind, Kinds
from dure.api.meta import ObjectKey, is_deleting, with_condition
from dure.control.controller import Controller, Result
from dure.controllers.shared import Context, itself
from dure.core.errors import ApiError, MethodNotAllowed, NotFound
from dure.core.json import Obj, thaw

_FINALIZER = "kubernetes"
_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.5, 15.0


@dataclass(slots=True)
class Remains:
    """What is still in a namespace after everything in it was asked to go."""

    objects: dict[str, int] = field(default_factory=dict)
    finalizers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.objects or self.failures)

    def conditions(self) -> list[dict[str, str]]:
        held = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(self.finalizers.items()))
        left = ", ".join(f"{name} has {count} resource instances" for name, count in self.objects.items())
        return [
            _condition(
                "NamespaceDeletionContentFailure",
                ("ContentDeletionFailed", "; ".join(self.failures)) if self.failures else None,
                ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            ),
            _condition(
                "NamespaceContentRemaining",
                ("SomeResourcesRemain", f"Some resources are remaining: {left}") if left else None,
                ("ContentRemoved", "All content successfully removed"),
            ),
            _condition(
                "NamespaceFinalizersRemaining",
                ("SomeFinalizersRemain", f"Some content in the namespace has finalizers remaining: {held}")
                if held
                else None,
                ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            ),
        ]


def _condition(type_: str, bad: tuple[str, str] | None, good: tuple[str, str]) -> dict[str, str]:
    reason, message = bad or good
    return {"type": type_, "status": "True" if bad else "False", "reason": reason, "message": message}


class NamespaceReconciler:
    def __init__(self, context: Context, kinds: Kinds) -> None:
        self._context = context
        self._client = context.client
        self._kinds = kinds
        self._namespaces = context.informers.of("namespaces")
        self._pods = context.informers.of("pods")
        self._looks: dict[str, int] = {}
        """How often each ending namespace was looked at in vain."""

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
        if namespace is None or not is_deleting(namespace) or not _is_ours(namespace):
            self._looks.pop(key.name, None)
            return Result()
        remains = await self._empty(key.name)
        if remains:
            await self._explain(namespace, remains)
            return Result(requeue_after=self._next_look(key.name))
        changed = thaw(namespace)
        changed["spec"]["finalizers"] = [name for name in changed["spec"]["finalizers"] if name != _FINALIZER]
        try:
            await self._client.update(changed, subresource="finalize")
        except NotFound:
            return Result()
        return Result()

    def _next_look(self, name: str) -> float:
        """Nobody tells when the last object of any kind has lost its finalizers."""
        looks = self._looks[name] = self._looks.get(name, 0) + 1
        return min(_LONGEST_LOOK_SECONDS, _FIRST_LOOK_SECONDS * 2.0 ** min(looks, 10))

    async def _empty(self, namespace: str) -> Remains:
        remains = Remains()
        for kind in self._contents():
            try:
                await self._clear(kind, namespace, remains)
            except ApiError as error:
                remains.failures.append(f"{_shown(kind)}: {error.message}")
            if kind.resource == "pods" and remains:
                break  # what a pod uses stays as long as the pod
        return remains

    def _contents(self) -> list[Kind]:
        """One kind for each resource that holds objects of its own, pods first."""
        found = {
            kind.resource: kind
            for kind in self._kinds
            if kind.namespaced and {"deletecollection", "list"} <= kind.verbs and kind.conversion is None
        }
        return sorted(found.values(), key=lambda kind: (kind.resource != "pods", kind.resource))

    async def _clear(self, kind: Kind, namespace: str, remains: Remains) -> None:
        items = (await self._client.list(kind.resource, namespace)).items
        if not items:
            return
        if not all(map(is_deleting, items)):
            try:
                await self._client.delete_collection(kind.resource, namespace)
            except (NotFound, MethodNotAllowed):
                return
            items = (await self._client.list(kind.resource, namespace)).items
        if items:
            remains.objects[_shown(kind)] = len(items)
            remains.finalizers.update(name for item in items for name in item["metadata"].get("finalizers") or [])

    async def _explain(self, namespace: Obj, remains: Remains) -> None:
        before = (namespace.get("status") or {}).get("conditions") or []
        conditions = before
        for entry in remains.conditions():
            conditions = with_condition(conditions, entry, self._context.now())
        if conditions == before:
            return
        patch = {"status": {"conditions": conditions}}
        try:
            await self._client.patch("namespaces", namespace["metadata"]["name"], "", patch, subresource="status")
        except NotFound:
            return  # gone meanwhile


def _is_ours(namespace: Obj) -> bool:
    return _FINALIZER in ((namespace.get("spec") or {}).get("finalizers") or [])


def _shown(kind: Kind) -> str:
    """`pods.` and `deployments.apps`, as upstream writes them here."""
    return f"{kind.plural}.{kind.group}"
