"""`dure image …`: what lies in this machine's content store, and moving images in and out of it."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from dure.cli.home import home_of
from dure.cli.screen import Live, say, size, step, table
from dure.core.json import dumps_pretty
from dure.core.settings import Settings
from dure.images.service import ImageStore, open_store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    ls = actions.add_parser("ls", help="list images; stand-ins for public names are marked")
    ls.add_argument("-o", "--output", choices=["text", "json"], default="text")
    inspect = actions.add_parser("inspect", help="everything known of an image, as JSON")
    inspect.add_argument("name")
    remove = actions.add_parser("rm", help="forget an image, and free what only it needed")
    remove.add_argument("name", nargs="+")
    pull = actions.add_parser("pull", help="fetch an image from its registry, or make it if it is a base or a stand-in")
    pull.add_argument("name")
    pull.add_argument(
        "--stand-ins", action="store_true", help="let images made from Debian packages answer to public names"
    )
    base = actions.add_parser(
        "base", help="make base images from Debian packages: debian, python, node, nginx, postgres, busybox"
    )
    base.add_argument("name", nargs="+")
    export = actions.add_parser("export", help="save an image as an OCI layout in a tar")
    export.add_argument("name")
    export.add_argument("file", type=Path)
    load = actions.add_parser("import", help="read an OCI layout or `docker save` tar")
    load.add_argument("file", type=Path)
    load.add_argument("--name", default="", help="call it so, where the archive names nothing")
    prune = actions.add_parser("prune", help="remove what nothing refers to")
    prune.add_argument("--builds", action="store_true", help="older builds of `dure deploy` too")
    prune.add_argument("--cache", action="store_true", help="the cache of build steps too")


def run(arguments: argparse.Namespace) -> int:
    home = home_of(arguments)
    settings = Settings.load(home) or Settings(str(home))
    store = open_store(home, stand_ins=getattr(arguments, "stand_ins", False) or settings.stand_ins)
    asyncio.run(_ACTIONS[arguments.action](store, arguments))
    return 0


async def _ls(store: ImageStore, arguments: argparse.Namespace) -> None:
    images = store.list()
    if arguments.output == "json":
        say(dumps_pretty([asdict(image) for image in images]))
        return
    rows = [
        (image.reference, image.id.removeprefix("sha256:")[:12], size(image.size), ", ".join(image.stands_in_for))
        for image in images
    ]
    table(["NAME", "ID", "SIZE", "STANDS IN FOR"], rows)


async def _inspect(store: ImageStore, arguments: argparse.Namespace) -> None:
    say(dumps_pretty(store.inspect(arguments.name)))


async def _rm(store: ImageStore, arguments: argparse.Namespace) -> None:
    for name in arguments.name:
        reference, freed = await store.remove(name)
        step(f"{reference} removed, {size(freed)} freed")


async def _pull(store: ImageStore, arguments: argparse.Namespace) -> None:
    await _making([arguments.name], lambda name, live: store.pull(name, progress=live.show))


async def _base(store: ImageStore, arguments: argparse.Namespace) -> None:
    await _making(arguments.name, lambda name, live: store.make_base(name, live.show))


async def _making(names: list[str], make: Callable[[str, Live], Awaitable[object]]) -> None:
    for name in names:
        began, live = time.monotonic(), Live()
        try:
            await make(name, live)
        finally:
            live.clear()
        step(name, time.monotonic() - began)


async def _export(store: ImageStore, arguments: argparse.Namespace) -> None:
    step(f"{arguments.file}: {size(await store.export(arguments.name, arguments.file))}")


async def _import(store: ImageStore, arguments: argparse.Namespace) -> None:
    for image in await store.import_archive(arguments.file, arguments.name):
        step(f"{image.reference}  {image.id[:19]}")


async def _prune(store: ImageStore, arguments: argparse.Namespace) -> None:
    freed = await store.prune(drop_build_cache=arguments.cache, drop_old_builds=arguments.builds)
    step(f"{size(freed)} freed")


_ACTIONS = {
    "ls": _ls,
    "inspect": _inspect,
    "rm": _rm,
    "pull": _pull,
    "base": _base,
    "export": _export,
    "import": _import,
    "prune": _prune,
}
