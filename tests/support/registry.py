"""A small real image registry for tests: OCI distribution over aiohttp, with the troubles a test asks for."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from dure.core.json import dumps
from dure.images.archive import write_layer
from dure.images.model import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, StoredImage, host_architecture
from dure.images.store import ContentStore


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Registry:
    """`blobs` and `manifests` may be changed at any time. `login` makes it ask for a token."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    login: tuple[str, str] | None = None
    breaks_after: int = 0
    """Cut the first answer of each blob after so many bytes."""
    knows_ranges: bool = True
    redirects: bool = False
    address: str = ""
    requests: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    def add_blob(self, data: bytes) -> dict[str, Any]:
        self.blobs[digest_of(data)] = data
        return {"digest": digest_of(data), "size": len(data)}

    def add_manifest(self, name: str, tag: str, body: dict[str, Any]) -> str:
        data = dumps(body)
        for key in (tag, digest_of(data)):
            self.manifests[f"{name}:{key}"] = (body["mediaType"], data)
        return digest_of(data)

    def push(self, content: ContentStore, image: StoredImage, name: str, tag: str) -> str:
        """Take an image of a store, its layers compressed; the manifest's digest."""
        layers = []
        for diff_id in image.diff_ids:
            pieces: list[bytes] = []
            write_layer(content.layers.path(diff_id), pieces.append)
            layers.append(
                {"mediaType": OCI_LAYER + "+gzip", **self.add_blob(gzip.compress(b"".join(pieces), 1, mtime=0))}
            )
        config = {"mediaType": OCI_CONFIG, **self.add_blob(content.blobs.read(image.id))}
        body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
        return self.add_manifest(name, tag, body)

    def push_index(self, name: str, tag: str, digest: str) -> str:
        """An index whose entry for this machine is the manifest."""
        choices = [("s390x", "sha256:" + "0" * 64), (host_architecture(), digest)]
        entries = [
            {
                "mediaType": OCI_MANIFEST,
                "digest": of,
                "size": 1,
                "platform": {"os": "linux", "architecture": machine},
            }
            for machine, of in choices
        ]
        return self.add_manifest(name, tag, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        if request.path == "/token":
            return self._token(request)
        if self.login and request.headers.get("Authorization") != "Bearer good":
            realm = f'Bearer realm="http://{self.address}/token",service="test",scope="repository:x:pull"'
            return web.json_response({"errors": []}, status=401, headers={"WWW-Authenticate": realm})
        name, _, rest = request.path.removeprefix("/v2/").partition("/manifests/")
        if rest:
            return self._manifest(name, rest)
        return await self._blob(request, request.path.rpartition("/")[2])

    def _token(self, request: web.BaseRequest) -> web.Response:
        assert self.login is not None
        wanted = "Basic " + base64.b64encode(":".join(self.login).encode()).decode()
        if request.headers.get("Authorization") != wanted:
            return web.json_response({}, status=401)
        return web.json_response({"token": "good"})

    def _manifest(self, name: str, reference: str) -> web.Response:
        found = self.manifests.get(f"{name}:{reference}")
        if found is None:
            return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no"}]}, status=404)
        return web.Response(body=found[1], headers={"Content-Type": found[0]})

    async def _blob(self, request: web.BaseRequest, digest: str) -> web.StreamResponse:
        data = self.blobs.get(digest)
        if data is None:
            return web.json_response({}, status=404)
        if self.redirects and "elsewhere" not in request.path:
            return web.Response(status=307, headers={"Location": f"/elsewhere/{digest}"})
        start = 0
        status = 200
        if self.knows_ranges and "Range" in request.headers:
            start, status = int(request.headers["Range"].removeprefix("bytes=").rstrip("-")), 206
        response = web.StreamResponse(status=status, headers={"Content-Length": str(len(data) - start)})
        await response.prepare(request)
        if self.breaks_after and digest not in self.broken:
            self.broken.add(digest)
            await response.write(data[start : start + self.breaks_after])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(data[start:])
        return response


@asynccontextmanager
async def serving(registry: Registry) -> AsyncIterator[Registry]:
    """Listens on a free port of 127.0.0.1; `registry.address` is `host:port`."""
    runner = web.ServerRunner(web.Server(registry.handle))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        registry.address = f"{host}:{port}"
        yield registry
    finally:
        await runner.cleanup()
