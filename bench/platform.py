"""A platform of the benchmark's own: data folder, ports and networks beside whatever else runs on this machine."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.api import Connection, Place, connect, connected
from bench.measure import cpu_seconds
from dure.core.json import loads
from dure.core.settings import Settings

SHOP = Path(__file__).parent.parent / "examples/shop"
IMAGE = "busybox"
_UP = (
    "up", "-d", "--stand-ins", "--no-merge-kubeconfig", "--port-offset=500",
    "--cluster-cidr=10.160.0.0/16", "--service-cidr=10.161.0.0/16", "--link-cidr=10.162.0.0/24",
)  # fmt: skip
_LONGEST_SECONDS = 600.0


class CommandFailed(Exception):
    """A `dure` command ended with an error; the text is what it printed."""


@dataclass(slots=True)
class Process:
    name: str
    pid: int


class Platform:
    """Driven by the `dure` command, as a user drives it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dure.cli.main", "--home", str(self.home), *arguments]

    async def dure(self, *arguments: str) -> str:
        """What the command prints. Raises CommandFailed."""
        child = await asyncio.create_subprocess_exec(
            *self.command(*arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.environment,
        )
        async with asyncio.timeout(_LONGEST_SECONDS):
            output, _ = await child.communicate()
        if child.returncode != 0:
            raise CommandFailed(f"dure {' '.join(arguments)}: {output.decode()[-800:].strip()}")
        return output.decode()

    async def up(self) -> None:
        await self.dure(*_UP)

    async def down(self, *, keep: bool = False) -> None:
        await self.dure("down", *(["--keep"] if keep else []))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Platform]:
        """Fresh, without objects; images stay from run to run."""
        try:
            await self.up()
            yield self
        finally:
            await self.down()

    async def deploy_shop(self) -> str:
        """The URL of the shop's front, once every part is ready."""
        output = await self.dure("deploy", str(SHOP), "-o", "json")
        return str(loads(output[output.index("{") :])["urls"][0])

    @property
    def settings(self) -> Settings:
        settings = Settings.load(self.home)
        assert settings is not None, "it has never been started"
        return settings

    @property
    def place(self) -> Place:
        settings, pki = self.settings, self.home / "pki"
        return Place(settings.listen, settings.api_port, pki / "ca.crt", pki / "admin.crt", pki / "admin.key")

    async def connect(self) -> Connection:
        """As soon as the administrator's certificate is there and the API answers."""
        while True:
            place = self.place
            if place.key.exists() and place.certificate.exists():
                try:
                    return await connect(place.host, place.port, place.tls())
                except OSError:
                    pass
            await asyncio.sleep(0.002)

    async def processes(self) -> list[Process]:
        """The platform's own, without containers."""
        status: dict[str, Any] = loads(await self.dure("status", "-o", "json"))
        return [Process(entry["name"], entry["pid"]) for entry in status["processes"]]

    async def server_pid(self) -> int:
        """The root of the tree that serves the API: server and store."""
        return next(process.pid for process in await self.processes() if process.name == "server")

    async def wait_calm(self, within: float = 20.0) -> None:
        """Until the platform's processes use less than 3 % of a core together over a second."""
        pids = [process.pid for process in await self.processes()]
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            before = cpu_seconds(pids)
            await asyncio.sleep(1.0)
            if cpu_seconds(pids) - before < 0.03:
                return


@asynccontextmanager
async def namespace(platform: Platform, name: str, connections: int = 1) -> AsyncIterator[list[Connection]]:
    """A namespace whose default account is there, and connections to the API."""
    async with connected(platform.place, connections) as opened:
        await opened[0].json("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        await wait_account(await platform.connect(), name)
        yield list(opened)


async def wait_account(api: Connection, name: str) -> None:
    """Pods are refused before their account is there."""
    path = f"/api/v1/namespaces/{name}/serviceaccounts?watch=true&fieldSelector=metadata.name=default"
    async for event in api.watch(path):
        if event["type"] == "ADDED":
            return
