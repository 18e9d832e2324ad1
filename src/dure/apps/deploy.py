"""The main job: build what has a Dockerfile, apply the manifests, wait until everything is as asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dure.api.kind import Kind, Kinds
from dure.api.meta import ObjectKey, gvk_of, key_of, name_of
from dure.apps.application import Application, ImageSource, images_in, with_images
from dure.apps.rollout_watch import WORKLOADS, addresses, failure_of, pods_of, trouble_of, waiting_for
from dure.client.client import Client
from dure.core.aio import running
from dure.core.errors import ConfigError, DureError, Expired, NotFound, TransportError
from dure.core.json import Obj, thaw
from dure.images.builder import build
from dure.images.builder.parser import parse_dockerfile
from dure.images.errors import DockerfileError
from dure.images.service import ImageStore

MANAGER = "dure-deploy"
BUILT_DOMAIN = "dure.local"

_RETRY_SECONDS = 0.5

Say = Callable[[str], None]


class DeployFailed(DureError):
    """The application does not come up; the text names each part and its trouble."""


@dataclass(slots=True)
class Outcome:
    """What became of it."""

    application: str
    images: dict[str, str] = field(default_factory=dict)
    objects: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)


async def build_images(app: Application, store: ImageStore, progress: Say, done: Say) -> dict[str, str]:
    """Name in the manifests → reference of exactly what was built. One after the other: they share the machine."""
    built: dict[str, str] = {}
    await store.make_stand_ins(wanted_images(app), progress)
    for source in app.images:
        built[source.name] = await build_one(source, store, progress)
        done(f"image {source.name}")
    await store.settle()
    return built


def wanted_images(app: Application) -> set[str]:
    """Names of images that are not built here: those the Dockerfiles start from and those the manifests use."""
    own = {source.name for source in app.images}
    found = {name for source in app.images for name in _bases(source)}
    for obj in app.objects:
        found |= {name for name in images_in(obj) if name.split("@")[0].split(":")[0] not in own}
    return found


def _bases(source: ImageSource) -> set[str]:
    """What the stages of a Dockerfile start from, as far as it can be told without building."""
    try:
        parsed = parse_dockerfile((source.context / source.dockerfile).read_text())
    except (DockerfileError, UnicodeDecodeError):
        return set()  # the build itself will say what is wrong
    stages = {stage.name for stage in parsed.stages}
    return {stage.base for stage in parsed.stages if "$" not in stage.base} - stages - {"scratch"}


async def build_one(source: ImageSource, store: ImageStore, progress: Say) -> str:
    """The reference carries a part of the image's id, so that a change of it is a change of the manifest."""
    image = await build(
        source.context,
        dockerfile=source.dockerfile,
        tag=f"{BUILT_DOMAIN}/{source.name}:latest",
        target=source.target,
        args=dict(source.args),
        store=store,
        progress=lambda text: progress(f"{source.name}: {text}"),
    )
    exact = f"{BUILT_DOMAIN}/{source.name}:{image.id.removeprefix('sha256:')[:12]}"
    await store.tag(f"{BUILT_DOMAIN}/{source.name}:latest", exact)
    return exact


