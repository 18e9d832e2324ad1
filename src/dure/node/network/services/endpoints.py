"""Which endpoints of a Service take traffic: pure reading of Services and EndpointSlices (discovery.k8s.io/v1).

Ready ones; when there is none, those that are terminating but still serve (KEP-1669).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dure.core.json import Obj


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port behind a Service port."""

    ip: str
    port: int
    node: str = ""
    hostname: str = ""
    is_ready: bool = True
    is_draining: bool = False
    """Terminating, but still serving."""


def usable(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Those that get new connections, in a stable order."""
    everyone = sorted(set(endpoints), key=lambda one: (one.ip, one.port))
    ready = tuple(one for one in everyone if one.is_ready)
    return ready or tuple(one for one in everyone if one.is_draining)


def of_port(slices: Iterable[Obj], port: Obj) -> list[Endpoint]:
    """Every IPv4 endpoint behind one port of a Service."""
    name, protocol = port.get("name") or "", port.get("protocol") or "TCP"
    found: dict[tuple[str, int], Endpoint] = {}
    for endpoint_slice in slices:
        if endpoint_slice.get("addressType") != "IPv4":
            continue
        for number in _numbers(endpoint_slice, name, protocol):
            for item in endpoint_slice.get("endpoints") or ():
                endpoint = _endpoint(item, number)
                if endpoint is not None:
                    found.setdefault((endpoint.ip, endpoint.port), endpoint)
    return list(found.values())


def of_addresses(slices: Iterable[Obj]) -> list[Endpoint]:
    """Every IPv4 endpoint of a Service once, whatever its ports (they are 0 here); for DNS."""
    found: dict[str, Endpoint] = {}
    for endpoint_slice in slices:
        if endpoint_slice.get("addressType") == "IPv4":
            for item in endpoint_slice.get("endpoints") or ():
                endpoint = _endpoint(item, 0)
                if endpoint is not None:
                    found.setdefault(endpoint.ip, endpoint)
    return list(found.values())


def _numbers(endpoint_slice: Obj, name: str, protocol: str) -> list[int]:
    ports: Sequence[dict[str, Any]] = endpoint_slice.get("ports") or ()
    return [
        int(port["port"])
        for port in ports
        if port.get("port") and (port.get("name") or "") == name and (port.get("protocol") or "TCP") == protocol
    ]


def _endpoint(item: Obj, port: int) -> Endpoint | None:
    addresses = item.get("addresses") or ()
    if not addresses:
        return None
    conditions = item.get("conditions") or {}
    ready = conditions.get("ready")
    is_ready = ready is None or bool(ready)
    serving = conditions.get("serving")
    is_serving = is_ready if serving is None else bool(serving)
    return Endpoint(
        ip=str(addresses[0]),
        port=port,
        node=item.get("nodeName") or "",
        hostname=item.get("hostname") or "",
        is_ready=is_ready,
        is_draining=is_serving and bool(conditions.get("terminating")),
    )
