"""Applies an application's objects, after the API has been asked what it makes of each: nothing is left half-done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dure.api.crd import is_established, kinds_of
from dure.api.kind import Kind
from dure.api.meta import ObjectKey, gvk_of, key_of, name_of, namespace_of
from dure.apps.application import Application, with_images
from dure.client.client import Client
from dure.core.errors import BadRequest, ConfigError, DureError, Expired, Forbidden, Invalid, NotFound
from dure.core.json import Obj, thaw

MANAGER = "dure-deploy"

_CRDS = "customresourcedefinitions.apiextensions.k8s.io"
_SETTLE_SECONDS = 10.0
"""How long a new namespace may take to have its service account, and a new kind to be served."""

Say = Callable[[str], None]


class ObjectsRefused(DureError):
    """The API finds objects of the application invalid; none of it was applied."""


class Applied(NamedTuple):
    kind: Kind
    key: ObjectKey

    @property
    def label(self) -> str:
        """As in `deployment shop/web`."""
        return f"{self.kind.singular or self.kind.plural} {self.key}"


class Applier:
    """One application, with the images that were built for it."""

    def __init__(self, client: Client, app: Application, built: Mapping[str, str]) -> None:
        self._client = client
        self._app = app
        self._built = built
        self._namespaces: set[str] = set()

    async def apply(self, done: Say) -> list[Applied]:
        """Server-side apply of every object, in order. Raises ConfigError and ObjectsRefused before the first."""
        own = await self._learn_kinds()
        objects = [self._prepared(obj) for obj in self._app.objects]
        await self._check([obj for obj in objects if self._kind_of(obj).resource not in own])
        applied = []
        for obj in objects:
            applied.append(await self._apply(obj))
            done(applied[-1].label)
        return applied

    async def _learn_kinds(self) -> set[str]:
        """Make custom kinds known to the client; gives the resources that only come with the application."""
        known = (await self._client.list(_CRDS)).items
        coming = [
            await self._client.apply(thaw(obj), manager=MANAGER, force=True, strict=True, dry_run=True)
            for obj in self._app.objects
            if obj["kind"] == "CustomResourceDefinition"
        ]
        for kind in (kind for crd in [*known, *coming] for kind in kinds_of(crd)):
            self._client.kinds.add(kind)
        return {kind.resource for crd in coming for kind in kinds_of(crd)} - {name_of(crd) for crd in known}

    def _kind_of(self, obj: Obj) -> Kind:
        kind = self._client.kinds.of(gvk_of(obj))
        if kind is None:
            raise ConfigError(
                f"{obj['kind']} {obj['apiVersion']} is not served here (object {name_of(obj)})",
                "see `dure kubectl api-resources`; a kind of your own needs its CustomResourceDefinition",
            )
        return kind

    def _prepared(self, obj: Obj) -> Obj:
        obj = with_images(thaw(obj), self._built)
        if self._kind_of(obj).namespaced:
            obj["metadata"].setdefault("namespace", self._app.namespace)
        return obj

    async def _check(self, objects: list[Obj]) -> None:
        """What cannot be known yet, as in a namespace that is still to come, is left to the real thing."""
        wrong = []
        for obj in objects:
            try:
                await self._client.apply(obj, manager=MANAGER, force=True, strict=True, dry_run=True)
            except Invalid as error:
                wrong.append(str(error))
            except BadRequest as error:
                wrong.append(f"{obj['kind']} {name_of(obj)}: {error}")
            except (NotFound, Forbidden):
                continue
        if wrong:
            raise ObjectsRefused("\n  ".join(["nothing was applied:", *wrong]))

    async def _apply(self, obj: Obj) -> Applied:
        kind = self._kind_of(obj)
        if kind.namespaced:
            await self._ensure_namespace(namespace_of(obj))
        result = await self._client.apply(obj, manager=MANAGER, force=True, strict=True)
        if kind.resource == _CRDS:
            await self._wait_until(_CRDS, "", name_of(obj), is_established)
        return Applied(kind, key_of(result))

    async def _ensure_namespace(self, name: str) -> None:
        """There, with the service account that its pods run as."""
        if name in self._namespaces:
            return
        try:
            await self._client.get("namespaces", name)
        except NotFound:
            await self._client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        await self._wait_until("serviceaccounts", name, "default", lambda _: True)
        self._namespaces.add(name)

    async def _wait_until(self, resource: str, namespace: str, name: str, is_so: Callable[[Obj], bool]) -> None:
        """Until the object is there and `is_so`; not for ever, for what comes next tells best what is missing."""
        fields = f"metadata.name={name}"
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                while True:
                    found = await self._client.list(resource, namespace, fields=fields)
                    if any(map(is_so, found.items)):
                        return
                    await self._wait_change(resource, namespace, fields, found.revision)
        except TimeoutError:
            return

    async def _wait_change(self, resource: str, namespace: str, fields: str, since: str) -> None:
        try:
            async with self._client.watch(resource, namespace, since=since, fields=fields) as events:
                async for event in events:
                    if event.type != "BOOKMARK":
                        return
        except Expired:
            return
