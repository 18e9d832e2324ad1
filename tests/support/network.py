"""A machine with nodes for tests: real namespaces and rules, on an API server in this process.

Pods are namespaces with echo servers whose sockets belong to them; all of it is served by the test's loop. It stands
beside whatever else the host runs.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from dure.apiserver.bootstrap import Addresses as ClusterAddresses
from dure.apiserver.parts import Setup
from dure.client.client import Client
from dure.client.events import EventRecorder
from dure.control.informer import Informer
from dure.core.aio import running
from dure.core.clock import LoopClock
from dure.core.json import Obj
from dure.node.network.dns import wire
from dure.node.network.dns.server import DnsServer
from dure.node.network.links import Machine
from dure.node.network.model import Addresses
from dure.node.network.pods import NodeNetwork
from dure.node.network.ports import BY_SERVICE, service_of_slice
from dure.node.network.services.proxy import ServiceProxy
from dure.node.network.services.publisher import LoadBalancerPublisher
from dure.node.ports import HostPort, PodAddress
from tests.support.cluster import api_server

LINKS, PODS, SERVICES = "10.231.0.0/24", "10.232.0.0/16", "10.233.0.0/16"
ADDRESSES = Addresses.parse(LINKS, PODS, SERVICES)
_REMEMBERED = Path("/run/dure-forwarding.json")
HOST = Path("/proc/self/ns/net")


class Echo(asyncio.Protocol):
    """Says who it is and whom it sees, once a line; keeps the connection."""

    def __init__(self, name: str) -> None:
        self._name = name

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        peer = self._transport.get_extra_info("peername")[0]
        self._transport.write(f"{self._name} {peer}\n".encode())


class UdpEcho(asyncio.DatagramProtocol):
    def __init__(self, name: str) -> None:
        self._name = name

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(f"{self._name} {addr[0]}".encode(), addr)


class World:
    """Two nodes; `agent()` is one life of what the agent does for the network."""

    def __init__(self, folder: Path, instance: str, client: Client) -> None:
        self.folder = folder
        self.instance = instance
        self.client = client
        self.machine = Machine(instance, folder / "run", ADDRESSES, ["dure-1", "dure-2"])
        self.nodes: dict[str, NodeNetwork] = {}
        self._stack = AsyncExitStack()
        self._servers: list[Any] = []

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[None]:
        """From start to end of one agent; kernel state stays."""
        self.machine = Machine(self.instance, self.folder / "run", ADDRESSES, ["dure-1", "dure-2"])
        await self.machine.setup()
        self.nodes = {name: NodeNetwork(self.machine, name, self.folder / name) for name in self.machine.nodes}
        services = Informer(self.client, "services")
        slices = Informer(self.client, "endpointslices.discovery.k8s.io", indexes={BY_SERVICE: service_of_slice})
        publisher = LoadBalancerPublisher(self.machine, self.client, services, EventRecorder(self.client, "test"))
        loops = [services.run(), slices.run(), publisher.run()]
        resolv_conf = self.folder / "resolv.conf"
        for node in self.nodes.values():
            await node.start()
            loops += [ServiceProxy(node, services, slices).run()]
            loops += [DnsServer(node, services, slices, resolv_conf=resolv_conf).run()]
        try:
            async with running(*loops):
                await asyncio.sleep(0.1)
                yield
        finally:
            for node in self.nodes.values():
                node.close()
            self.machine.close()

    async def pod(
        self, uid: str, node: str = "dure-1", *, port: int = 8000, host_ports: Sequence[HostPort] = ()
    ) -> PodAddress:
        """Attached, and echoing its uid on TCP and UDP."""
        where = await self.nodes[node].attach(uid, host_ports=host_ports)
        await self.echo(Path(where.netns), uid, where.ip, port)
        return where

    async def echo(self, netns: Path, name: str, ip: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        tcp = await self.socket(netns, lambda: _bound(socket.SOCK_STREAM, ip, port))
        self._servers.append(await loop.create_server(lambda: Echo(name), sock=tcp))
        udp = await self.socket(netns, lambda: _bound(socket.SOCK_DGRAM, ip, port))
        self._servers.append((await loop.create_datagram_endpoint(lambda: UdpEcho(name), sock=udp))[0])

    async def socket(self, netns: Path, make: Callable[[], socket.socket]) -> socket.socket:
        thread = self.machine.thread
        return await thread.call(lambda: thread.inside(netns, make))

    async def connect(self, netns: str | Path, ip: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        made = await self.socket(Path(netns), lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        made.setblocking(False)
        try:
            async with asyncio.timeout(2):
                await asyncio.get_running_loop().sock_connect(made, (ip, port))
                return await asyncio.open_connection(sock=made)
        except BaseException:
            made.close()
            raise

    async def ask(self, netns: str | Path, ip: str, port: int) -> str:
        """`<server> <whom it sees>`, or the error's name."""
        try:
            reader, writer = await self.connect(netns, ip, port)
        except OSError as error:
            return type(error).__name__
        try:
            return await say(reader, writer)
        finally:
            writer.close()

    async def ask_udp(self, netns: str | Path, ip: str, port: int, data: bytes = b"?", source: int = 0) -> bytes:
        made = await self.socket(Path(netns), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            made.bind(("0.0.0.0", source))
            await loop.sock_connect(made, (ip, port))
            await loop.sock_sendall(made, data)
            async with asyncio.timeout(10):  # well past the patience of a DNS server whose own resolver is silent
                return await loop.sock_recv(made, 65535)
        finally:
            made.close()

    async def dig(self, netns: str | Path, name: str, kind: int = wire.A, *, tcp: bool = False) -> tuple[int, set[str]]:
        """(rcode, addresses or raw data of the answers)."""
        question = wire.encode_name(name) + bytes([0, kind, 0, 1])
        query = wire.ask(7, question)
        if tcp:
            reader, writer = await self.connect(netns, ADDRESSES.dns, 53)
            writer.write(len(query).to_bytes(2, "big") + query)
            answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            writer.close()
        else:
            answer = await self.ask_udp(netns, ADDRESSES.dns, 53, query)
        found = wire.answers_of(answer)
        return wire.rcode_of(answer), {
            socket.inet_ntoa(one.data) if one.type == wire.A else one.data.hex() for one in found
        }

    async def service(self, name: str, **spec: Any) -> Obj:
        ports = spec.pop("ports", [{"port": 80, "targetPort": 8000, "protocol": "TCP"}])
        made = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}}
        return await self.client.create({**made, "spec": {"ports": ports, **spec}})

    async def endpoints(self, service: str, *pods: Obj, ports: Sequence[Obj] = ({"port": 8000},)) -> None:
        """The Service's only slice: `endpoint(...)` each."""
        meta = {"name": service, "namespace": "default", "labels": {"kubernetes.io/service-name": service}}
        body = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4"}
        body |= {"endpoints": [*pods], "ports": [{"name": "", "protocol": "TCP", **port} for port in ports]}
        await self.client.apply(body, manager="test", force=True)

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        machine = Machine(self.instance, self.folder / "run", ADDRESSES, ["dure-1", "dure-2"])
        try:
            await machine.teardown()
        finally:
            machine.close()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A fresh machine, gone afterwards; no agent runs yet."""
    cluster = ClusterAddresses(service_cidr=SERVICES, api_host=ADDRESSES.host)
    async with api_server(setup=Setup(clock=LoopClock(), addresses=cluster)) as (_, client):
        made = World(folder, f"dure-{secrets.token_hex(2)}", client)
        try:
            yield made
        finally:
            await made.close()


def endpoint(pod: PodAddress, node: str = "dure-1", **conditions: bool) -> Obj:
    return {"addresses": [pod.ip], "nodeName": node, "conditions": {"ready": True, **conditions}}


async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    writer.write(b"?\n")
    async with asyncio.timeout(2):
        return (await reader.readline()).decode().strip()


async def until(check: Callable[[], Any], wanted: Any, *, within: float = 3.0) -> None:
    """Ask again until the answer is as wanted."""
    got: Any = None
    try:
        async with asyncio.timeout(within):
            while (got := await check()) != wanted:  # noqa: ASYNC110  # the kernel tells nobody of its changes
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"last answer {got!r}, wanted {wanted!r}") from None


def host_state(instance: str) -> list[str]:
    """Whatever of the host's network, mounts and switches shows that this platform is or was there."""
    commands = (
        ["ip", "-o", "address"],
        ["ip", "netns"],
        ["nft", "list", "ruleset"],
        ["ip", "route", "show", "table", "all"],
        ["ip", "rule"],
        ["cat", "/proc/self/mountinfo"],
        ["sysctl", "-a", "--pattern", r"net\.ipv4\.conf\..*"],
    )
    lines = [line for words in commands for line in _output(*words).splitlines()]
    networks = [network.rpartition(".0.0")[0] + "." for network in (PODS, SERVICES)] + [LINKS.rpartition(".")[0] + "."]
    state = [line for line in lines if any(mark in line for mark in (instance, *networks))]
    if _REMEMBERED.exists() and f'"{instance}"' in _REMEMBERED.read_text():
        state.append("ip_forward is still claimed")
    return state


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True).stdout


def _bound(kind: int, ip: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((ip, port))
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    made.setblocking(False)
    return made
