"""Writable root file systems: an overlay of an image's layers with a folder of the container's own.

`<root>/containers/<id>/{rootfs,upper,work,image.json}`. Mounts belong to the kernel, so they outlive the agent.
Paths in the mount options are relative to the store, and short links stand in for layer folders where many layers
would not fit into the one page the kernel reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from dure.core.json import dumps_sorted, loads
from dure.images.errors import ImageError
from dure.images.kernel import call_in_folder, mount, unmount
from dure.images.layers import remove_tree
from dure.images.locks import replace_file

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
_OPTIONS_LIMIT = 4000
_MOST_LAYERS = 400
_COMMON = "redirect_dir=off,metacopy=off,index=off"


class RootFileSystems:
    """Overlay mounts of the containers of one store. Blocking; every call may be repeated."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "containers"
        self._links = root / "l"

    def prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._links.mkdir(parents=True, exist_ok=True)

    def mount(self, container_id: str, image_id: str, diff_ids: Sequence[str]) -> Path:
        """The path of the mounted root; what the container wrote before is still there."""
        folder = self._container(container_id)
        target = folder / "rootfs"
        if os.path.ismount(target):
            return target
        target.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "image.json", dumps_sorted({"image": image_id, "layers": list(diff_ids)}))
        self.mount_overlay(folder, diff_ids)
        return target

    def mount_overlay(self, folder: Path, diff_ids: Sequence[str], *, options: str = "") -> None:
        """Mount at `folder`/rootfs with `folder`/upper and /work; `folder` lies in the store."""
        for name in ("rootfs", "upper", "work"):
            (folder / name).mkdir(exist_ok=True)
        (folder / "upper").chmod(0o755)
        base = folder.relative_to(self._root)
        data = f"lowerdir={self._lower(diff_ids)},upperdir={base}/upper,workdir={base}/work,{_COMMON}"
        if options:
            data += f",{options}"
        call_in_folder(self._root, lambda: mount("overlay", str(folder / "rootfs"), "overlay", data))

    def unmount(self, container_id: str) -> None:
        """Unmount and remove what the container wrote."""
        folder = self._container(container_id)
        while unmount(str(folder / "rootfs")):
            pass
        remove_tree(folder)

    def containers(self) -> list[str]:
        """The ids of all that were mounted and not unmounted again."""
        return sorted(path.name for path in self._folder.iterdir())

    def layers_in_use(self) -> dict[str, tuple[str, list[str]]]:
        """For each container its image id and layers."""
        found = {}
        for record in self._folder.glob("*/image.json"):
            try:
                data = loads(record.read_bytes())
            except FileNotFoundError:
                continue  # unmounted meanwhile
            found[record.parent.name] = (str(data["image"]), [str(layer) for layer in data["layers"]])
        return found

    def _container(self, container_id: str) -> Path:
        if not _ID.match(container_id):
            raise ImageError(f"{container_id!r} is not a container id")
        return self._folder / container_id

    def _lower(self, diff_ids: Sequence[str]) -> str:
        """The lowerdir value, topmost first."""
        if len(diff_ids) > _MOST_LAYERS:
            raise ImageError(f"an image of {len(diff_ids)} layers: {_MOST_LAYERS} can be mounted")
        # overlay refuses a folder twice; of equal layers the topmost decides
        distinct = list(dict.fromkeys(reversed(diff_ids)))
        folders = [f"layers/{diff_id.removeprefix('sha256:')}" for diff_id in distinct]
        if not folders:
            empty = self._root / "layers" / "empty"
            empty.mkdir(exist_ok=True, mode=0o755)
            return "layers/empty"
        joined = ":".join(folders)
        return joined if len(joined) < _OPTIONS_LIMIT - 400 else ":".join(self._short(folder) for folder in folders)

    def _short(self, folder: str) -> str:
        """A link of ours to the layer; longer only where two layers begin alike."""
        digest = folder.rpartition("/")[2]
        for length in range(6, 65):
            link = self._links / digest[:length]
            try:
                link.symlink_to(f"../{folder}")
            except FileExistsError:
                if str(link.readlink()) != f"../{folder}":
                    continue
            return f"l/{digest[:length]}"
        raise ImageError(f"no short name for layer {digest}")
