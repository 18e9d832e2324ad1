"""`pods/proxy` and `services/proxy`: HTTP through the API server to an address inside the cluster.

The name of the target is `[scheme:]name[:port]`; what follows `/proxy` goes on as it came.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from dure.apiserver.call import Call
from dure.apiserver.errors import not_found
from dure.apiserver.ports import Dialer, NodeAway
from dure.apiserver.proxy import forward
from dure.apiserver.rest.objects import Objects
from dure.apiserver.rest.resources import Answer
from dure.core.errors import BadRequest, Unavailable
from dure.core.json import Obj
from dure.wire.http import Response

_SERVICE_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Target:
    scheme: str
    name: str
    port: str


@dataclass(frozen=True, slots=True)
class Place:
    node: str
    ip: str
    port: int


def parse_target(text: str) -> Target:
    """Raises BadRequest."""
    parts = text.split(":")
    if len(parts) == 1:
        return Target("http", parts[0], "")
    if len(parts) == 2:
        return Target("http", parts[0], parts[1])
    if len(parts) == 3 and parts[0] in ("http", "https", ""):
        return Target(parts[0] or "http", parts[1], parts[2])
    raise BadRequest(f'invalid request target "{text}": use [http|https]:name:port')


class AddressProxy:
    """`answers` goes into the table of special resources."""

    def __init__(self, objects: Objects, dialer: Dialer | None) -> None:
        self._objects, self._dialer = objects, dialer

    def answers(self) -> Mapping[str, Answer]:
        return {"pods/proxy": self._pod, "services/proxy": self._service}

    async def _pod(self, call: Call) -> Response:
        target = parse_target(call.name)
        pod = await self._objects.get(call.kind, call.namespace, target.name)
        ip = (pod.get("status") or {}).get("podIP")
        if not ip:
            raise Unavailable(f'address not allowed: pod "{target.name}" has no address')
        place = Place(pod["spec"].get("nodeName", ""), ip, _pod_port(pod, target.port))
        return await self._forward(call, target, place)

    async def _service(self, call: Call) -> Response:
        target = parse_target(call.name)
        service = await self._objects.find(call.kind, call.namespace, target.name)
        if service is None:
            raise not_found(call.kind, target.name)
        port = _service_port(service, target.port)
        places = await self._places(call.namespace, target.name, port.get("name") or "")
        if not places:
            raise Unavailable(f'no endpoints available for service "{target.name}"')
        return await self._forward(call, target, secrets.choice(places))

    async def _places(self, namespace: str, service: str, port_name: str) -> list[Place]:
        """Where the service's ready endpoints listen."""
        kind = self._objects.kinds.resource("endpointslices.discovery.k8s.io")
        page = await self._objects.store.list(kind.prefix(namespace))
        decode = self._objects.codec(kind).decode
        found: list[Place] = []
        for piece in map(decode, page.records):
            if (piece["metadata"].get("labels") or {}).get(_SERVICE_LABEL) != service:
                continue
            found += _ready_places(piece, port_name)
        return found

    async def _forward(self, call: Call, target: Target, place: Place) -> Response:
        raw_path, _, query = call.request.raw_target.partition("?")
        root, slash, rest = _split_at_proxy(raw_path)
        if not slash and call.request.method in ("GET", "HEAD"):
            return Response(301, {"Location": f"{raw_path}/{'?' + query if query else ''}"})
        if self._dialer is None:
            raise Unavailable("this server cannot reach addresses in the cluster")
        try:
            peer = await self._dialer.open(place.node, place.ip, place.port, tls=target.scheme == "https")
        except (NodeAway, OSError, TimeoutError) as error:
            raise Unavailable(f"error trying to reach service: dial tcp {place.ip}:{place.port}: {error}") from error
        answer = await forward(call, peer, f"/{rest}{'?' + query if query else ''}")
        location = answer.headers.get("Location", "")
        if location.startswith("/"):
            answer.headers["Location"] = f"{root}{location}"
        return answer


def _ready_places(piece: Obj, port_name: str) -> list[Place]:
    """Of one EndpointSlice."""
    ports = [port for port in piece.get("ports") or () if (port.get("name") or "") == port_name and port.get("port")]
    if not ports:
        return []
    return [
        Place(endpoint.get("nodeName") or "", endpoint["addresses"][0], ports[0]["port"])
        for endpoint in piece.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
    ]


_TO_PROXY = len(["", "api", "v1", "namespaces", "default", "pods", "web", "proxy"])


def _split_at_proxy(path: str) -> tuple[str, str, str]:
    """The path up to and with `/proxy`, the slash after it, and the rest."""
    parts = path.split("/", _TO_PROXY)
    slash = "/" if len(parts) > _TO_PROXY else ""
    return "/".join(parts[:_TO_PROXY]), slash, parts[_TO_PROXY] if slash else ""


def _pod_port(pod: Obj, wanted: str) -> int:
    if wanted.isdigit():
        return int(wanted)
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports") or ()]
    for port in ports:
        if not wanted or port.get("name") == wanted:
            return int(port["containerPort"])
    if not wanted:
        return 80
    raise BadRequest(f'pod "{pod["metadata"]["name"]}" has no port named "{wanted}"')


def _service_port(service: Obj, wanted: str) -> Obj:
    """By name or number; a service with one port needs none. Raises Unavailable."""
    ports: list[Obj] = service["spec"].get("ports") or []
    if not wanted and len(ports) == 1:
        return ports[0]
    for port in ports:
        if wanted == (port.get("name") or "") or (wanted.isdigit() and int(wanted) == port["port"]):
            return port
    raise Unavailable(f'no service port "{wanted}" found for service "{service["metadata"]["name"]}"')
