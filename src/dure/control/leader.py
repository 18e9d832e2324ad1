"""Leader election on a Lease: of several candidates at most one works at a time.

Timing and record as in client-go's leaderelection: whoever has not renewed for 15 s may be replaced, a leader that
cannot renew for 10 s stops by itself, attempts are 2 s apart. The age of a foreign record is measured on our own
clock from when we first saw it, so clocks of different machines need not agree.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dure.client.client import Client
from dure.core.aio import finish, running
from dure.core.clock import Clock, SystemClock, rfc3339_micro
from dure.core.errors import AlreadyExists, ApiError, Conflict, NotFound, TransportError
from dure.core.json import Obj, thaw

log = logging.getLogger(__name__)

_LEASES = "leases.coordination.k8s.io"
_JITTER = 1.2


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    duration_seconds: float = 15.0
    renew_deadline_seconds: float = 10.0
    retry_seconds: float = 2.0


class LeaderElector:
    """`run(work)` until cancelled; `work()` runs while this candidate leads and is cancelled when it no longer does."""

    def __init__(
        self,
        client: Client,
        name: str,
        identity: str,
        namespace: str = "kube-system",
        *,
        timing: LeaseTiming | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._name = name
        self._identity = identity
        self._namespace = namespace
        self._timing = timing or LeaseTiming()
        self._clock = clock or SystemClock()
        self._seen: Obj = {}
        """The lease's spec as last seen, and when it changed."""
        self._seen_at = 0.0
        self.is_leader = False

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await self._acquire()
            log.info("became leader", extra={"lease": self._name, "identity": self._identity})
            self.is_leader = True
            try:
                await self._lead(work)
            finally:
                self.is_leader = False
                await finish(self._release(), within=2 * self._timing.retry_seconds)
            log.warning("lost leadership", extra={"lease": self._name, "identity": self._identity})

    async def _acquire(self) -> None:
        while not await self._try():  # noqa: ASYNC110 - nobody tells when a dead leader's lease runs out
            await asyncio.sleep(self._timing.retry_seconds * random.uniform(1, _JITTER))

    async def _lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Returns when leadership is lost; an error of `work` ends the run."""
        async with running(work()):
            await self._renew()

    async def _renew(self) -> None:
        """Until a renewal has failed for the whole deadline, or another holds the lease."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timing.renew_deadline_seconds
        while True:
            await asyncio.sleep(max(0, min(self._timing.retry_seconds, deadline - loop.time())))
            if loop.time() >= deadline:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    if await self._try():
                        deadline = loop.time() + self._timing.renew_deadline_seconds
            if self._seen.get("holderIdentity") != self._identity:
                return

    async def _try(self) -> bool:
        """Take or renew the lease; whether we hold it now."""
        try:
            try:
                lease = await self._client.get(_LEASES, self._name, self._namespace)
            except NotFound:
                return await self._create()
            self._observe(lease)
            return not self._is_held_by_another() and await self._write(lease)
        except (Conflict, AlreadyExists):
            return False  # another candidate was quicker
        except (ApiError, TransportError) as error:
            log.info("cannot reach the lease", extra={"lease": self._name, "error": error})
            return False

    def _observe(self, lease: Obj) -> None:
        spec = lease.get("spec") or {}
        if spec != self._seen:
            self._seen = spec
            self._seen_at = asyncio.get_running_loop().time()

    def _is_held_by_another(self) -> bool:
        holder = self._seen.get("holderIdentity")
        lasts = float(self._seen.get("leaseDurationSeconds") or self._timing.duration_seconds)
        is_fresh = self._seen_at + lasts > asyncio.get_running_loop().time()
        return bool(holder) and holder != self._identity and is_fresh

    async def _create(self) -> bool:
        now = rfc3339_micro(self._clock.time())
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": self._spec(now, acquired=now, transitions=0),
        }
        self._observe(await self._client.create(lease))
        return True

    async def _write(self, lease: Obj) -> bool:
        now = rfc3339_micro(self._clock.time())
        changed: Obj = thaw(lease)
        transitions = int(self._seen.get("leaseTransitions") or 0)
        if self._seen.get("holderIdentity") == self._identity:
            changed["spec"] = self._spec(now, acquired=self._seen.get("acquireTime") or now, transitions=transitions)
        else:
            changed["spec"] = self._spec(now, acquired=now, transitions=transitions + 1)
        self._observe(await self._client.update(changed))
        return True

    def _spec(self, now: str, *, acquired: str, transitions: int) -> Obj:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._timing.duration_seconds),
            "acquireTime": acquired,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    async def _release(self) -> None:
        """Let the next candidate in at once."""
        try:
            async with asyncio.timeout(self._timing.retry_seconds):
                await self._give_up()
        except (ApiError, TransportError, TimeoutError) as error:
            log.info("lease not released", extra={"lease": self._name, "error": error})

    async def _give_up(self) -> None:
        lease = await self._client.get(_LEASES, self._name, self._namespace)
        if (lease.get("spec") or {}).get("holderIdentity") != self._identity:
            return
        now = rfc3339_micro(self._clock.time())
        released: Obj = thaw(lease)
        del released["spec"]["holderIdentity"]  # an empty one is refused by newer servers
        released["spec"] |= {"leaseDurationSeconds": 1, "renewTime": now}
        await self._client.update(released)
