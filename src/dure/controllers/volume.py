"""Claims find volumes: a bound pair by name, a matching free volume, or a new folder on this machine.

The local provisioner serves the storage class `standard`: a volume is a folder below the platform's data
folder, and goes with its claim (reclaim policy Delete) unless told to stay.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from dure.api.meta import ObjectKey, annotations_of, is_deleting, key_of, labels_of, name_of, namespace_of, uid_of
from dure.api.quantities import whole
from dure.api.selectors import from_label_selector
from dure.client.events import EventType
from dure.control.controller import Controller, Result
from dure.controllers.shared import Context, itself, write_status
from dure.core.errors import AlreadyExists, NotFound
from dure.core.json import Obj, thaw

PROVISIONER = "dure.dev/local"
DEFAULT_CLASS = "standard"
_IS_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def default_storage_class() -> Obj:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": DEFAULT_CLASS, "annotations": {_IS_DEFAULT: "true"}},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def fits(claim: Obj, volume: Obj) -> bool:
    """Whether a free volume satisfies the claim."""
    spec, offered = claim["spec"], volume["spec"]
    reserved = offered.get("claimRef")
    if reserved and not _is_for(reserved, claim):
        return False
    if spec.get("volumeName"):
        return bool(spec["volumeName"] == name_of(volume))
    if (spec.get("storageClassName") or "") != (offered.get("storageClassName") or ""):
        return False
    if not set(spec.get("accessModes") or ()) <= set(offered.get("accessModes") or ()):
        return False
    if (spec.get("volumeMode") or "Filesystem") != (offered.get("volumeMode") or "Filesystem"):
        return False
    selector = from_label_selector(spec.get("selector") or {})
    if selector and not selector.matches(labels_of(volume)):
        return False
    wanted = ((spec.get("resources") or {}).get("requests") or {}).get("storage", "0")
    return whole((offered.get("capacity") or {}).get("storage", "0")) >= whole(wanted)


def _is_for(reference: dict[str, Any], claim: Obj) -> bool:
    same = bool(reference.get("name") == name_of(claim) and reference.get("namespace") == namespace_of(claim))
    return same and reference.get("uid") in (None, "", uid_of(claim))


class ClaimReconciler:
    """Keyed by PersistentVolumeClaim; also by volume, under an empty namespace."""

    def __init__(self, context: Context, folder: Path) -> None:
        self._context = context
        self._client = context.client
        self._claims = context.informers.of("persistentvolumeclaims")
        self._volumes = context.informers.of("persistentvolumes")
        self._classes = context.informers.of("storageclasses.storage.k8s.io")
        self._folder = folder

    def build(self) -> Controller:
        controller = Controller("volume", self, workers=2)
        controller.watches(self._claims, itself)
        controller.watches(self._volumes, itself)
        controller.watches(self._volumes, self._waiting_claims)
        controller.watches(self._volumes, _claim_of)
        controller.watches(self._classes, self._waiting_claims)
        self._claims.on_change(lambda old, new: self._claim_gone(controller, old, new))
        return controller

    def _waiting_claims(self, _: Obj) -> list[ObjectKey]:
        return [key_of(claim) for claim in self._claims.list() if (claim.get("status") or {}).get("phase") != "Bound"]

    def _claim_gone(self, controller: Controller, old: Obj | None, new: Obj | None) -> None:
        if old is not None and new is None and old["spec"].get("volumeName"):
            controller.queue.add(ObjectKey("", old["spec"]["volumeName"]))

    async def reconcile(self, key: ObjectKey) -> Result:
        if key.namespace:
            claim = self._claims.get(key)
            if claim is not None and not is_deleting(claim):
                await self._bind(claim)
        else:
            volume = self._volumes.get(key)
            if volume is not None:
                await self._look_after(volume)
        return Result()

    # ── claims ──

    async def _bind(self, claim: Obj) -> None:
        claim = await self._with_class(claim)
        named, phase = claim["spec"].get("volumeName"), (claim.get("status") or {}).get("phase")
        if named and phase in ("Bound", "Lost"):
            await self._check_bond(claim)
            return
        candidates = [volume for volume in self._volumes.list() if fits(claim, volume) and not is_deleting(volume)]
        chosen = min(candidates, key=_by_fit, default=None)
        if chosen is None and not named:
            chosen = await self._provision(claim)
        if chosen is not None:
            await self._tie(claim, chosen)

    async def _check_bond(self, claim: Obj) -> None:
        """A claim whose volume was taken away has lost its data, and says so."""
        name = claim["spec"]["volumeName"]
        if self._volumes.get(ObjectKey("", name)) is not None or claim["status"]["phase"] == "Lost":
            return
        try:
            await self._client.get("persistentvolumes", name)
        except NotFound:
            await self._set_phase(claim, "Lost")
            text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            await self._context.recorder.record(claim, "Warning", "ClaimLost", text)

    async def _with_class(self, claim: Obj) -> Obj:
        """A claim that names no class gets the default one."""
        if claim["spec"].get("storageClassName") is not None or claim["spec"].get("volumeName"):
            return claim
        chosen = next((item for item in self._classes.list() if annotations_of(item).get(_IS_DEFAULT) == "true"), None)
        if chosen is None:
            return claim
        changed = thaw(claim)
        changed["spec"]["storageClassName"] = name_of(chosen)
        return await self._client.update(changed)

    async def _provision(self, claim: Obj) -> Obj | None:
        kind = self._classes.get(ObjectKey("", claim["spec"].get("storageClassName") or ""))
        if obstacle := _obstacle(claim, kind):
            await self._context.recorder.record(claim, *obstacle)
        if kind is None or kind.get("provisioner") != PROVISIONER or obstacle:
            return None
        name = f"pvc-{uid_of(claim)}"
        requests = (claim["spec"].get("resources") or {}).get("requests") or {}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
            "spec": {
                "capacity": {"storage": requests.get("storage", "1Gi")},
                "accessModes": claim["spec"].get("accessModes") or ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": kind.get("reclaimPolicy") or "Delete",
                "storageClassName": name_of(kind),
                "volumeMode": "Filesystem",
                "hostPath": {"path": str(self._folder / name), "type": "DirectoryOrCreate"},
                "claimRef": _reference(claim),
            },
        }
        try:
            made = await self._client.create(volume)
        except AlreadyExists:
            made = await self._client.get("persistentvolumes", name)
        text = f"Successfully provisioned volume {name}"
        await self._context.recorder.record(claim, "Normal", "ProvisioningSucceeded", text)
        return made

    async def _tie(self, claim: Obj, volume: Obj) -> None:
        if not (volume["spec"].get("claimRef") or {}).get("uid"):
            changed = thaw(volume)
            changed["spec"]["claimRef"] = _reference(claim)
            volume = await self._client.update(changed)
        if (volume.get("status") or {}).get("phase") != "Bound":
            await self._set_phase(volume, "Bound")
        if claim["spec"].get("volumeName") != name_of(volume):
            changed = thaw(claim)
            changed["spec"]["volumeName"] = name_of(volume)
            changed["metadata"].setdefault("annotations", {})["pv.kubernetes.io/bind-completed"] = "yes"
            claim = await self._client.update(changed)
        offered = {field: volume["spec"].get(field) for field in ("accessModes", "capacity")}
        await write_status(self._client, claim, {"phase": "Bound", **offered})

    # ── volumes ──

    async def _look_after(self, volume: Obj) -> None:
        reference = volume["spec"].get("claimRef")
        phase = (volume.get("status") or {}).get("phase")
        if not reference or not reference.get("uid"):
            if phase != "Available":
                await self._set_phase(volume, "Available")
            return
        claim = self._claims.get(ObjectKey(reference["namespace"], reference["name"]))
        if claim is not None and uid_of(claim) == reference["uid"]:
            return
        if claim is None and await self._still_there(reference):
            return
        if phase != "Released":
            await self._set_phase(volume, "Released")
        if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
            await self._discard(volume)

    async def _still_there(self, reference: dict[str, Any]) -> bool:
        """The cache may lag behind: ask before anything is thrown away."""
        try:
            found = await self._client.get("persistentvolumeclaims", reference["name"], reference["namespace"])
        except NotFound:
            return False
        return uid_of(found) == str(reference["uid"])

    async def _discard(self, volume: Obj) -> None:
        if annotations_of(volume).get("pv.kubernetes.io/provisioned-by") == PROVISIONER:
            path = Path(volume["spec"]["hostPath"]["path"])
            if path.parent == self._folder:
                await asyncio.to_thread(shutil.rmtree, path, True)
        try:
            await self._client.delete("persistentvolumes", name_of(volume), uid=uid_of(volume))
        except NotFound:
            return  # gone already

    async def _set_phase(self, obj: Obj, phase: str) -> None:
        """Of a volume or a claim as it was read: the other side may just be writing to it."""
        await write_status(self._client, obj, {**(obj.get("status") or {}), "phase": phase})


def _claim_of(volume: Obj) -> list[ObjectKey]:
    reference = volume["spec"].get("claimRef")
    return [ObjectKey(reference["namespace"], reference["name"])] if reference else []


def _obstacle(claim: Obj, kind: Obj | None) -> tuple[EventType, str, str] | None:
    """Why no volume is made for a claim, as an event; None too when another provisioner may make it."""
    wanted = claim["spec"].get("storageClassName")
    if not wanted:
        text = "no persistent volumes available for this claim and no storage class is set"
        return "Normal", "FailedBinding", text
    if kind is None:
        return "Warning", "ProvisioningFailed", f'storageclass.storage.k8s.io "{wanted}" not found'
    if kind.get("provisioner") == PROVISIONER and claim["spec"].get("volumeMode") == "Block":
        return "Warning", "ProvisioningFailed", f"{PROVISIONER} makes file systems, not block volumes"
    return None


def _by_fit(volume: Obj) -> tuple[bool, int]:
    """Reserved ones first, then the smallest."""
    return (not volume["spec"].get("claimRef"), whole((volume["spec"].get("capacity") or {}).get("storage", "0")))


def _reference(claim: Obj) -> dict[str, str]:
    namespace, name = key_of(claim)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": namespace,
        "name": name,
        "uid": uid_of(claim),
    }
