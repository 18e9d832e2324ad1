"""Sets up, keeps current and tears down the volumes of a pod: emptyDir, hostPath, payloads, claims.

Contents that may be secret (secret and projected volumes) lie on tmpfs, never on disk. Payload volumes follow their
sources by watch, the token by its own timer, downward values by the pod's object.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dure.api.quantities import whole
from dure.client.client import Client
from dure.core.clock import Clock
from dure.core.json import Obj
from dure.node.model import NodeConfig, path_segment
from dure.node.pods.downward import Downward
from dure.node.pods.model import all_containers
from dure.node.pods.ports import PodVolumes, TaskStarter, VolumeFailure
from dure.node.ports import ImageService, Mount
from dure.node.references import ObjectCache, References
from dure.node.volumes.claims import locate_claim
from dure.node.volumes.host_path import prepare_host_path
from dure.node.volumes.image_volume import image_mount_id, mount_image
from dure.node.volumes.kernel import Mounter
from dure.node.volumes.ownership import give_folders_to_group, give_to_group
from dure.node.volumes.payload_writer import write_payload
from dure.node.volumes.sources import SourceReader
from dure.node.volumes.subpath import checked_subpath, fix_subpath
from dure.node.volumes.tokens import TokenSource

log = logging.getLogger(__name__)

FOLDERS = {
    "emptyDir": "kubernetes.io~empty-dir",
    "configMap": "kubernetes.io~configmap",
    "secret": "kubernetes.io~secret",
    "downwardAPI": "kubernetes.io~downward-api",
    "projected": "kubernetes.io~projected",
}
PAYLOADS = ("configMap", "secret", "downwardAPI", "projected")
ON_TMPFS = ("secret", "projected")
PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared"}
RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LocalVolumes:
    """The volumes room of one node."""

    config: NodeConfig
    client: Client
    objects: ObjectCache
    images: ImageService
    mounter: Mounter
    clock: Clock

    def of(self, pod: Callable[[], Obj], tasks: TaskStarter, changed: Callable[[], None]) -> PodVolumes:
        return LocalPodVolumes(self, pod, tasks, changed)

    async def remove(self, pod_uid: str) -> None:
        await asyncio.to_thread(remove_volumes, self.config.pod_dir(pod_uid), self.mounter)


@dataclass(slots=True)
class LocalPodVolumes:
    """See `PodVolumes`."""

    room: LocalVolumes
    pod: Callable[[], Obj]
    tasks: TaskStarter
    on_change: Callable[[], None]
    sources: dict[str, str] = field(default_factory=dict)
    """Path on the node by volume name."""
    _references: References = field(init=False)
    _tokens: TokenSource = field(init=False)
    _dirty: asyncio.Event = field(default_factory=asyncio.Event)
    _keeper: Any = None

    def __post_init__(self) -> None:
        self._references = self.room.objects.references(self.changed)
        self._tokens = TokenSource(self.room.client, self.room.clock)

    @property
    def root(self) -> Path:
        return self.room.config.pod_dir(self.pod()["metadata"]["uid"])

    # --- set-up -------------------------------------------------------------------------------

    async def set_up(self) -> None:
        failures: list[str] = []

        async def attempt(volume: Obj) -> None:
            try:
                self.sources[volume["name"]] = await self._make(volume)
            except (VolumeFailure, OSError) as error:
                failures.append(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}')

        async with asyncio.TaskGroup() as tasks:
            for volume in self._volumes():
                tasks.create_task(attempt(volume))
        if failures:
            raise VolumeFailure(failures[0])
        if self._keeper is None and any(kind_of(volume) in PAYLOADS for volume in self._volumes()):
            self._dirty.clear()
            self._keeper = self.tasks.create_task(self._keep_current())

    def _volumes(self) -> list[Obj]:
        return self.pod()["spec"].get("volumes") or []

    async def _make(self, volume: Obj) -> str:
        kind = kind_of(volume)
        match kind:
            case "hostPath":
                return prepare_host_path(volume["hostPath"]["path"], volume["hostPath"].get("type") or "")
            case "persistentVolumeClaim":
                return await self._claim(volume["persistentVolumeClaim"])
            case "emptyDir":
                return str(self._empty_dir(volume))
            case "image":
                return await mount_image(self.room.images, self.pod(), volume, self._references, self.room.clock)
            case "configMap" | "secret" | "downwardAPI" | "projected":
                return str(await self._payload(volume, kind))
        raise VolumeFailure(f"this node knows no volume of kind {kind!r}")

    def _folder(self, kind: str, name: str) -> Path:
        return self.root / "volumes" / FOLDERS[kind] / path_segment(name)

    def _empty_dir(self, volume: Obj) -> Path:
        spec, folder = volume["emptyDir"] or {}, self._folder("emptyDir", volume["name"])
        if spec.get("medium") == "Memory":
            self.room.mounter.tmpfs(folder, mode=0o777, size_bytes=self._memory_limit(spec))
        elif not folder.exists():
            folder.mkdir(parents=True)
        folder.chmod(0o777)
        if (gid := self._fs_group) is not None:
            give_to_group(folder, gid, only_if_root_differs=True)
        return folder

    def _memory_limit(self, spec: Obj) -> int:
        """The volume's own limit, and no more than the containers may use where all of them are limited."""
        own = whole(spec["sizeLimit"]) if spec.get("sizeLimit") else 0
        limits = [
            ((item.get("resources") or {}).get("limits") or {}).get("memory", "0")
            for item in self.pod()["spec"]["containers"]
        ]
        total = sum(map(whole, limits)) if all(whole(limit) for limit in limits) else 0
        return min(own or total, total or own)

    async def _claim(self, source: Obj) -> str:
        namespace = self.pod()["metadata"].get("namespace", "")
        path = await locate_claim(namespace, source["claimName"], self._references.get)
        if (gid := self._fs_group) is not None and not source.get("readOnly"):
            once = (self._security.get("fsGroupChangePolicy") or "Always") == "OnRootMismatch"
            await asyncio.to_thread(give_to_group, Path(path), gid, only_if_root_differs=once)
        return path

    # --- payloads -----------------------------------------------------------------------------

    async def _payload(self, volume: Obj, kind: str) -> Path:
        files = await self._reader().read(volume)
        folder = self._folder(kind, volume["name"])
        if kind in ON_TMPFS:
            self.room.mounter.tmpfs(folder, mode=0o755)
        else:
            folder.mkdir(parents=True, exist_ok=True)
        now = datetime.fromtimestamp(self.room.clock.time(), UTC)
        stamp = f"..{now:%Y_%m_%d_%H_%M_%S}.{now.microsecond:06d}{len(list(folder.glob('..2*'))):03d}"
        gid = self._fs_group
        if write_payload(folder, files, stamp, gid=-1 if gid is None else gid) and gid is not None:
            give_folders_to_group(folder, gid)
        return folder

    def _reader(self) -> SourceReader:
        pod = self.pod()
        namespace = pod["metadata"].get("namespace", "")

        async def get(resource: str, name: str) -> Obj | None:
            return await self._references.get(resource, namespace, name)

        async def token(source: Obj) -> str:
            return await self._tokens.get(pod, source)

        return SourceReader(namespace, get, token, self._downward, self._fs_group, _one_user(pod))

    def _downward(self) -> Downward:
        pod = self.pod()
        return Downward.on_node(self.room.config, pod, (pod.get("status") or {}).get("podIP", ""))

    @property
    def _security(self) -> Obj:
        return self.pod()["spec"].get("securityContext") or {}

    @property
    def _fs_group(self) -> int | None:
        group = self._security.get("fsGroup")
        return None if group is None else int(group)

    # --- staying current ----------------------------------------------------------------------

    def changed(self) -> None:
        """Something a volume shows may have changed, the pod's own object included."""
        self._dirty.set()
        self.on_change()

    async def _keep_current(self) -> None:
        failing = False
        while True:
            await self._wait_due(RETRY_SECONDS if failing else None)
            self._dirty.clear()
            failing = not await self._refresh()

    async def _wait_due(self, at_most: float | None) -> None:
        renew_at = self._tokens.renew_at
        left = [seconds for seconds in (at_most, renew_at and renew_at - self.room.clock.time()) if seconds is not None]
        try:
            async with asyncio.timeout(max(0.0, min(left)) if left else None):
                await self._dirty.wait()
        except TimeoutError:
            return

    async def _refresh(self) -> bool:
        good = True
        for volume in self._volumes():
            kind = kind_of(volume)
            if kind not in PAYLOADS:
                continue
            try:
                await self._payload(volume, kind)
            except (VolumeFailure, OSError) as error:
                log.info("volume not refreshed", extra={"volume": volume["name"], "error": error})
                good = False
        return good

    # --- use and end --------------------------------------------------------------------------

    def mounts(self, container: Obj, expand: Callable[[str], str]) -> Sequence[Mount]:
        return list(self._mounts(container, expand))

    def _mounts(self, container: Obj, expand: Callable[[str], str]) -> Iterator[Mount]:
        kinds = {volume["name"]: volume for volume in self._volumes()}
        for index, entry in enumerate(container.get("volumeMounts") or []):
            source = self.sources.get(entry["name"])
            if source is None:
                raise VolumeFailure(f'volume "{entry["name"]}" is not set up')
            volume = kinds[entry["name"]]
            read_only = bool(entry.get("readOnly")) or _is_read_only(volume)
            subpath = entry.get("subPath") or (expand(entry["subPathExpr"]) if entry.get("subPathExpr") else "")
            if subpath:
                anchor = self.root / "volume-subpaths" / path_segment(entry["name"]) / container["name"] / str(index)
                source = fix_subpath(
                    source, checked_subpath(subpath), anchor, self.room.mounter, read_only=kind_of(volume) in PAYLOADS
                )
            propagation: Any = PROPAGATION.get(entry.get("mountPropagation") or "", "private")
            yield Mount(source, entry["mountPath"], read_only, propagation)

    async def tear_down(self) -> None:
        self._stop_keeping()
        for volume in self._volumes():
            if kind_of(volume) == "image":
                await self.room.images.unmount(image_mount_id(self.pod(), volume))
        await asyncio.to_thread(remove_volumes, self.root, self.room.mounter)
        self.sources.clear()

    def close(self) -> None:
        self._stop_keeping()
        self._references.close()

    def _stop_keeping(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None


def kind_of(volume: Obj) -> str:
    """The one field beside the name."""
    return next((name for name, value in volume.items() if name != "name" and value is not None), "emptyDir")


def remove_volumes(pod_dir: Path, mounter: Mounter) -> None:
    """Unmount and remove everything below a pod's folder. Safe to repeat."""
    mounter.unmount_below(pod_dir)
    for name in ("volumes", "volume-subpaths"):
        shutil.rmtree(pod_dir / name, ignore_errors=True)


def _is_read_only(volume: Obj) -> bool:
    """Payloads are written by the node alone."""
    if kind_of(volume) in (*PAYLOADS, "image"):
        return True
    return bool((volume.get("persistentVolumeClaim") or {}).get("readOnly"))


def _one_user(pod: Obj) -> int | None:
    """The uid all containers run as, if it is known and the same."""
    default = (pod["spec"].get("securityContext") or {}).get("runAsUser")
    users = {(item.get("securityContext") or {}).get("runAsUser", default) for item in all_containers(pod)}
    only = next(iter(users)) if len(users) == 1 else None
    return None if only is None else int(only)
