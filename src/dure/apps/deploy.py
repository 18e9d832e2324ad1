"""The main job: build what has a Dockerfile, apply the manifests, wait until everything is as asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dure.api.meta import key_of
from dure.apps.application import Application, ImageSource, bare_name, images_in
from dure.apps.applier import Applied, Applier
from dure.apps.rollout_watch import WORKLOADS, addresses, failure_of, pods_of, trouble_of, waiting_for
from dure.client.client import Client
from dure.core.aio import running
from dure.core.errors import DureError, Expired, TransportError
from dure.core.json import Obj
from dure.images.builder import build
from dure.images.builder.parser import parse_dockerfile
from dure.images.errors import DockerfileError, ImageError
from dure.images.service import ImageStore

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
        found |= {name for name in images_in(obj) if bare_name(name) not in own}
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
    try:
        image = await build(
            source.context,
            dockerfile=source.dockerfile,
            tag=f"{BUILT_DOMAIN}/{source.name}:latest",
            target=source.target,
            args=dict(source.args),
            store=store,
            progress=lambda text: progress(f"{source.name}: {text}"),
        )
    except ImageError as error:
        raise DeployFailed(f"image {source.name} ({source.context / source.dockerfile}): {error}") from error
    exact = f"{BUILT_DOMAIN}/{source.name}:{image.id.removeprefix('sha256:')[:12]}"
    await store.tag(f"{BUILT_DOMAIN}/{source.name}:latest", exact)
    return exact


class Deployer:
    """Applies one application and waits for it."""

    def __init__(self, client: Client, app: Application, built: Mapping[str, str]) -> None:
        self._client = client
        self._app = app
        self._built = built
        self._applied: list[Applied] = []
        self._changed = asyncio.Event()

    async def apply(self, done: Say) -> list[str]:
        """Each object as `resource/namespace/name`. Raises as Applier does."""
        self._applied = await Applier(self._client, self._app, self._built).apply(done)
        return [f"{kind.resource}/{key}" for kind, key in self._applied]

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
                        raise DeployFailed(self._told("it will not come up:", lost))
                    if lacking:
                        progress("waiting for " + "; ".join(lacking))
                        await self._changed.wait()
        except TimeoutError as error:
            raise DeployFailed(self._told(f"not ready after {within:.0f} s:", lacking)) from error
        return await self._urls()

    def _told(self, head: str, parts: list[str]) -> str:
        """One part a line, and where to look closer."""
        namespace = next((key.namespace for kind, key in self._applied if kind.namespaced), self._app.namespace)
        look = f"dure kubectl -n {namespace} describe pods, dure kubectl -n {namespace} logs POD"
        return "\n  ".join([head, *parts, f"→ look closer: {look}"])

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
            failure, wait = failure_of(obj), waiting_for(obj)
            if failure or wait:
                trouble, hopeless = await self._trouble(obj)
                text = f"{label} {failure or wait}" + (f" ({trouble})" if trouble else "")
                (lost if failure or hopeless else lacking).append(text)
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
