"""Cluster addresses and node ports of Services: each held by one service, taken on write, given back on delete.

The books are read from the store at the start; a write that fails changes nothing in them.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from dure.api.fields import invalid, invalid_error
from dure.api.kind import FieldError
from dure.apiserver.admission import Attributes
from dure.core.errors import InternalError
from dure.core.json import Obj, loads
from dure.store.model import Store

_PORTS = range(30000, 32768)
_STATIC_PORTS = 86
"""The lower end is left for ports that people choose; random ones come from above while there are any."""

_OUT_OF_RANGE = f"provided port is not in the valid range. The range of valid ports is {_PORTS[0]}-{_PORTS[-1]}"
_HEADLESS = "None"
_TRIES = 64

Claim = tuple[str, object]
"""("ip", address) or ("TCP", port)."""


def claims_of(spec: Obj) -> set[Claim]:
    """What a service holds."""
    claims: set[Claim] = {("ip", address) for address in spec.get("clusterIPs") or () if address != _HEADLESS}
    for port in spec.get("ports") or ():
        if port.get("nodePort"):
            claims.add((port.get("protocol", "TCP"), port["nodePort"]))
    return claims


class ServiceAllocators:
    """A `Reserver` for services."""

    resource = "services"

    def __init__(self, store: Store, cidr: str) -> None:
        self._store = store
        self._network = ipaddress.ip_network(cidr)
        self._held: dict[Claim, str] = {}

    @asynccontextmanager
    async def restored(self) -> AsyncIterator[None]:
        """The books as the store has them."""
        page = await self._store.list("core/services/")
        for record in page.records:
            for claim in claims_of(loads(record.value).get("spec") or {}):
                self._held[claim] = record.key
        yield

    @contextmanager
    def reserving(self, attributes: Attributes) -> Iterator[None]:
        if attributes.subresource:
            yield
            return
        key = attributes.kind.key(attributes.namespace, attributes.name)
        before = claims_of((attributes.old or {}).get("spec") or {})
        taken: set[Claim] = set()
        try:
            if attributes.obj is not None:
                self._allocate(attributes, key, taken)
            yield
        except BaseException:
            self._release(taken)
            raise
        if attributes.dry_run:
            self._release(taken)
        else:
            after = claims_of(attributes.obj.get("spec") or {}) if attributes.obj is not None else set()
            self._release(before - after)

    def _release(self, claims: set[Claim]) -> None:
        for claim in claims:
            self._held.pop(claim, None)

    def _allocate(self, attributes: Attributes, key: str, taken: set[Claim]) -> None:
        """Into the object, and into `taken` as far as it came. Raises Invalid."""
        assert attributes.obj is not None
        spec, errors = attributes.obj["spec"], list[FieldError]()
        if spec["type"] != "ExternalName":
            errors += self._address(spec, key, taken)
            if spec["type"] == "NodePort" or (
                spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)
            ):
                self._new_ports(spec, key, taken)
        errors += self._chosen_ports(spec, key, taken)
        if errors:
            raise invalid_error("", "Service", attributes.name, errors)

    def _take(self, claim: Claim, key: str, taken: set[Claim]) -> bool:
        holder = self._held.get(claim)
        if holder is None:
            self._held[claim] = key
            taken.add(claim)
            return True
        return holder == key

    def _address(self, spec: Obj, key: str, taken: set[Claim]) -> list[FieldError]:
        address = spec.get("clusterIP")
        if address == _HEADLESS:
            spec["clusterIPs"] = [_HEADLESS]
            return []
        if address:
            spec["clusterIPs"] = spec.get("clusterIPs") or [address]
            return self._chosen_address(spec, address, key, taken)
        spec["clusterIP"] = self._free_address(key, taken)
        spec["clusterIPs"] = [spec["clusterIP"]]
        return []

    def _chosen_address(self, spec: Obj, address: str, key: str, taken: set[Claim]) -> list[FieldError]:
        if ipaddress.ip_address(address) not in self._network:
            why = f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {self._network}"
        elif not self._take(("ip", address), key, taken):
            why = "provided IP is already allocated"
        else:
            return []
        return [invalid("spec.clusterIPs", spec["clusterIPs"], f"failed to allocate IP {address}: {why}")]

    def _free_address(self, key: str, taken: set[Claim]) -> str:
        """Random, above the part that is left for fixed addresses; any free one when that is full."""
        size = self._network.num_addresses
        low = min(max(16, size // 16), 256)
        for _ in range(_TRIES):
            address = str(self._network[low + secrets.randbelow(size - low - 1)])
            if self._take(("ip", address), key, taken) and ("ip", address) in taken:
                return address
        for host in self._network.hosts():
            if ("ip", str(host)) not in self._held:
                self._take(("ip", str(host)), key, taken)
                return str(host)
        raise InternalError("failed to allocate a serviceIP: range is full")

    def _new_ports(self, spec: Obj, key: str, taken: set[Claim]) -> None:
        """A port number given to one protocol of a service serves the same port of its other protocols too."""
        given: dict[int, int] = {port["port"]: port["nodePort"] for port in spec["ports"] if port.get("nodePort")}
        for port in spec["ports"]:
            if port.get("nodePort"):
                continue
            shared = given.get(port["port"])
            if shared is not None and (port["protocol"], shared) not in claims_of(spec):
                port["nodePort"] = shared
            else:
                port["nodePort"] = self._free_port(port["protocol"], key, taken)
            given[port["port"]] = port["nodePort"]

    def _free_port(self, protocol: str, key: str, taken: set[Claim]) -> int:
        size = len(_PORTS)
        for _ in range(_TRIES):
            number = _PORTS[_STATIC_PORTS + secrets.randbelow(size - _STATIC_PORTS)]
            if (protocol, number) not in self._held:
                self._take((protocol, number), key, taken)
                return number
        for number in _PORTS:
            if (protocol, number) not in self._held:
                self._take((protocol, number), key, taken)
                return number
        raise InternalError("failed to allocate a nodePort: range is full")

    def _chosen_ports(self, spec: Obj, key: str, taken: set[Claim]) -> list[FieldError]:
        errors = []
        for index, port in enumerate(spec.get("ports") or ()):
            number = port.get("nodePort")
            if not number:
                continue
            path = f"spec.ports[{index}].nodePort"
            if number not in _PORTS:
                errors.append(invalid(path, number, _OUT_OF_RANGE))
            elif not self._take((port.get("protocol", "TCP"), number), key, taken):
                errors.append(invalid(path, number, "provided port is already allocated"))
        return errors
