"""Where a persistentVolumeClaim's data lies on this node: through its bound PersistentVolume of hostPath or local."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from dure.core.json import Obj
from dure.node.pods.ports import VolumeFailure
from dure.node.volumes.host_path import prepare_host_path

Get = Callable[[str, str, str], Awaitable[Obj | None]]
"""(resource, namespace, name)."""


CLAIM_MODE = 0o777
"""A new claim's folder: whichever user the pod runs as may write, as with the usual local provisioners."""


async def locate_claim(namespace: str, name: str, get: Get) -> str:
    """A path on this node. Raises VolumeFailure."""
    claim = await get("persistentvolumeclaims", namespace, name)
    if claim is None:
        raise VolumeFailure(f'persistentvolumeclaim "{name}" not found')
    bound = claim["spec"].get("volumeName")
    if not bound or (claim.get("status") or {}).get("phase") != "Bound":
        raise VolumeFailure(f'persistentvolumeclaim "{name}" is not bound')
    volume = await get("persistentvolumes", "", bound)
    if volume is None:
        raise VolumeFailure(f'persistentvolume "{bound}" not found')
    spec = volume["spec"]
    reference = spec.get("claimRef") or {}
    if reference.get("uid") and reference["uid"] != claim["metadata"].get("uid"):
        raise VolumeFailure(f'persistentvolume "{bound}" is bound to another claim')
    if host_path := spec.get("hostPath"):
        return prepare_host_path(host_path["path"], host_path.get("type") or "", mode=CLAIM_MODE)
    if local := spec.get("local"):
        return prepare_host_path(local["path"], "Directory")
    raise VolumeFailure(f'persistentvolume "{bound}": only hostPath and local volumes can be mounted on this node')
