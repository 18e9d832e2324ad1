"""The address plan of a machine and where each local node stands in it: pure values."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from dure.core.errors import ConfigError

GATEWAY = "169.254.1.1"
"""The next hop of every pod: an address on its node's loopback."""

UPLINK = "eth0"
"""A node's own end of its link to the host."""

NODE_PREFIX = 24
"""Length of the piece of the cluster network that one node gets."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The three networks of a platform; nothing outside them is ever routed to it."""

    links: IPv4Network
    pods: IPv4Network
    services: IPv4Network
    dns: str

    @staticmethod
    def parse(link_cidr: str, cluster_cidr: str, service_cidr: str, dns_ip: str = "") -> Addresses:
        """From CIDR texts; the DNS address defaults to the tenth of the service network."""
        services = IPv4Network(service_cidr)
        return Addresses(IPv4Network(link_cidr), IPv4Network(cluster_cidr), services, dns_ip or str(services[10]))

    @property
    def host(self) -> str:
        """The host's own address on every link."""
        return str(self.links[1])

    def node(self, index: int) -> str:
        """Address of the node with that number, counted from 1."""
        return str(self.links[10 + index])

    def node_pods(self, index: int) -> IPv4Network:
        """The pod network of that node."""
        shift = 32 - NODE_PREFIX
        start = int(self.pods.network_address) + (index << shift)
        network = IPv4Network((start, NODE_PREFIX))
        if not network.subnet_of(self.pods):
            raise ConfigError(f"cluster network {self.pods} has no /{NODE_PREFIX} for node {index}", "give a wider one")
        return network


@dataclass(frozen=True, slots=True)
class NodePlace:
    """One local node on this machine."""

    name: str
    index: int
    address: str
    pods: IPv4Network
    netns: Path
    """Bind-mounted network namespace of the node."""
    link: str
    """The host's end of the node's link."""


def hardware_address(ip: str) -> bytes:
    """A locally administered MAC made of an IPv4 address, so that neighbours need no discovery."""
    return b"\x0a\x58" + bytes(int(part) for part in ip.split("."))
