"""Keeps a node known to the cluster: registers it, renews its lease every 10 s, its status every 5 min."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from dure.client.client import Client
from dure.core.clock import Clock, rfc3339_micro
from dure.core.errors import AlreadyExists, ApiError, Conflict, NotFound, TransportError
from dure.core.json import Obj
from dure.node import registration
from dure.node.model import NodeConfig

log = logging.getLogger(__name__)

LEASE_SECONDS = 10.0
STATUS_SECONDS = 300.0
FIRST_RETRY, LONGEST_RETRY = 0.1, 5.0
LEASES = "leases.coordination.k8s.io"


class Heartbeat:
    """`wait_registered` returns once the Node exists with a status of this agent."""

    def __init__(self, client: Client, config: NodeConfig, clock: Clock) -> None:
        self._client = client
        self._config = config
        self._clock = clock
        self._registered = asyncio.Event()
        self.node: Obj = {}

    async def wait_registered(self) -> None:
        await self._registered.wait()

    async def run(self) -> None:
        await self._until_done()
        self._registered.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_lease())
            tasks.create_task(self._keep_status())

    async def _until_done(self) -> None:
        delay = FIRST_RETRY
        while True:
            try:
                await self.register()
                return
            except (ApiError, TransportError) as error:
                log.info("node not registered", extra={"node": self._config.name, "error": error})
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_RETRY)

    async def register(self) -> None:
        """Create the Node, or bring an old one up to date; then its status."""
        wanted, name = registration.new_node(self._config), self._config.name
        try:
            self.node = await self._client.create(wanted)
        except AlreadyExists:
            patch = {"metadata": {"labels": wanted["metadata"]["labels"]}, "spec": wanted["spec"]}
            self.node = await self._client.patch("nodes", name, "", patch, type="merge")
        await self.write_status()

    async def write_status(self) -> None:
        old = await self._client.get("nodes", self._config.name)
        status = registration.node_status(
            self._config,
            old,
            self._clock.time(),
            boot_id=_read_id("/proc/sys/kernel/random/boot_id"),
            machine_id=_read_id("/etc/machine-id"),
        )
        self.node = await self._client.patch(
            "nodes", self._config.name, "", {"status": status}, type="strategic", subresource="status"
        )

    async def renew_lease(self) -> None:
        now = rfc3339_micro(self._clock.time())
        wanted = registration.lease(self._config, self.node["metadata"].get("uid", ""), now)
        patch = {"spec": {**wanted["spec"]}}
        try:
            await self._client.patch(LEASES, self._config.name, "kube-node-lease", patch, type="merge")
        except NotFound:
            await self._client.create(wanted)

    async def _keep_lease(self) -> None:
        while True:
            try:
                await self.renew_lease()
            except (Conflict, AlreadyExists):
                await asyncio.sleep(FIRST_RETRY)
                continue
            except (ApiError, TransportError) as error:
                log.warning("lease not renewed", extra={"node": self._config.name, "error": error})
                await asyncio.sleep(1.0)
                continue
            await asyncio.sleep(LEASE_SECONDS)

    async def _keep_status(self) -> None:
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            try:
                await self.write_status()
            except NotFound:
                await self._until_done()
            except (ApiError, TransportError) as error:
                log.warning("node status not written", extra={"node": self._config.name, "error": error})


def _read_id(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
