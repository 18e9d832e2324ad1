"""One repository of a registry: manifests and blobs over HTTP, verified, repeated where that is safe.

Follows the OCI distribution specification 1.1. Failures raise RegistryFailure with one line of text.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from dure.core.json import JSONDecodeError, loads
from dure.images.content import JSON_LIMIT, digest_of
from dure.images.errors import ImageError
from dure.images.model import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from dure.images.reference import is_digest
from dure.images.registry.auth import Authenticator, Denied

_ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
_TRIES = 4
_FIRST_PAUSE = 0.1
_CHUNK = 1 << 18
_BROKEN = (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionError, TimeoutError)
TIMEOUT = aiohttp.ClientTimeout(total=None, connect=6, sock_connect=5, sock_read=60)
"""Whoever is unreachable is known within seconds; a blob may take as long as it goes on."""


class RegistryFailure(ImageError):
    """`kind` tells the cases apart."""

    def __init__(self, message: str, kind: str = "failed") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Manifest:
    descriptor: Descriptor
    data: bytes


class RepositoryClient:
    """`base_url` is the registry's, `name` the repository's path."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, name: str, auth: Authenticator) -> None:
        self._session = session
        self._base = f"{base_url}/v2/{name}"
        self._auth = auth
        self._signing_in = asyncio.Lock()

    async def manifest(self, reference: str) -> Manifest:
        """By tag or digest. Raises RegistryFailure."""
        url = f"{self._base}/manifests/{reference}"
        async with self._get(url, {"Accept": _ACCEPT}) as response:
            data = await _read(response, JSON_LIMIT)
            digest = digest_of(data)
            promised = reference if is_digest(reference) else response.headers.get("Docker-Content-Digest", digest)
            if promised != digest:
                raise RegistryFailure(f"the manifest has digest {digest}, expected {promised}")
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(Descriptor(media_type, digest, len(data)), data)

    async def blob(self, digest: str, size: int, sink: Callable[[bytes], None]) -> None:
        """Give the blob's bytes to `sink`, going on where a broken connection stopped. Raises RegistryFailure."""
        received = 0
        for attempt in range(1, _TRIES + 1):
            try:
                async for chunk in self._blob_from(digest, received, size):
                    sink(chunk)
                    received += len(chunk)
            except _BROKEN as error:
                if attempt == _TRIES:
                    raise RegistryFailure(f"{digest}: the connection broke after {received} bytes") from error
                await asyncio.sleep(_FIRST_PAUSE * 2**attempt)
                continue
            if size and received != size:
                raise RegistryFailure(f"{digest}: has {received} bytes, expected {size}")
            return

    async def _blob_from(self, digest: str, offset: int, size: int) -> AsyncIterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._get(f"{self._base}/blobs/{digest}", headers) as response:
            unwanted = offset if response.status == 200 else 0  # it does not know ranges: the beginning comes again
            total = offset
            async for chunk in response.content.iter_chunked(_CHUNK):
                if unwanted:
                    dropped = min(unwanted, len(chunk))
                    unwanted -= dropped
                    chunk = chunk[dropped:]
                total += len(chunk)
                if size and total > size:
                    raise RegistryFailure(f"{digest}: is longer than the {size} bytes it should have")
                if chunk:
                    yield chunk

    @asynccontextmanager
    async def _get(self, url: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response of 200 or 206. Raises RegistryFailure."""
        for attempt in range(1, _TRIES + 1):
            tried = self._auth.headers
            try:
                response = await self._session.get(url, headers={**headers, **tried})
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if isinstance(error, aiohttp.ServerDisconnectedError) and attempt < _TRIES:
                    continue
                raise RegistryFailure(unreachable(url, error), "unreachable") from error
            async with response:
                if response.status in (200, 206):
                    yield response
                    return
                if response.status == 401 and attempt == 1 and await self._sign_in(response, tried, url):
                    continue
                if response.status in (429, 500, 502, 503, 504) and attempt < _TRIES:
                    await asyncio.sleep(_FIRST_PAUSE * 2**attempt)
                    continue
                raise await _failure(url, response)

    async def _sign_in(self, response: aiohttp.ClientResponse, tried: dict[str, str], url: str) -> bool:
        async with self._signing_in:
            if self._auth.headers != tried:
                return True  # another request has done it meanwhile
            try:
                return await self._auth.answer(response.headers.get("WWW-Authenticate", ""))
            except Denied as error:
                raise RegistryFailure(str(error), "denied") from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise RegistryFailure(unreachable(url, error), "unreachable") from error


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    chunks: list[bytes] = []
    left = limit
    try:
        async for chunk in response.content.iter_chunked(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise RegistryFailure(f"the registry's answer is longer than {limit} bytes")
            chunks.append(chunk)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RegistryFailure(f"the connection broke: {error!r}", "unreachable") from error
    return b"".join(chunks)


async def _failure(url: str, response: aiohttp.ClientResponse) -> RegistryFailure:
    detail = _server_message(await response.content.read(1 << 16))
    text = f"unexpected status from GET request to {url}: {response.status} {response.reason}"
    if response.status == 404:
        return RegistryFailure("not found", "not found")
    if response.status in (401, 403):
        message = "pull access denied, repository does not exist or may require authorization"
        return RegistryFailure(f"{message}: server message: {detail}" if detail else message, "denied")
    return RegistryFailure(f"{text}: {detail}" if detail else text)


def _server_message(body: bytes) -> str:
    """The first error of the specification's error document, on one line."""
    try:
        first = loads(body)["errors"][0]
        text = f"{str(first.get('code', '')).lower()}: {first.get('message', '')}"
    except (JSONDecodeError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return " ".join(text.split())[:300]


def unreachable(url: str, error: BaseException) -> str:
    """As the kubelet's runtime words it."""
    head = f'failed to do request: Head "{url}": '
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    host = url.split("/")[2]
    if isinstance(cause, socket.gaierror) or isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"{head}dial tcp: lookup {host.partition(':')[0]}: no such host"
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
        return f"{head}tls: {' '.join(str(error).split())}"
    if isinstance(error, TimeoutError):
        return f"{head}dial tcp {host}: i/o timeout"
    if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
        return f"{head}dial tcp {host}: connect: connection refused"
    return f"{head}{' '.join(str(cause).split()) or repr(cause)}"
