"""HttpTransport against a real server over TLS, and over broken connections."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dure.client.client import Client
from dure.client.credentials import tls_files, token_file
from dure.client.http import HttpTransport
from dure.client.kubeconfig import http_from_kubeconfig, transport_from_kubeconfig, transport_in_cluster
from dure.core.errors import ConfigError, NotFound, TooManyRequests, TransportError
from dure.wire.http import Request
from tests.support.api import FakeApi
from tests.support.kinds import plain_kinds, pod

pytestmark = pytest.mark.real_loop


class Server(NamedTuple):
    url: str
    api: FakeApi
    seen: list[web.BaseRequest]


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    api, seen = FakeApi(), list[web.BaseRequest]()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request)
        query = {name: request.query.getall(name) for name in request.query}
        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = await api.handle(Request(request.method, request.path, query, headers, await request.read()))
        if answer.stream is None:
            body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
            return web.Response(status=answer.status, headers=answer.headers, body=body)
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in answer.stream.chunks():
            await response.write(chunk)
        return response

    async with running(web.Server(handle, handler_cancellation=True), tls) as url:
        yield Server(url, api, seen)


@asynccontextmanager
async def running(server: web.Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    runner = web.ServerRunner(server, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connected(url: str, **options: object) -> AsyncIterator[Client]:
    async with HttpTransport(url, **options) as transport:  # type: ignore[arg-type]
        yield Client(transport, plain_kinds())


async def test_the_verbs_over_http() -> None:
    async with serving() as server, connected(server.url) as client:
        made = await client.create(pod("web"))
        assert await client.get("pods", "web", "default") == made
        assert [item["metadata"]["name"] for item in (await client.list("pods", limit=1)).items] == ["web"]
        await client.patch("pods", "web", "default", {"spec": {"nodeName": "one"}})
        await client.delete("pods", "web", "default")
        with pytest.raises(NotFound, match="not found"):
            await client.get("pods", "web", "default")


async def test_names_are_quoted() -> None:
    async with serving() as server, connected(server.url) as client:
        await client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "system:node 1%"}})
        assert (await client.get("nodes", "system:node 1%"))["metadata"]["name"] == "system:node 1%"
        await client.list("pods", labels="a in (b,c),d!=e")
        assert server.api.requests[-1].query == {"labelSelector": ["a in (b,c),d!=e"]}


async def test_watch_over_http() -> None:
    async with serving() as server, connected(server.url) as client:
        async with client.watch("pods", since="0") as events:
            for number in range(200):
                await client.create(pod(f"p{number}"))
            seen = [(await anext(events)).object["metadata"]["name"] for _ in range(200)]
        assert seen == [f"p{number}" for number in range(200)]


async def test_a_refused_connection_may_be_repeated() -> None:
    async with connected("http://127.0.0.1:1") as client:
        with pytest.raises(TransportError) as caught:
            await client.create(pod("web"))
        assert caught.value.repeatable


async def test_a_connection_lost_during_a_write_may_not_be_repeated() -> None:
    async def hang_up(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with running(web.Server(hang_up)) as url, connected(url) as client:
        with pytest.raises(TransportError) as caught:
            await client.create(pod("web"))
        assert not caught.value.repeatable
        with pytest.raises(TransportError) as caught:
            await client.list("pods")
        assert caught.value.repeatable


async def test_a_watch_cut_inside_an_event_is_an_error() -> None:
    async def half(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(
            b'{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}}\n{"ty'
        )
        return response

    async with running(web.Server(half)) as url, connected(url) as client:
        with pytest.raises(TransportError, match="middle of an event"):
            async with client.watch("pods", since="0") as events:
                assert (await anext(events)).object["metadata"]["name"] == "a"
                await anext(events)


async def test_an_error_that_is_no_status_keeps_its_code() -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=429, text="calm down", headers={"Retry-After": "3"})

    async with running(web.Server(refuse)) as url, connected(url) as client:
        with pytest.raises(TooManyRequests, match="calm down") as caught:
            await client.list("pods")
        assert caught.value.retry_after == 3


async def test_logs_come_as_text() -> None:
    async def say(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=f"{request.path} {request.query_string}")

    async with running(web.Server(say)) as url, connected(url) as client:
        assert await client.raw("GET", "/version", timeout="32s") == "/version timeout=32s"


async def test_a_token_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    async with serving() as server, connected(server.url, token=token_file(token)) as client:
        await client.list("pods")
        token.write_text("second one\n")
        await client.list("pods")
        assert [request.headers["Authorization"] for request in server.seen] == ["Bearer first", "Bearer second one"]


class Pki:
    """An authority, a server certificate for 127.0.0.1, and a client's, in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authority_key = ec.generate_private_key(ec.SECP256R1())
        self._authority = self._certificate("test-ca", self._authority_key, is_authority=True)
        (folder / "ca.crt").write_bytes(self._authority.public_bytes(serialization.Encoding.PEM))
        self.issue("server")
        self.issue("client")

    def issue(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(name, key)
        (self.folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / f"{name}.key").write_bytes(pem)

    def _certificate(
        self, name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool = False
    ) -> x509.Certificate:

        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = subject if is_authority else self._authority.subject
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self._authority_key, hashes.SHA256())
        )

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.folder / "ca.crt"))
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def kubeconfig(self, url: str, user: dict[str, str], **cluster: object) -> Path:
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": url, **cluster}}],
            "users": [{"name": "u", "user": user}],
        }
        path = self.folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path


