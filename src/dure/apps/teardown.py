"""Removing what a platform put on the machine: containers, networks, mounts, leftover processes.

Works from what is found, not from what was remembered, so it also cleans up after kill -9. May be repeated.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dure.apps.machine import machine_of
from dure.core.process import is_alive
from dure.core.settings import Settings
from dure.images.service import open_store
from dure.node.network.links import Machine
from dure.node.runtimes.oci.runtime import OciRuntime, destroy_all
from dure.node.volumes.kernel import KernelMounter

_GRACE_SECONDS = 5.0
_LAST_MOMENTS_SECONDS = 1.0
"""A supervisor that gave up its lock may still be on its way out."""
_DAEMONS = ("dure.apps.server", "dure.apps.agent", "dure.apps.supervisor")


def tear_down(settings: Settings, *, report: Callable[[str], None]) -> None:
    """After the supervisor has ended. Objects, volumes and images on disk stay."""
    ended = _end_leftovers(settings)
    if ended:
        report(f"{ended} leftover daemons ended")
    if settings.containers and os.geteuid() == 0:
        asyncio.run(_tear_down(settings, report))
    if settings.run_dir.exists():
        shutil.rmtree(settings.run_dir)


async def _tear_down(settings: Settings, report: Callable[[str], None]) -> None:
    stopped = 0
    for folder in _node_folders(settings):
        stopped += await _stop_containers(folder, settings.instance)
    for folder in _node_folders(settings):
        await destroy_all(folder, settings.instance)
    report(f"{stopped} containers stopped")
    await _release_images(settings)
    KernelMounter().unmount_below(settings.path)
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


async def _remove_network(machine: Machine) -> None:
    try:
        await machine.teardown()
    finally:
        machine.close()


def _end_leftovers(settings: Settings) -> int:
    """Daemons of this data folder whose supervisor was killed."""
    deadline = time.monotonic() + _LAST_MOMENTS_SECONDS
    while (pids := list(_leftovers(settings))) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in pids:
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            for pid in pids:
                _signal(pid, signal.SIGKILL)
        time.sleep(0.02)
    return len(pids)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has ended by itself


def _leftovers(settings: Settings) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if settings.home in words and any(module in words for module in _DAEMONS):
            pid = int(path.parent.name)
            if pid != os.getpid():
                yield pid
