"""Base images made from Debian packages, so that a machine without any registry can build and run.

One Debian image is the ground of all but busybox; each language or server is one layer of packages on it. What
is made is kept under `dure.local/<name>:<release>` together with the key of its recipe and made again only
when the recipe changes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from dure.core.json import JSONDecodeError, dumps, dumps_sorted, loads
from dure.images.apt import PackageSources, distribution, public_sources, run_tool
from dure.images.content import digest_of
from dure.images.errors import BaseFailed
from dure.images.locks import locked, replace_file
from dure.images.model import Progress, StoredImage, silent
from dure.images.recipes import RECIPES, Recipe
from dure.images.sandbox import Command, run_command
from dure.images.stand_ins import base_reference, release_codename
from dure.images.store import ContentStore
from dure.images.workshop import open_workspace

BASE_NAMES = tuple(RECIPES)
_TAIL_LINES = 20
_VERSION = 2
"""Of what is done here besides the recipes."""


class BaseMaker:
    """Makes bases into one content store; processes that want the same base wait for each other."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self.packages = PackageSources(content.root / "apt")

    def present(self, name: str) -> StoredImage | None:
        """The base if it is here and of today's recipe."""
        if self._recorded_key(name) != self._key(name):
            return None
        return self._content.find(base_reference(name))

    async def make(self, name: str, progress: Progress = silent) -> StoredImage:
        """The base, made now if need be. Raises BaseFailed."""
        if name not in RECIPES:
            raise BaseFailed(f"no base image {name!r}: there are {', '.join(RECIPES)}")
        present = self.present(name)
        if present is not None:
            return present
        if os.geteuid() != 0:
            raise BaseFailed(f"making the base image {name} needs root")
        async with locked(self._content.root / "cache" / f"base-{name}.lock"), self._content.in_use():
            return self.present(name) or await self._make(RECIPES[name], progress)

    async def make_all(self, names: Sequence[str], progress: Progress = silent) -> None:
        """Several at once, those that take longest first. Raises BaseFailed."""
        ordered = sorted(names, key=list(RECIPES).index, reverse=True)
        try:
            async with asyncio.TaskGroup() as group:
                for name in ordered:
                    group.create_task(self.make(name, progress))
        except* BaseFailed as failed:
            raise failed.exceptions[0] from None

    async def _make(self, recipe: Recipe, progress: Progress) -> StoredImage:
        ground = await self.make(recipe.ground, progress) if recipe.ground else None
        began = time.monotonic()
        progress(f"making base image {recipe.name} from {distribution()} {release_codename()} packages")
        if ground is not None:
            layers = [*ground.diff_ids, await self._install(recipe, ground, progress)]
        elif recipe.name == "busybox":
            layers = [await self._unpack_busybox()]
        else:
            layers = [await self._bootstrap(recipe)]
        history = [{"created_by": f"{name} from Debian packages"} for name in [recipe.ground, recipe.name] if name]
        run_config = recipe.run_config(self._content.layers.path(layers[-1]))
        image = self._content.commit(base_reference(recipe.name), run_config, layers, origin="base", history=history)
        replace_file(self._record(recipe.name), dumps({"key": self._key(recipe.name)}))
        progress(f"made base image {recipe.name} in {time.monotonic() - began:.1f} s")
        return image

    async def _bootstrap(self, recipe: Recipe) -> str:
        """The Debian ground itself, by mmdebstrap."""
        if shutil.which("mmdebstrap") is None:
            raise BaseFailed("mmdebstrap is missing: apt-get install mmdebstrap")
        await self.packages.configure()
        with self._content.layers.scratch() as scratch:
            scratch.rmdir()
            command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--quiet"]
            command += [f"--include={','.join(recipe.packages)}", f"--aptopt={self.packages.options}"]
            command += [f"--dpkgopt={option}" for option in recipe.dpkg_options]
            command += [release_codename(), str(scratch), str(self.packages.sources)]
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.packages.prepare())  # whatever comes on top will want the lists
                    group.create_task(run_tool(command))
            except* BaseFailed as failed:
                raise failed.exceptions[0] from None
            await asyncio.to_thread(_tidy_bootstrap, scratch)
            return (await asyncio.to_thread(self._content.layers.adopt, scratch)).diff_id

    async def _install(self, recipe: Recipe, ground: StoredImage, progress: Progress) -> str:
        """One layer of packages and settings over the ground."""
        tail: list[str] = []

        def hear(line: str) -> None:
            tail.append(line)
            del tail[:-_TAIL_LINES]

        await self.packages.prepare()
        async with open_workspace(self._content, ground.diff_ids) as workspace:
            files = workspace.folder / "files"
            recipe.write_files(files)
            lent = {**self.packages.lent_with_lists(), "recipe": str(files)}
            command = Command(["/bin/sh", "-euc", recipe.script], self.packages.environment(), lent=lent)
            code = await run_command(workspace, command, hear)
            if code != 0:
                raise BaseFailed(f"making base image {recipe.name} failed with exit code {code}:\n" + "\n".join(tail))
            layer = await workspace.seal()
        if layer is None:
            raise BaseFailed(f"making base image {recipe.name} changed nothing")
        return layer.diff_id

    async def _unpack_busybox(self) -> str:
        await self.packages.prepare()
        with self._content.layers.scratch() as scratch:
            await self.packages.run_host("apt-get", "download", "-qq", "busybox-static", folder=scratch)
            package = next(scratch.glob("*.deb"))
            root = scratch / "root"
            unpacked = scratch / "unpacked"
            await run_tool(["dpkg-deb", "--extract", str(package), str(unpacked)])
            binary = next(path for path in (unpacked / "bin", unpacked / "usr/bin") if path.is_dir()) / "busybox"
            applets = (await run_tool([str(binary), "--list"])).split()
            await asyncio.to_thread(_lay_out_busybox, root, binary, applets)
            return self._content.layers.adopt(root).diff_id

    def _key(self, name: str) -> str:
        """Changes with the recipe, with its ground's, and with the release."""
        recipe = RECIPES[name]
        ground = self._key(recipe.ground) if recipe.ground else ""
        return digest_of(dumps_sorted([_VERSION, recipe.fingerprint(), ground, release_codename()]))

    def _record(self, name: str) -> Path:
        return self._content.root / "cache" / f"base-{name}.json"

    def _recorded_key(self, name: str) -> str:
        try:
            return str(loads(self._record(name).read_bytes())["key"])
        except (FileNotFoundError, JSONDecodeError, KeyError):
            return ""


