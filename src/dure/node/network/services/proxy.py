"""One node's Services kept true in the kernel: informers in, small atomic nft transactions out."""

from __future__ import annotations

import asyncio
import logging

from dure.api.meta import ObjectKey, key_of
from dure.core.json import Obj
from dure.node.network.nft import NftError
from dure.node.network.pods import NodeNetwork
from dure.node.network.ports import BY_SERVICE, Cache, service_of_slice
from dure.node.network.services import conntrack
from dure.node.network.services.conntrack import Flow
from dure.node.network.services.rules import NOTHING, TABLE, NodeView, Pieces, plan
from dure.node.network.services.table import Table

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.003
_RETRY_SECONDS = 2.0


def view_of(network: NodeNetwork) -> NodeView:
    """The node as its rules need to know it."""
    place, addresses = network.place, network.addresses
    return NodeView(place.name, place.address, addresses.pods, addresses.services, addresses.dns)


class ServiceProxy:
    """Programs the node's namespace. Nothing is touched before both caches have synced, so what an earlier agent
    left goes on working; connections are never broken, new ones follow the new state.
    """

    def __init__(self, network: NodeNetwork, services: Cache, slices: Cache) -> None:
        self._node = view_of(network)
        self._nft = network.nft
        self._services = services
        self._slices = slices
        self._table = Table(self._node)
        self._dirty: set[ObjectKey] = set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Works until cancelled. The caches run elsewhere; slices are indexed by `service_of_slice`."""
        self._services.on_change(self._service_changed)
        self._slices.on_change(self._slice_changed)
        await self._services.wait_synced()
        await self._slices.wait_synced()
        self._dirty.clear()
        self._table.update({key_of(service): self._plan(service) for service in self._services.list()})
        await self._replace()
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._changed.clear()
            await self._apply()

    def _plan(self, service: Obj) -> Pieces:
        return plan(service, self._slices.by_index(BY_SERVICE, str(key_of(service))), self._node)

    def _service_changed(self, old: Obj | None, new: Obj | None) -> None:
        changed = new or old
        if changed is not None:
            self._dirty.add(key_of(changed))
            self._changed.set()

    def _slice_changed(self, old: Obj | None, new: Obj | None) -> None:
        for changed in (old, new):
            for owner in service_of_slice(changed) if changed is not None else ():
                namespace, _, name = owner.partition("/")
                self._dirty.add(ObjectKey(namespace, name))
                self._changed.set()

    async def _apply(self) -> None:
        dirty, self._dirty = self._dirty, set()
        changes: dict[ObjectKey, Pieces] = {}
        stale: dict[tuple[str, int], frozenset[tuple[str, int]]] = {}
        for key in dirty:
            service = self._services.get(key)
            share, before = self._plan(service) if service is not None else NOTHING, self._table.share(key)
            if share != before:
                changes[key] = share
                if share.datagrams != before.datagrams:
                    stale |= {address: frozenset() for address in before.datagrams} | dict(share.datagrams)
        script = self._table.update(changes)
        if not script:
            return
        try:
            await self._nft.run(script)
        except NftError:
            log.warning("service rules are replaced whole", extra={"node": self._node.name}, exc_info=True)
            await self._replace()
        if stale:
            await self._nft.call(lambda: conntrack.forget(lambda flow: _is_stale(flow, stale)))

    async def _replace(self) -> None:
        while True:
            try:
                await self._nft.run(self._table.whole(await self._remembered_clients()))
                return
            except NftError:
                log.exception("service rules were refused", extra={"node": self._node.name})
                await asyncio.sleep(_RETRY_SECONDS)

    async def _remembered_clients(self) -> dict[str, list[tuple[str, int]]]:
        """What the affinity sets in the kernel hold, to go on with after the table is replaced."""
        found: dict[str, list[tuple[str, int]]] = {}
        for name in self._table.affinity_sets():
            try:
                listed = await self._nft.query(f"list set {TABLE} {name}")
            except NftError:  # not there yet
                continue
            elements = [item["elem"] for one in listed for item in one.get("set", {}).get("elem", ()) if "elem" in item]
            clients = [(str(one["val"]), int(one.get("expires") or 0)) for one in elements]
            found[name] = [(ip, seconds) for ip, seconds in clients if seconds > 0]
        return {name: clients for name, clients in found.items() if clients}


def _is_stale(flow: Flow, behind: dict[tuple[str, int], frozenset[tuple[str, int]]]) -> bool:
    endpoints = behind.get(flow.destination)
    if endpoints is None:
        endpoints = behind.get(("", flow.destination[1]))
    return endpoints is not None and flow.answerer not in endpoints
