"""From a reference to an unpacked image: resolve, choose the platform, fetch what is missing in parallel, unpack."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping, Sequence

import aiohttp

from dure.images.content import parse_json
from dure.images.errors import ArchiveRefused, ImageError, PullFailed
from dure.images.model import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Progress,
    StoredImage,
    choose_platform,
    host_architecture,
)
from dure.images.reference import Reference
from dure.images.registry.auth import Authenticator
from dure.images.registry.client import TIMEOUT, Manifest, RegistryFailure, RepositoryClient
from dure.images.registry.endpoints import Login, Registries, logins_for
from dure.images.store import ContentStore
from dure.images.unpack import unpack_blob

_PARALLEL_BLOBS = 4
_MOST_LAYERS = 400


class Puller:
    """Fetches into one content store."""

    def __init__(self, content: ContentStore, registries: Registries) -> None:
        self._content = content
        self._registries = registries

    async def pull(
        self, reference: Reference, credentials: Sequence[Mapping[str, str]], progress: Progress
    ) -> StoredImage:
        """The image, complete and named. Raises PullFailed with one line."""
        logins: list[Login | None] = list(logins_for(reference, credentials)) or [None]
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            timeout=TIMEOUT, trust_env=True, auto_decompress=False, connector=connector
        ) as session:
            for login in logins:
                try:
                    return await self._pull_with(session, reference, login, progress)
                except RegistryFailure as error:
                    if error.kind != "denied" or login == logins[-1]:
                        raise _resolve_failure(reference, error) from error
                except (ImageError, OSError) as error:
                    raise _unpack_failure(reference, error) from error
        raise AssertionError("there is always a last login")

    async def _pull_with(
        self, session: aiohttp.ClientSession, reference: Reference, login: Login | None, progress: Progress
    ) -> StoredImage:
        base = self._registries.base_url(reference.domain)
        auth = Authenticator(session, reference.path, login, plain=base.startswith("http://"))
        client = RepositoryClient(session, base, reference.path, auth)
        top = await client.manifest(reference.digest or reference.tag)
        manifest = await self._for_this_machine(client, top)
        body = parse_json(manifest.data, manifest.descriptor.digest)
        config, layers = _contents(body)
        await self._fetch(client, config)
        diff_ids = _diff_ids(self._content.blobs.read_json(config.digest), len(layers))
        progress(f"pulling {reference}: {len(layers)} layers, {sum(layer.size for layer in layers) >> 20} MB")
        await self._fetch_layers(client, layers, diff_ids, progress)
        for part in (manifest, top):
            self._content.blobs.put(part.data)
        self._content.names.set(str(reference), top.descriptor.digest, "pull")
        return self._content.load(top.descriptor.digest)

    async def _for_this_machine(self, client: RepositoryClient, top: Manifest) -> Manifest:
        body = parse_json(top.data, top.descriptor.digest)
        kind = str(body.get("mediaType") or top.descriptor.media_type)
        if kind in INDEX_TYPES or "manifests" in body:
            chosen = choose_platform(body)
            if chosen is None:
                raise ArchiveRefused(f"no match for platform in manifest: linux/{host_architecture()}")
            return await client.manifest(chosen.digest)
        if kind not in MANIFEST_TYPES or body.get("schemaVersion") != 2:
            raise ArchiveRefused(f"media type {kind!r} (schema {body.get('schemaVersion')}) is not supported")
        return top

    async def _fetch(self, client: RepositoryClient, blob: Descriptor) -> None:
        if self._content.blobs.has(blob.digest):
            return
        with self._content.blobs.writing(blob.digest) as writer:
            await client.blob(blob.digest, blob.size, writer.write)

    async def _fetch_layers(
        self, client: RepositoryClient, layers: Sequence[Descriptor], diff_ids: Sequence[str], progress: Progress
    ) -> None:
        slots = asyncio.Semaphore(_PARALLEL_BLOBS)

        async def obtain(layer: Descriptor, diff_id: str) -> None:
            async with slots:
                if self._content.layers.get(diff_id) is not None:
                    return
                await self._fetch(client, layer)
                await asyncio.to_thread(unpack_blob, self._content, layer.digest, diff_id)
                progress(f"  {diff_id[7:19]}: done")

        wanted = dict(zip(diff_ids, layers, strict=True))
        try:
            async with asyncio.TaskGroup() as group:
                for diff_id, layer in wanted.items():
                    group.create_task(obtain(layer, diff_id))
        except* (ImageError, OSError) as failed:
            raise _first(failed) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _contents(manifest: Mapping[str, object]) -> tuple[Descriptor, list[Descriptor]]:
    try:
        config = Descriptor.from_json(manifest["config"])  # type: ignore[arg-type]
        layers = [Descriptor.from_json(layer) for layer in manifest["layers"]]  # type: ignore[attr-defined]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArchiveRefused(f"the manifest is broken: {error!r}") from error
    if len(layers) > _MOST_LAYERS:
        raise ArchiveRefused(f"the image has {len(layers)} layers, more than {_MOST_LAYERS}")
    return config, layers


def _diff_ids(config: Mapping[str, object], count: int) -> list[str]:
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or len(found) != count:
        raise ArchiveRefused(f"mismatched image rootfs and manifest layers: {count} layers")
    return [str(diff_id) for diff_id in found]


def _resolve_failure(reference: Reference, error: RegistryFailure) -> PullFailed:
    head = f'failed to pull and unpack image "{reference}": '
    if error.kind == "failed":
        return PullFailed(f"{head}{error}")
    detail = f"{reference}: not found" if error.kind == "not found" else str(error)
    return PullFailed(f'{head}failed to resolve reference "{reference}": {detail}')


def _unpack_failure(reference: Reference, error: Exception) -> PullFailed:
    head = f'failed to pull and unpack image "{reference}": '
    if isinstance(error, OSError):
        text = "no space left on device" if error.errno == errno.ENOSPC else error.strerror or repr(error)
        return PullFailed(f"{head}{text}: {error.filename}" if error.filename else f"{head}{text}")
    return PullFailed(head + " ".join(str(error).split()))
