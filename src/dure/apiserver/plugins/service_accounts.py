"""Every pod runs as a service account whose token, CA bundle and namespace are mounted into its containers."""

from __future__ import annotations

import asyncio
from typing import Any

from dure.apiserver.admission import Attributes
from dure.apiserver.errors import forbidden
from dure.core.ids import random_suffix
from dure.core.json import Obj, loads
from dure.store.model import KeyNotFound, Store

_MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_TOKEN_SECONDS = 3607
_MIRROR = "kubernetes.io/config.mirror"
_DEFAULT = "default"
_DEFAULT_WITHIN = 2.0
"""Seconds for a controller to make the default account of a new namespace; pods sent right after it wait that long."""


class ServiceAccounts:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def admit(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.operation != "CREATE" or attributes.kind.resource != "pods" or pod is None:
            return
        if _MIRROR in (pod["metadata"].get("annotations") or {}):
            return
        spec = pod["spec"]
        name = spec.setdefault("serviceAccountName", _DEFAULT) or _DEFAULT
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._find(attributes.namespace, name)
        if account is None and name == _DEFAULT:
            account = await self._wait_made(attributes.namespace, name)
        if account is None:
            why = f'error looking up service account {attributes.namespace}/{name}: serviceaccount "{name}" not found'
            raise forbidden(attributes.kind, attributes.name, why)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]
        if _mounts_token(spec, account):
            _mount_token(spec)

    async def _find(self, namespace: str, name: str) -> Obj | None:
        try:
            record = await self._store.get(f"core/serviceaccounts/{namespace}/{name}")
        except KeyNotFound:
            return None
        found: Obj = loads(record.value)
        return found

    async def _wait_made(self, namespace: str, name: str) -> Obj | None:
        """The account once it is there, None if it does not come in time."""
        key = f"core/serviceaccounts/{namespace}/{name}"
        try:
            async with asyncio.timeout(_DEFAULT_WITHIN), self._store.watch(key, since=self._store.revision) as watch:
                while (account := await self._find(namespace, name)) is None:
                    await watch.take()
                return account
        except TimeoutError:
            return None


def _mounts_token(spec: Obj, account: Obj) -> bool:
    """The pod's word counts before the account's; the default is yes."""
    for holder in (spec, account):
        wanted = holder.get("automountServiceAccountToken")
        if wanted is not None:
            return bool(wanted)
    return True


def _mount_token(spec: Obj) -> None:
    """Into every container that mounts nothing there itself."""
    volumes: list[Obj] = spec.setdefault("volumes", [])
    present = next((v["name"] for v in volumes if v["name"].startswith("kube-api-access-")), None)
    volume = present or f"kube-api-access-{random_suffix()}"
    needed = False
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        mounts = container.setdefault("volumeMounts", [])
        if not any(mount.get("mountPath") == _MOUNT_PATH for mount in mounts):
            mounts.append({"name": volume, "readOnly": True, "mountPath": _MOUNT_PATH})
            needed = True
    if needed and present is None:
        volumes.append({"name": volume, "projected": {"defaultMode": 0o644, "sources": _sources()}})
    if not volumes:
        del spec["volumes"]


def _sources() -> list[dict[str, Any]]:
    return [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
