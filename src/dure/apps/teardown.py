"""Removing what a platform put on the machine: containers, networks, mounts, leftover processes.

Works from what is found, not from what was remembered, so it also cleans up after kill -9. May be repeated.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from dure.apps.leftovers import end_leftovers
from dure.apps.machine import machine_of
from dure.apps.supervisor import lock_path
from dure.core.settings import Settings
from dure.images.service import open_store
from dure.node.network.links import Machine
from dure.node.runtimes.oci.runtime import OciRuntime, destroy_all
from dure.node.volumes.kernel import KernelMounter

_GRACE_SECONDS = 5.0


def tear_down(settings: Settings, *, report: Callable[[str], None]) -> None:
    """For who holds the platform's lock. Objects, volumes and images on disk stay."""
    ended = end_leftovers(settings)
    if ended:
        report(f"{ended} leftover daemons ended")
    if settings.containers and os.geteuid() == 0:
        asyncio.run(_tear_down(settings, report))
    _remove_run_dir(settings)


def _remove_run_dir(settings: Settings) -> None:
    """The lock last: as long as it is there, nobody starts anew."""
    if not settings.run_dir.exists():
        return
    for path in settings.run_dir.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != lock_path(settings):
            path.unlink()
    shutil.rmtree(settings.run_dir)


async def _tear_down(settings: Settings, report: Callable[[str], None]) -> None:
    stopped = 0
    for folder in _node_folders(settings):
        stopped += await _stop_containers(folder, settings.instance)
    for folder in _node_folders(settings):
        await destroy_all(folder, settings.instance)
    report(f"{stopped} containers stopped")
    await _release_images(settings)
    _release_mounts(settings)
    report("mounts released")
    await _remove_network(machine_of(settings))
    report("network removed")


def _node_folders(settings: Settings) -> list[Path]:
    """Run folders of runtimes, also of nodes that the settings no longer name."""
    named = {settings.run_dir / name for name in settings.node_names()}
    found = {path.parent for path in settings.run_dir.glob("*/containers")}
    return sorted(path for path in named | found if path.exists())


async def _stop_containers(folder: Path, instance: str) -> int:
    """Gently first, so that databases close their files."""
    async with OciRuntime(folder, instance) as runtime:
        alive = [item for item in await runtime.containers() if item.state in ("running", "created")]
        async with asyncio.TaskGroup() as group:
            for item in alive:
                group.create_task(runtime.stop(item.id, grace_seconds=_GRACE_SECONDS))
    return len(alive)


async def _release_images(settings: Settings) -> None:
    store = open_store(settings.path)
    for container in store.content.roots.layers_in_use():
        await store.unmount(container)


def _release_mounts(settings: Settings) -> None:
    """Ours alone: the data folder, and folders in it, may be file systems that the user has mounted there."""
    for folder in (settings.run_dir, settings.path / "nodes", settings.path / "images" / "containers"):
        for path in folder.iterdir() if folder.is_dir() else ():
            KernelMounter().unmount_below(path.resolve())


async def _remove_network(machine: Machine) -> None:
    try:
        await machine.teardown()
    finally:
        machine.close()
