"""Removes what a node still holds of pods that no longer exist: containers, sandboxes, networks, volumes, logs."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dure.core.errors import DureError
from dure.node.pods.ports import NodeRooms
from dure.node.ports import ContainerState

log = logging.getLogger(__name__)


async def remove_orphans(
    rooms: NodeRooms,
    known: set[str],
    *,
    found: Mapping[str, Sequence[ContainerState]],
    sandboxes: Iterable[str],
    attached: Iterable[str],
) -> None:
    """`known` are the uids of pods that exist; the rest is what was found at the start of the agent, by uid."""
    folders = _names(rooms.config.root / "pods")
    for uid in sorted({*found, *sandboxes, *attached, *folders} - known):
        try:
            await _remove(rooms, uid, found.get(uid, ()))
        except (DureError, OSError) as error:
            log.warning("orphan not removed", extra={"pod_uid": uid, "error": error})


async def _remove(rooms: NodeRooms, uid: str, runs: Sequence[ContainerState]) -> None:
    log.info("removing an orphaned pod", extra={"pod_uid": uid, "node": rooms.config.name})
    await rooms.runtime.stop_sandbox(uid)
    for run in runs:
        await rooms.runtime.remove(run.id)
        await rooms.images.unmount(run.id)
    await rooms.network.detach(uid)
    await rooms.volumes.remove(uid)
    await asyncio.to_thread(shutil.rmtree, rooms.config.pod_dir(uid), True)
    for folder in (rooms.config.home / "logs" / "pods").glob(f"*_{uid}"):
        await asyncio.to_thread(shutil.rmtree, folder, True)


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []
