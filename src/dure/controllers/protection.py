"""Storage in use is not deleted: a claim stays while a pod mounts it, a volume while it is bound.

The finalizers are upstream's `kubernetes.io/pvc-protection` and `kubernetes.io/pv-protection`.
"""

from __future__ import annotations

from dure.api.meta import ObjectKey, is_deleting, key_of, name_of, namespace_of, uid_of
from dure.control.controller import Controller, Result
from dure.controllers.pods import is_finished
from dure.controllers.shared import Context, itself
from dure.core.errors import NotFound
from dure.core.json import Obj

_CLAIM, _VOLUME = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"


def claims_of(pod: Obj) -> list[str]:
    """Names of the claims a pod mounts; an ephemeral volume's claim is named after both."""
    found = []
    for volume in pod["spec"].get("volumes") or []:
        if "persistentVolumeClaim" in volume:
            found.append(volume["persistentVolumeClaim"]["claimName"])
        elif "ephemeral" in volume:
            found.append(f"{name_of(pod)}-{volume['name']}")
    return found


def mounts(pod: Obj, claim: str) -> bool:
    """Whether the claim may be in use by the pod: before it has a node, and once it has finished, it is not."""
    return bool(pod["spec"].get("nodeName")) and not is_finished(pod) and claim in claims_of(pod)


class ProtectionReconciler:
    """Keyed by PersistentVolumeClaim; also by volume, under an empty namespace."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._claims = context.informers.of("persistentvolumeclaims")
        self._volumes = context.informers.of("persistentvolumes")
        self._pods = context.informers.of("pods")

    def build(self) -> Controller:
        controller = Controller("storage-protection", self, workers=2)
        controller.watches(self._claims, itself)
        controller.watches(self._volumes, itself)
        controller.watches(self._pods, self._ending_claims_of)
        return controller

    def _ending_claims_of(self, pod: Obj) -> list[ObjectKey]:
        keys = [ObjectKey(namespace_of(pod), name) for name in claims_of(pod)]
        return [key for key in keys if (claim := self._claims.get(key)) and is_deleting(claim)]

    async def reconcile(self, key: ObjectKey) -> Result:
        if key.namespace:
            claim = self._claims.get(key)
            if claim is not None:
                await self._guard("persistentvolumeclaims", claim, _CLAIM)
        else:
            volume = self._volumes.get(key)
            if volume is not None:
                await self._guard("persistentvolumes", volume, _VOLUME)
        return Result()

    async def _guard(self, resource: str, obj: Obj, finalizer: str) -> None:
        has_guard = finalizer in (obj["metadata"].get("finalizers") or [])
        if not is_deleting(obj):
            if not has_guard:
                await self._amend(resource, obj, {"finalizers": [finalizer]})
        elif has_guard and not await self._is_used(obj):
            await self._amend(resource, obj, {"$deleteFromPrimitiveList/finalizers": [finalizer]})

    async def _is_used(self, obj: Obj) -> bool:
        """The cache may lag behind: a claim that seems free is asked for at the API."""
        namespace, name = key_of(obj)
        if not namespace:
            return (obj.get("status") or {}).get("phase") == "Bound"
        if any(mounts(pod, name) for pod in self._pods.list(namespace)):
            return True
        return any(mounts(pod, name) for pod in (await self._client.list("pods", namespace)).items)

    async def _amend(self, resource: str, obj: Obj, meta: Obj) -> None:
        namespace, name = key_of(obj)
        patch = {"metadata": {"uid": uid_of(obj), **meta}}
        try:
            await self._client.patch(resource, name, namespace, patch, type="strategic")
        except NotFound:
            return  # gone already
