"""The machine's network as the settings describe it."""

from __future__ import annotations

from dure.core.settings import Settings
from dure.node.network.links import Machine
from dure.node.network.model import Addresses


def machine_of(settings: Settings) -> Machine:
    addresses = Addresses.parse(settings.link_cidr, settings.cluster_cidr, settings.service_cidr, settings.dns_ip)
    real = [name for name in settings.node_names() if not name.startswith("sim-")]
    return Machine(settings.instance, settings.run_dir, addresses, real)
