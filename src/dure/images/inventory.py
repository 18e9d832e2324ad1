"""What the store holds, for people: lists, details, removal, and taking away what nothing refers to."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass

from dure.core.json import Obj
from dure.images.builder.cache import BuildCache
from dure.images.errors import ArchiveRefused, ImageNotFound, StoreBusy
from dure.images.layers import remove_tree
from dure.images.locks import locked_at_once
from dure.images.model import StoredImage
from dure.images.names import Name, Origin
from dure.images.reference import Reference, parse_reference
from dure.images.stand_ins import LOCAL_DOMAIN, base_of, public_names, stand_in_for
from dure.images.store import ContentStore

_BUILD_TAG = re.compile(r"[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True)
class ListedImage:
    """`stands_in_for` are the public names a base may answer to; `complete` is false after a broken pull."""

    reference: str
    familiar: str
    id: str
    digest: str
    size: int
    origin: Origin
    created: int
    stands_in_for: tuple[str, ...] = ()
    complete: bool = True


def list_images(content: ContentStore) -> list[ListedImage]:
    """By name."""
    return [_listed(content, name) for name in content.names.all()]


def _listed(content: ContentStore, name: Name) -> ListedImage:
    reference = parse_reference(name.reference)
    base = base_of(reference) if name.origin == "base" else ""
    image = _load(content, name.digest)
    return ListedImage(
        reference=name.reference,
        familiar=reference.familiar,
        id=image.id if image is not None else "",
        digest=name.digest,
        size=content.size(image) if image is not None else 0,
        origin=name.origin,
        created=name.created,
        stands_in_for=tuple(public_names(base)) if base else (),
        complete=image is not None and content.is_complete(image),
    )


def _load(content: ContentStore, digest: str) -> StoredImage | None:
    try:
        return content.load(digest)
    except (ImageNotFound, ArchiveRefused):
        return None


def find_name(content: ContentStore, text: str) -> Name:
    """By reference, or by an image id or its beginning. Raises ImageNotFound, InvalidImageName."""
    start = text.removeprefix("sha256:")
    if len(start) >= 6 and all(char in "0123456789abcdef" for char in start):
        for name in content.names.all():
            image = _load(content, name.digest)
            if image is not None and image.id.removeprefix("sha256:").startswith(start):
                return name
    reference = parse_reference(text)
    found = content.names.get(str(reference))
    if found is None:
        raise ImageNotFound(_not_here(text, reference))
    return found


def _not_here(text: str, reference: Reference) -> str:
    base = stand_in_for(reference)
    hint = f"; {base_hint(base)}" if base else ""
    return f"no image {text} is here{hint}"


def base_hint(base: str) -> str:
    """How to name a base itself."""
    return f"its stand-in has the name dure.local/{base}"


def inspect_image(content: ContentStore, text: str) -> Obj:
    """Everything known of one image."""
    name = find_name(content, text)
    image = content.load(name.digest)
    containers = [cid for cid, (image_id, _) in content.roots.layers_in_use().items() if image_id == image.id]
    listed = _listed(content, name)
    return {
        "reference": name.reference,
        "id": image.id,
        "digest": name.digest,
        "origin": name.origin,
        "created": name.created,
        "size": content.size(image),
        "standsInFor": list(listed.stands_in_for),
        "containers": sorted(containers),
        "layers": [
            {"diffID": diff_id, "size": layer.size if (layer := content.layers.get(diff_id)) else 0}
            for diff_id in image.diff_ids
        ],
        "manifest": image.manifest,
        "config": image.config,
    }


def remove_image(content: ContentStore, text: str) -> tuple[str, int]:
    """Take the name away and what only it needed; the reference and the bytes freed.

    What a container or another image uses stays; while a build or a pull goes on, nothing but the name goes.
    """
    name = find_name(content, text)
    content.names.remove(name.reference)
    try:
        return name.reference, collect(content)
    except StoreBusy:
        return name.reference, 0


def forget_old_builds(content: ContentStore) -> None:
    """Names of single builds (`dure.local/<name>:<12 digits>`) that are neither the latest nor in a container."""
    used = {image_id for image_id, _ in content.roots.layers_in_use().values()}
    for name in content.names.all():
        reference = parse_reference(name.reference)
        if reference.domain != LOCAL_DOMAIN or not _BUILD_TAG.match(reference.tag):
            continue
        latest = content.names.get(f"{reference.name}:latest")
        image = _load(content, name.digest)
        is_latest = latest is not None and latest.digest == name.digest
        if not is_latest and (image is None or image.id not in used):
            content.names.remove(name.reference)


def collect(content: ContentStore, *, drop_build_cache: bool = False) -> int:
    """Remove what no name, no container and no remembered build step refers to; the bytes freed. Raises StoreBusy."""
    with locked_at_once(content.use_lock, "prune"):
        if drop_build_cache:
            for folder in ("steps", "mounts"):
                shutil.rmtree(content.root / "cache" / folder, ignore_errors=True)
        blobs, layers = _alive(content)
        freed = 0
        for digest in content.blobs.digests():
            if digest not in blobs:
                freed += content.blobs.delete(digest)
        for diff_id in content.layers.diff_ids():
            if diff_id not in layers:
                layer = content.layers.get(diff_id)
                freed += layer.size if layer is not None else 0
                content.layers.delete(diff_id)
        _clear_scratch(content)
    return freed


def _alive(content: ContentStore) -> tuple[set[str], set[str]]:
    """Digests of blobs and of layers that something refers to."""
    blobs: set[str] = set()
    layers: set[str] = set()
    for name in content.names.all():
        blobs.add(name.digest)
        image = _load(content, name.digest)
        if image is not None:
            blobs |= {image.digest, image.id, *(layer.digest for layer in image.layers)}
            layers.update(image.diff_ids)
    for image_id, diff_ids in content.roots.layers_in_use().values():
        blobs.add(image_id)
        layers.update(diff_ids)
    cache = BuildCache(content.root, content.layers)
    layers.update(diff_id for diff_id in cache.layers().values() if diff_id)
    return blobs, layers


def _clear_scratch(content: ContentStore) -> None:
    """What a killed process left half-made; the caller holds the store alone."""
    for path in (content.root / "tmp").iterdir():
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)


def recover(content: ContentStore) -> None:
    """After a crash: drop what is half-made and layers of another boot that may not have reached the disk."""
    try:
        with locked_at_once(content.use_lock, "recovery"):
            _clear_scratch(content)
            for diff_id in content.layers.diff_ids():
                if content.layers.get(diff_id) is None:
                    content.layers.delete(diff_id)
    except StoreBusy:
        return  # somebody is at work, so this is not the moment after a crash


def sweep_containers(content: ContentStore, alive: Collection[str]) -> list[str]:
    """Unmount and forget the root file systems of all other containers; their ids."""
    gone = sorted(set(content.roots.containers()) - set(alive))
    for container_id in gone:
        content.roots.unmount(container_id)
    return gone
