"""Dockerfile builds: text → stages → steps over overlays → layers, with a cache of steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from dure.images.model import Image, Progress, silent


class BuildsImages(Protocol):
    """An image store, as far as `build` needs it."""

    async def build(
        self,
        context: Path | str,
        *,
        tag: str = "",
        dockerfile: Path | str = "",
        target: str = "",
        arguments: Mapping[str, str] | None = None,
        use_cache: bool = True,
        progress: Progress = silent,
    ) -> Image: ...


async def build(
    context_dir: Path | str,
    dockerfile: Path | str = "Dockerfile",
    *,
    tag: str,
    store: BuildsImages,
    target: str = "",
    args: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Image:
    """Build a folder's Dockerfile into the store. Raises DockerfileError, BuildFailed, ImageError."""
    return await store.build(
        context_dir, tag=tag, dockerfile=dockerfile, target=target, arguments=args, progress=progress
    )