def peer_name(request: web.BaseRequest) -> str:
    assert request.transport is not None
    certificate = request.transport.get_extra_info("peercert")
    return str(certificate["subject"][0][0][1]) if certificate else ""


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


async def test_a_kubeconfig_with_a_client_certificate(pki: Pki) -> None:
    names: list[str] = []

    async def who(request: web.BaseRequest) -> web.StreamResponse:
        names.append(peer_name(request))
        return web.json_response({"metadata": {}, "items": []})

    async with running(web.Server(who), pki.server_context()) as url:
        user = {"client-certificate": "client.crt", "client-key": "client.key"}
        path = pki.kubeconfig(url, user, **{"certificate-authority": "ca.crt"})
        async with transport_from_kubeconfig(path) as transport:
            client = Client(transport, plain_kinds())
            await client.list("pods")
            pki.issue("client")  # renewed
            await client.list("pods")
    assert names == ["client", "client"]


async def test_a_kubeconfig_with_everything_inside(pki: Pki) -> None:
    def inline(name: str) -> str:
        return base64.b64encode((pki.folder / name).read_bytes()).decode()

    async with serving(pki.server_context()) as server:
        user = {"client-certificate-data": inline("client.crt"), "client-key-data": inline("client.key")}
        path = pki.kubeconfig(server.url, user, **{"certificate-authority-data": inline("ca.crt")})
        async with transport_from_kubeconfig(path) as transport:
            await Client(transport, plain_kinds()).list("pods")


async def test_a_server_of_another_authority_is_refused(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Pki(tmp_path_factory.mktemp("other"))
    async with serving(pki.server_context()) as server:
        async with connected(server.url, tls=tls_files(other.folder / "ca.crt")) as client:
            with pytest.raises(TransportError, match="certificate verify failed"):
                await client.list("pods")
        async with connected(server.url, tls=tls_files(pki.folder / "ca.crt")) as client:
            await client.list("pods")


async def test_in_a_cluster_the_service_account_is_used(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    (pki.folder / "token").write_text("of-the-pod")
    async with serving(pki.server_context()) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", server.url.rpartition(":")[2])
        async with transport_in_cluster(pki.folder) as transport:
            await Client(transport, plain_kinds()).list("pods")
        assert server.seen[0].headers["Authorization"] == "Bearer of-the-pod"


async def test_outside_a_cluster_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="not a pod"):
        async with transport_in_cluster(tmp_path):
            pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a kubeconfig"),
        ("a: [", "is not a kubeconfig"),
        ("contexts: []", "no current context"),
        ("current-context: x", "nothing named 'x' among contexts"),
        ("current-context: x\ncontexts: [{name: x, context: {cluster: y}}]", "nothing named 'y' among clusters"),
        (
            "current-context: x\ncontexts: [{name: x, context: {cluster: y}}]\nclusters: [{name: y, cluster: {}}]",
            "no server URL",
        ),
        (
            "current-context: x\ncontexts: [{name: x, context: {cluster: y}}]\n"
            "clusters: [{name: y, cluster: {server: 'https://h', certificate-authority: nowhere}}]",
            "nowhere",
        ),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(ConfigError, match=message):
        http_from_kubeconfig(tmp_path / "config")


def test_a_missing_kubeconfig_names_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        http_from_kubeconfig(tmp_path / "config")
    assert "dure up" in caught.value.mend


async def test_many_at_once_share_connections() -> None:
    async with serving() as server, connected(server.url, connections=4) as client:
        await asyncio.gather(*(client.create(pod(f"p{number}")) for number in range(100)))
        assert len((await client.list("pods")).items) == 100
        assert len({request.transport for request in server.seen}) <= 5
