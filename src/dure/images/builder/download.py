"""ADD from a web address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import aiohttp

from dure.images.content import digest_of
from dure.images.errors import BuildFailed

_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True)
class Download:
    """`name` is the last part of the address."""

    name: str
    data: bytes
    digest: str


async def download_all(urls: Sequence[str], checksum: str) -> dict[str, Download]:
    """Each address once. Raises BuildFailed."""
    if not urls:
        return {}
    found: dict[str, Download] = {}
    limits = aiohttp.ClientTimeout(total=600, sock_connect=10)
    async with aiohttp.ClientSession(timeout=limits, trust_env=True) as session:
        for url in urls:
            found[url] = await _download(session, url)
            if checksum and found[url].digest != checksum:
                raise BuildFailed(f"{url}: has {found[url].digest}, --checksum says {checksum}")
    return found


async def _download(session: aiohttp.ClientSession, url: str) -> Download:
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not name or name in (".", ".."):
        raise BuildFailed(f"{url}: cannot determine a file name, the address ends with /")
    chunks: list[bytes] = []
    size = 0
    try:
        async with session.get(url) as response:
            if response.status != 200:
                raise BuildFailed(f"{url}: the server answered {response.status}")
            async for chunk in response.content.iter_chunked(1 << 20):
                size += len(chunk)
                if size > _LIMIT:
                    raise BuildFailed(f"{url}: longer than {_LIMIT} bytes")
                chunks.append(chunk)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise BuildFailed(f"{url}: {error or 'timed out'}") from error
    data = b"".join(chunks)
    return Download(name, data, digest_of(data))
