"""What every namespace is given: the `default` service account and the cluster's root certificate."""

from __future__ import annotations

from dure.api.meta import ObjectKey, is_deleting
from dure.control.controller import Controller, Result
from dure.controllers.shared import Context, itself
from dure.core.errors import AlreadyExists, Forbidden, NotFound
from dure.core.json import Obj, thaw

_ROOT_CA = "kube-root-ca.crt"


class NamespaceFurnisher:
    """Keyed by Namespace."""

    def __init__(self, context: Context, root_certificate: str) -> None:
        self._client = context.client
        self._namespaces = context.informers.of("namespaces")
        self._accounts = context.informers.of("serviceaccounts")
        self._maps = context.informers.of("configmaps")
        self._root = root_certificate

    def build(self) -> Controller:
        controller = Controller("namespace-furniture", self, workers=5)
        controller.watches(self._namespaces, itself)
        controller.watches(self._accounts, lambda obj: self._namespace_of(obj, "default"))
        controller.watches(self._maps, lambda obj: self._namespace_of(obj, _ROOT_CA))
        return controller

    @staticmethod
    def _namespace_of(obj: Obj, name: str) -> list[ObjectKey]:
        return [ObjectKey("", obj["metadata"]["namespace"])] if obj["metadata"]["name"] == name else []

    async def reconcile(self, key: ObjectKey) -> Result:
        namespace = self._namespaces.get(key)
        if namespace is None or is_deleting(namespace):
            return Result()
        try:
            await self._give_account(key.name)
            await self._give_certificate(key.name)
        except (NotFound, Forbidden):
            return Result()  # the namespace is going
        return Result()

    async def _give_account(self, namespace: str) -> None:
        if self._accounts.get(ObjectKey(namespace, "default")) is None:
            body = {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": namespace},
            }
            await self._create(body)

    async def _give_certificate(self, namespace: str) -> None:
        there = self._maps.get(ObjectKey(namespace, _ROOT_CA))
        data = {"ca.crt": self._root}
        if there is None:
            note = "the certificate authority that signs the API server; for checking connections to it"
            meta = {
                "name": _ROOT_CA,
                "namespace": namespace,
                "annotations": {"kubernetes.io/description": note},
            }
            await self._create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
        elif there.get("data") != data:
            changed = thaw(there)
            changed["data"] = data
            await self._client.update(changed)

    async def _create(self, body: Obj) -> None:
        try:
            await self._client.create(body)
        except AlreadyExists:
            return  # made meanwhile; the cache will show it
