"""Which Services of type LoadBalancer want which ports of the host's loopback, and who gets them: pure.

The older Service keeps a port that two want. A Service gets all of its ports or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dure.api.meta import ObjectKey, is_deleting, key_of, uid_of
from dure.core.json import Obj

LOOPBACK = "127.0.0.1"
CLASS = "dure.dev/loopback"


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port of the host's loopback."""

    protocol: str
    number: int

    def __str__(self) -> str:
        return f"{LOOPBACK}:{self.number}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Publication:
    """One Service and where each of its ports leads; `problem` says why it has none."""

    key: ObjectKey
    uid: str
    targets: tuple[tuple[Port, str, int], ...]
    problem: str = ""

    @property
    def ports(self) -> tuple[Port, ...]:
        return tuple(port for port, _, _ in self.targets)

    def ingress(self) -> list[Obj]:
        """For `status.loadBalancer`. `Proxy` keeps node proxies from answering for our loopback themselves."""
        if self.problem:
            return []
        ports = [{"port": port.number, "protocol": port.protocol} for port in self.ports]
        return [{"ip": LOOPBACK, "ipMode": "Proxy", "ports": ports}]


def is_balanced(service: Obj) -> bool:
    """Whether we are the ones to publish it."""
    spec = service.get("spec") or {}
    return (
        spec.get("type") == "LoadBalancer"
        and spec.get("loadBalancerClass") in (None, "", CLASS)
        and spec.get("clusterIP") not in (None, "", "None")
        and not is_deleting(service)
    )


def plan(services: Iterable[Obj], node_address: str, claim: Callable[[Port], bool]) -> list[Publication]:
    """The publications, oldest Service first. `claim` says whether the host lets us have a port."""
    holders: dict[Port, ObjectKey] = {}
    planned = []
    for service in sorted(filter(is_balanced, services), key=_age):
        key = key_of(service)
        targets = _targets(service, node_address)
        problem = _problem([port for port, _, _ in targets], holders, claim)
        if not problem:
            holders |= {port: key for port, _, _ in targets}
        planned.append(Publication(key, uid_of(service), targets, problem))
    return planned


def elements(publications: Iterable[Publication]) -> dict[str, str]:
    """Elements of the host's map of load balancers."""
    return {
        f"{port.protocol.lower()} . {port.number}": f"{ip} . {number}"
        for one in publications
        if not one.problem
        for port, ip, number in one.targets
    }


def _targets(service: Obj, node_address: str) -> tuple[tuple[Port, str, int], ...]:
    """The cluster address, which every endpoint is behind; the node port where that one means only local endpoints."""
    spec = service["spec"]
    found = []
    for port in spec.get("ports") or ():
        wanted = Port(port.get("protocol") or "TCP", int(port["port"]))
        if spec.get("internalTrafficPolicy") == "Local" and port.get("nodePort"):
            found.append((wanted, node_address, int(port["nodePort"])))
        else:
            found.append((wanted, spec["clusterIP"], wanted.number))
    return tuple(found)


def _problem(ports: Iterable[Port], holders: dict[Port, ObjectKey], claim: Callable[[Port], bool]) -> str:
    for port in ports:
        if port.protocol not in ("TCP", "UDP"):
            return f"{port.protocol} ports cannot be published on {LOOPBACK}"
        if port in holders:
            return f"{port} is taken by Service {holders[port]}; change the port of one of them"
        if not claim(port):
            return f"{port} is taken by another program on the host; end it or change the Service's port"
    return ""


def _age(service: Obj) -> tuple[str, ObjectKey]:
    return service["metadata"].get("creationTimestamp") or "", key_of(service)