def _tidy_bootstrap(root: Path) -> None:
    """Take out what belongs to this host, put in what an image needs."""
    for name in ("etc/apt/apt.conf.d/99mmdebstrap", "etc/hostname", "var/cache/ldconfig/aux-cache"):
        (root / name).unlink(missing_ok=True)
    for name in ("etc/resolv.conf", "etc/hosts", "etc/machine-id"):
        (root / name).unlink(missing_ok=True)
        (root / name).touch()
    for path in (root / "var/log").rglob("*"):
        if path.is_file():
            path.unlink()
    sources = public_sources(release_codename(), distribution())
    for extra in (root / "etc/apt/sources.list.d").iterdir():
        extra.unlink()
    (root / "etc/apt/sources.list").write_text("".join(f"{source}\n" for source in sources))
    (root / "etc/apt/apt.conf.d/docker-clean").write_text(
        'APT::Install-Recommends "false";\nAcquire::Languages "none";\nDir::Cache::pkgcache "";\n'
        'Dir::Cache::srcpkgcache "";\n'
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb || true"; };\n'
    )
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\n# no service is started while packages are installed\nexit 101\n")
    policy.chmod(0o755)


def _lay_out_busybox(root: Path, binary: Path, applets: list[str]) -> None:
    for folder in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr/bin", "usr/sbin", "var/log"):
        (root / folder).mkdir(parents=True)
    root.chmod(0o755)
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    shutil.copyfile(binary, root / "bin/busybox")
    (root / "bin/busybox").chmod(0o755)
    for applet in applets:
        if applet != "busybox" and "/" not in applet:
            (root / "bin" / applet).symlink_to("busybox")
    (root / "usr/bin/env").symlink_to("../../bin/busybox")
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
        "www-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
    )
    (root / "etc/group").write_text("root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nnobody:x:65534:\n")
