"""Containers by the bare OCI runtime on the same root file system: the limit for starting pods."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.platform import IMAGE
from dure.images.service import open_store
from dure.node.runtimes.oci.choice import choose, read_host
from dure.node.runtimes.oci.shim_spawn import Program, spawn

_CGROUP = "dure-bench"


class BareRuntime:
    """Makes, starts and removes containers that sleep. The platform's own choice of runtime, called directly."""

    def __init__(self, program: Program, folder: Path, rootfs: str) -> None:
        self.program = program
        self._folder = folder
        self._root = folder / "state"
        self._rootfs = rootfs
        self._names = (f"bench-{number}" for number in itertools.count())
        self._made: list[str] = []

    async def start_one(self) -> float:
        """Seconds from `create` to the end of `start`."""
        name = next(self._names)
        self._made.append(name)
        bundle = self._folder / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self._config(name)))
        began = time.perf_counter()
        await self._call("create", f"--bundle={bundle}", name)
        await self._call("start", name)
        return time.perf_counter() - began

    async def remove_all(self) -> None:
        for name in self._made:
            await self._call("delete", "--force", name)
        self._made.clear()

    async def _call(self, *arguments: str) -> None:
        log = str(self._folder / "log")
        null = os.open(os.devnull, os.O_RDWR)
        try:
            pid = spawn(self.program, self.program.command(str(self._root), log, *arguments), (null, null, null))
        finally:
            os.close(null)
        if await asyncio.to_thread(_wait_ended, pid) != 0:
            raise RuntimeError(f"{self.program.name} {' '.join(arguments)}: {Path(log).read_text()[-300:]}")

    def _config(self, name: str) -> dict[str, object]:
        config: dict[str, object] = json.loads((self._folder / "config.json").read_text())
        config["root"] = {"path": self._rootfs, "readonly": True}
        config["process"]["args"] = ["sleep", "1000"]  # type: ignore[index]
        config["process"]["terminal"] = False  # type: ignore[index]
        config["linux"]["cgroupsPath"] = f"/{_CGROUP}/{name}"  # type: ignore[index]
        return config


def _wait_ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@asynccontextmanager
async def bare_runtime(home: Path) -> AsyncIterator[BareRuntime]:
    """Over the benchmark's image as the platform keeps it; nothing is left at the end."""
    images = open_store(home, stand_ins=True)
    image = await images.find(IMAGE)
    if image is None:
        raise RuntimeError(f"image {IMAGE} is not present")
    program = choose(read_host())
    with tempfile.TemporaryDirectory(dir="/run") as name:
        folder = Path(name)
        await asyncio.to_thread(subprocess.run, [program.path, "spec"], cwd=folder, check=True)
        rootfs = await images.mount(image, "bench-bare")
        runtime = BareRuntime(program, folder, rootfs)
        try:
            yield runtime
        finally:
            await runtime.remove_all()
            await images.unmount("bench-bare")
            for parent in Path("/sys/fs/cgroup").glob(f"**/{_CGROUP}"):
                parent.rmdir()
