"""Tunnels to nodes and addresses: what is forwarded, what comes back, and the words when it cannot be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dure.apiserver.parts import Setup
from dure.apiserver.ports import NodeAway
from dure.client.client import Client
from dure.core.clock import LoopClock
from dure.wire.http import Duplex, Request, Response
from tests.support.cluster import api_server
from tests.support.wire import Remote, certificate, decoded


class Pipe:
    """One end of a connection in memory."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.peer: Pipe | None = None
        self.closed = False
        self._ended = False

    async def read(self, limit: int = 65536) -> bytes:
        if self._ended:
            return b""
        data = await self.incoming.get()
        self._ended = not data
        return data

    async def write(self, data: bytes) -> None:
        assert self.peer is not None
        self.peer.incoming.put_nowait(data)

    def write_eof(self) -> None:
        if self.peer is not None:
            self.peer.incoming.put_nowait(b"")

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.write_eof()


def connected() -> tuple[Pipe, Pipe]:
    left, right = Pipe(), Pipe()
    left.peer, right.peer = right, left
    return left, right


class Agent:
    """A node that keeps what it was asked and says what it was told to."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer, self.asked = answer, b""
        self.place: Any = None

    async def _open(self) -> Duplex:
        ours, theirs = connected()
        await theirs.write(self.answer)
        self.side = theirs
        self.side.write_eof()
        return ours

    def prefix(self, node: str) -> str:
        return f"/nodes/{node}"


class Nodes(Agent):
    async def open(self, node: str) -> Duplex:
        self.place = node
        return await self._open()


class Addresses(Agent):
    async def open(self, node: str, ip: str, port: int, *, tls: bool = False) -> Duplex:
        self.place = (node, ip, port, tls)
        return await self._open()


class Away(Nodes):
    async def open(self, node: str) -> Duplex:
        raise NodeAway("no agent there")


async def make_pod(client: Client, *, node: str = "n1", containers: int = 1) -> None:
    meta = {"name": "web", "namespace": "default"}
    await client.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}
    )
    spec: dict[str, Any] = {"containers": [{"name": f"c{i}", "image": "i"} for i in range(containers)]}
    if node:
        spec["nodeName"] = node
    made = await client.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    status = {**made["status"], "podIP": "10.244.1.5"}
    await client.update({**made, "status": status}, subresource="status")


async def body_of(response: Response) -> bytes:
    assert response.stream is not None, decoded(response)
    return b"".join([chunk async for chunk in response.stream.chunks()])


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
LOG = HEAD + b"3\r\none\r\n4\r\n two\r\n0\r\n\r\n"


async def test_logs_come_from_the_pods_node() -> None:
    nodes = Nodes(LOG)
    async with api_server(setup=Setup(clock=LoopClock(), nodes=nodes)) as (server, client):
        await make_pod(client)
        path = "/api/v1/namespaces/default/pods/web/log?follow=true&tailLines=5"
        answer = await Remote(server.handle).ask("GET", path, authorization="Bearer secret")
        assert await body_of(answer) == b"one two"
        assert answer.headers["Content-Type"] == "text/plain"
        asked = await nodes.side.read()
        assert asked.startswith(b"GET /nodes/n1/containerLogs/default/web/c0?follow=true&tailLines=5 HTTP/1.1\r\n")
        assert b"secret" not in asked


async def test_logs_of_an_unscheduled_pod_are_empty() -> None:
    async with api_server(setup=Setup(clock=LoopClock(), nodes=Nodes())) as (server, client):
        await make_pod(client, node="")
        answer = await Remote(server.handle).ask("GET", "/api/v1/namespaces/default/pods/web/log")
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "a container name must be specified for pod web, choose one of: [c0 c1]"),
        ("?container=no", "container no is not valid for pod web"),
        ("?container=c0&tailLines=x", 'strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)
async def test_log_options_are_checked(query: str, message: str) -> None:
    async with api_server(setup=Setup(clock=LoopClock(), nodes=Nodes())) as (server, client):
        await make_pod(client, containers=2)
        answer = await Remote(server.handle).value("GET", f"/api/v1/namespaces/default/pods/web/log{query}")
        assert (answer["code"], answer["message"]) == (400, message)


async def test_a_node_that_is_away_is_named() -> None:
    async with api_server(setup=Setup(clock=LoopClock(), nodes=Away())) as (server, client):
        await make_pod(client)
        answer = await Remote(server.handle).value("GET", "/api/v1/namespaces/default/pods/web/log")
        assert answer["code"] == 500
        assert "dial node n1: no agent there" in answer["message"]


async def test_exec_pipes_raw_bytes_both_ways() -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    nodes = Nodes(switching)
    client_side, server_side = connected()

    async def upgrade() -> Duplex:
        return server_side

    async with api_server(setup=Setup(clock=LoopClock(), nodes=nodes)) as (server, client):
        await make_pod(client)
        await client_side.write(b"typed")
        request = Request(
            "POST",
            "/api/v1/namespaces/default/pods/web/exec",
            {"command": ["ls", "-l"], "stdin": ["true"], "container": ["c0"]},
            {"connection": "upgrade", "upgrade": "SPDY/3.1", "x-stream-protocol-version": "v4.channel.k8s.io"},
            peer_certificate=certificate("admin", "system:masters"),
            upgrade=upgrade,
        )
        answer = await server.handle(request)
        assert answer.taken
        asked = await nodes.side.read()
        assert asked.startswith(b"POST /nodes/n1/exec/default/web/c0?command=ls&command=-l&input=true HTTP/1.1\r\n")
        assert b"upgrade: SPDY/3.1" in asked
        assert await client_side.read() == switching
        assert server_side.closed


async def test_exec_in_an_unscheduled_pod_is_refused() -> None:
    async with api_server(setup=Setup(clock=LoopClock(), nodes=Nodes())) as (server, client):
        await make_pod(client, node="")
        answer = await Remote(server.handle).value("POST", "/api/v1/namespaces/default/pods/web/exec?command=ls")
        assert (answer["code"], answer["message"]) == (400, "pod web does not have a host assigned")


PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nhi"


async def test_a_pods_port_is_reached_through_the_server() -> None:
    dialer = Addresses(PAGE)
    async with api_server(setup=Setup(clock=LoopClock(), dialer=dialer)) as (server, client):
        await make_pod(client)
        path = "/api/v1/namespaces/default/pods/web:8080/proxy/a%20b/proxy/c?x=1"
        answer = await Remote(server.handle).ask("GET", path)
        assert await body_of(answer) == b"hi"
        assert answer.headers["X-A"] == "b"
        assert dialer.place == ("n1", "10.244.1.5", 8080, False)
        assert (await dialer.side.read()).startswith(b"GET /a%20b/proxy/c?x=1 HTTP/1.1\r\n")


async def test_a_service_is_reached_at_a_ready_endpoint() -> None:
    dialer = Addresses(PAGE)
    async with api_server(setup=Setup(clock=LoopClock(), dialer=dialer)) as (server, client):
        service = {"ports": [{"name": "web", "port": 80, "targetPort": 8080}]}
        meta = {"name": "web", "namespace": "default"}
        await client.create({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service})
        remote = Remote(server.handle)
        path = "/api/v1/namespaces/default/services/https:web:web/proxy/"
        empty = await remote.value("GET", path)
        assert (empty["code"], empty["message"]) == (503, 'no endpoints available for service "web"')
        await client.create(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**meta, "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4",
                "ports": [{"name": "web", "port": 8080}],
                "endpoints": [
                    {"addresses": ["10.244.1.6"], "conditions": {"ready": False}},
                    {"addresses": ["10.244.1.5"], "conditions": {"ready": True}, "nodeName": "n1"},
                ],
            }
        )
        assert await body_of(await remote.ask("GET", path)) == b"hi"
        assert dialer.place == ("n1", "10.244.1.5", 8080, True)


async def test_a_proxy_path_without_its_slash_is_redirected() -> None:
    async with api_server(setup=Setup(clock=LoopClock(), dialer=Addresses())) as (server, client):
        await make_pod(client)
        path = "/api/v1/namespaces/default/pods/web/proxy"
        answer = await Remote(server.handle).ask("GET", path)
        assert (answer.status, answer.headers["Location"]) == (301, f"{path}/")
