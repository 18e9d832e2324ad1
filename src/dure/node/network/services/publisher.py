"""Load balancers of this machine: Services on the host's 127.0.0.1 by its nft table, with the status that says so.

Level-triggered and whole: each round plans all publications anew, there are few. What is in the kernel is not
touched before the Services are known, so a published port goes on working while the agent is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from dure.api.meta import ObjectKey, key_of, uid_of
from dure.client.client import Client
from dure.client.events import EventRecorder
from dure.core.errors import ApiError, NotFound, TransportError
from dure.core.json import Obj
from dure.node.network.links import Machine
from dure.node.network.nft import NftError
from dure.node.network.ports import Cache
from dure.node.network.services.claims import Claims
from dure.node.network.services.publications import LOOPBACK, Publication, elements, is_balanced, plan

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.005
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 2.0, 60.0


class LoadBalancerPublisher:
    """One a machine. Refused Services get a Warning event, stay pending and are tried again, ever less often."""

    def __init__(self, machine: Machine, client: Client, services: Cache, recorder: EventRecorder) -> None:
        self._machine = machine
        self._client = client
        self._services = services
        self._recorder = recorder
        self._claims = Claims()
        self._applied: Mapping[str, str] | None = None
        self._told: dict[str, str] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Works until cancelled; the cache runs elsewhere."""
        self._services.on_change(self._service_changed)
        await self._services.wait_synced()
        retry = _FIRST_RETRY_SECONDS
        try:
            while True:
                self._changed.clear()
                if await self._round():
                    retry = _FIRST_RETRY_SECONDS
                    await self._changed.wait()
                elif await self._wait_changed(retry):
                    retry = _FIRST_RETRY_SECONDS
                else:
                    retry = min(retry * 2, _LAST_RETRY_SECONDS)
                await asyncio.sleep(_GATHER_SECONDS)
        finally:
            self._claims.close()

    def _service_changed(self, old: Obj | None, new: Obj | None) -> None:
        if any(one is not None and (is_balanced(one) or _ingress(one)) for one in (old, new)):
            self._changed.set()

    async def _wait_changed(self, seconds: float) -> bool:
        """Whether something changed before the time was over."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _round(self) -> bool:
        """Bring host and statuses to what the Services want; False when something must be tried again."""
        first = next(iter(self._machine.nodes.values()), None)
        if first is None:
            return True
        services = {key_of(service): service for service in self._services.list()}
        planned = plan(services.values(), first.address, self._claims.take)
        granted = [one for one in planned if not one.problem]
        done = len(granted) == len(planned)
        done = await self._apply(elements(granted)) and done
        self._claims.keep_only(port for one in granted for port in one.ports)
        self._told = {uid: said for uid, said in self._told.items() if uid in {one.uid for one in planned}}
        for one in planned:
            done = await self._report(services[one.key], one) and done
        for key, service in services.items():
            if not is_balanced(service) and _is_ours(_ingress(service)):
                done = await self._write_status(key, []) and done
        return done

    async def _apply(self, wanted: Mapping[str, str]) -> bool:
        if wanted == self._applied:
            return True
        table = self._machine.table
        script = f"flush map {table} balancers\n"
        if wanted:
            items = ", ".join(f"{key} : {value}" for key, value in wanted.items())
            script += f"add element {table} balancers {{ {items} }}\n"
        try:
            await self._machine.nft.run(script)
        except NftError:
            # someone emptied the host's nftables: put our table back and try again
            log.warning("load balancer rules were refused", exc_info=True)
            await self._machine.setup()
            return False
        self._applied = wanted
        return True

    async def _report(self, service: Obj, one: Publication) -> bool:
        ports = ", ".join(map(str, one.ports))
        said = one.problem or f"published on {ports}"
        if _ingress(service) != one.ingress() and not await self._write_status(one.key, one.ingress()):
            return False
        if self._told.get(uid_of(service), "") != said:
            is_news = bool(one.problem) or _ingress(service) != one.ingress()
            self._told[uid_of(service)] = said
            if one.problem:
                await self._recorder.record(service, "Warning", "SyncLoadBalancerFailed", one.problem)
            elif is_news:
                await self._recorder.record(service, "Normal", "EnsuredLoadBalancer", said)
        return True

    async def _write_status(self, key: ObjectKey, ingress: Sequence[Obj]) -> bool:
        status = {"status": {"loadBalancer": {"ingress": [*ingress] or None}}}
        try:
            await self._client.patch("services", key.name, key.namespace, status, subresource="status")
        except NotFound:
            return True
        except (ApiError, TransportError) as error:
            log.info("cannot write load balancer status", extra={"service": str(key), "error": error})
            return False
        return True


def _ingress(service: Obj) -> list[Obj]:
    return ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []


def _is_ours(ingress: Sequence[Obj]) -> bool:
    return any(item.get("ip") == LOOPBACK for item in ingress)