class Deployer:
    """Applies one application and waits for it."""

    def __init__(self, client: Client, kinds: Kinds, app: Application, built: Mapping[str, str]) -> None:
        self._client = client
        self._kinds = kinds
        self._app = app
        self._built = built
        self._applied: list[tuple[Kind, ObjectKey]] = []
        self._changed = asyncio.Event()

    async def apply(self, done: Say) -> list[str]:
        """Server-side apply of every object; raises ApiError naming the object that was refused."""
        for obj in self._app.objects:
            prepared = self._prepared(obj)
            kind = self._kind_of(prepared)
            if kind.namespaced:
                await self._ensure_namespace(prepared["metadata"]["namespace"])
            result = await self._client.apply(prepared, manager=MANAGER, force=True)
            self._applied.append((kind, key_of(result)))
            done(f"{kind.singular or kind.plural} {key_of(result)}")
        return [f"{kind.resource}/{key}" for kind, key in self._applied]

    def _kind_of(self, obj: Obj) -> Kind:
        kind = self._kinds.of(gvk_of(obj))
        if kind is None:
            raise ConfigError(f"{obj['kind']} {obj['apiVersion']} is not served here (object {name_of(obj)})")
        return kind

    def _prepared(self, obj: Obj) -> Obj:
        obj = with_images(thaw(obj), self._built)
        if self._kind_of(obj).namespaced:
            obj["metadata"].setdefault("namespace", self._app.namespace)
        return obj

    async def _ensure_namespace(self, name: str) -> None:
        try:
            await self._client.get("namespaces", name)
        except NotFound:
            await self._client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    async def wait_ready(self, progress: Say, *, within: float) -> list[str]:
        """The URLs once all parts are as asked. Raises DeployFailed with what each part lacks."""
        namespaces = {key.namespace for kind, key in self._applied if kind.namespaced} or {self._app.namespace}
        watches = [self._watch(resource, name) for name in namespaces for resource in ("pods", *self._resources())]
        lacking: list[str] = ["nothing looked at yet"]
        try:
            async with running(*watches), asyncio.timeout(within):
                while lacking:
                    self._changed.clear()
                    try:
                        lacking, lost = await self._look()
                    except TransportError:
                        progress("the API does not answer, trying again")
                        await asyncio.sleep(_RETRY_SECONDS)
                        continue
                    if lost:
                        raise DeployFailed("; ".join(lost))
                    if lacking:
                        progress("waiting for " + "; ".join(lacking))
                        await self._changed.wait()
        except TimeoutError as error:
            raise DeployFailed(f"not ready after {within:.0f} s: " + "; ".join(lacking)) from error
        return await self._urls()

    def _resources(self) -> list[str]:
        return sorted({WORKLOADS[kind.kind] for kind, _ in self._applied if kind.kind in WORKLOADS} - {"pods"})

    async def _watch(self, resource: str, namespace: str) -> None:
        """Wakes the waiter at each change, and after each interruption."""
        while True:
            try:
                since = (await self._client.list(resource, namespace)).revision
                self._changed.set()
                async with self._client.watch(resource, namespace, since=since) as events:
                    async for _ in events:
                        self._changed.set()
            except (TransportError, Expired):
                await asyncio.sleep(_RETRY_SECONDS)

    async def _look(self) -> tuple[list[str], list[str]]:
        """What is lacking still, and what is lost for good."""
        lacking: list[str] = []
        lost: list[str] = []
        for kind, key in self._applied:
            if kind.kind not in WORKLOADS:
                continue
            obj = await self._client.get(kind.resource, key.name, key.namespace)
            label = f"{kind.kind.lower()}/{key.name}"
            if failure := failure_of(obj):
                lost.append(f"{label}: {failure}")
            elif wait := waiting_for(obj):
                trouble, hopeless = await self._trouble(obj)
                text = f"{label} {wait}" + (f" ({trouble})" if trouble else "")
                (lost if hopeless else lacking).append(text)
        return lacking, lost

    async def _trouble(self, obj: Obj) -> tuple[str, bool]:
        namespace = key_of(obj).namespace
        pods = (await self._client.list("pods", namespace)).items
        sets = (await self._client.list("replicasets.apps", namespace)).items
        mine = [obj] if obj["kind"] == "Pod" else pods_of(obj, pods, sets)
        found = [trouble_of(pod) for pod in mine]
        return next((trouble for trouble in found if trouble[0]), ("", False))

    async def _urls(self) -> list[str]:
        found: list[str] = []
        for kind, key in self._applied:
            if kind.kind == "Service":
                found += addresses(await self._client.get("services", key.name, key.namespace))
        return found
