"""Keeps the zone true to the cluster: every change of a Service or its EndpointSlices is in the next answer."""

from __future__ import annotations

import asyncio

from dure.api.meta import ObjectKey, key_of
from dure.core.json import Obj
from dure.node.network.dns.records import NO_RECORDS, plan
from dure.node.network.dns.zone import Zone
from dure.node.network.ports import BY_SERVICE, Cache, service_of_slice


class ZoneKeeper:
    """Follows both caches into one zone. Slices are indexed by `service_of_slice`."""

    def __init__(self, zone: Zone, services: Cache, slices: Cache) -> None:
        self._zone = zone
        self._services = services
        self._slices = slices

    async def run(self) -> None:
        """Works until cancelled; the caches run elsewhere."""
        self._services.on_change(self._service_changed)
        self._slices.on_change(self._slice_changed)
        await self._services.wait_synced()
        await self._slices.wait_synced()
        self._zone.mark_ready()
        await asyncio.Event().wait()

    def _service_changed(self, old: Obj | None, new: Obj | None) -> None:
        changed = new or old
        if changed is not None:
            self._refresh(key_of(changed))

    def _slice_changed(self, old: Obj | None, new: Obj | None) -> None:
        owners = {owner for changed in (old, new) if changed is not None for owner in service_of_slice(changed)}
        for owner in owners:
            namespace, _, name = owner.partition("/")
            self._refresh(ObjectKey(namespace, name))

    def _refresh(self, key: ObjectKey) -> None:
        service = self._services.get(key)
        if service is None:
            self._zone.put(key, NO_RECORDS)
        else:
            self._zone.put(key, plan(service, self._slices.by_index(BY_SERVICE, str(key)), self._zone.domain))
