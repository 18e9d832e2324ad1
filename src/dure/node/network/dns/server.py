"""The DNS server of one node: its copy of the zone, kept from the caches, served inside the node's namespace."""

from __future__ import annotations

from pathlib import Path

from dure.core.aio import running
from dure.node.network.dns.keeper import ZoneKeeper
from dure.node.network.dns.resolver import Resolver
from dure.node.network.dns.sockets import DnsSockets
from dure.node.network.dns.upstream import RESOLV_CONF, Upstream
from dure.node.network.dns.zone import Zone
from dure.node.network.pods import NodeNetwork
from dure.node.network.ports import Cache


class DnsServer:
    """Answers at the cluster's DNS address. Slices are indexed by `service_of_slice`.

    Questions that come before both caches have synced wait; nothing is answered from half a zone.
    """

    def __init__(
        self,
        network: NodeNetwork,
        services: Cache,
        slices: Cache,
        domain: str = "cluster.local",
        resolv_conf: Path = RESOLV_CONF,
    ) -> None:
        addresses = network.addresses
        zone = Zone(domain, (addresses.services, addresses.pods), addresses.dns)
        resolver = Resolver(zone, Upstream({addresses.dns}, resolv_conf))
        self._keeper = ZoneKeeper(zone, services, slices)
        self._sockets = DnsSockets(zone, resolver, addresses.dns, network.socket)

    async def run(self) -> None:
        """Works until cancelled; the caches run elsewhere."""
        async with running(self._keeper.run()):
            await self._sockets.run()
