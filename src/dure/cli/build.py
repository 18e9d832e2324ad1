"""`dure build PATH -t NAME`: an image from a Dockerfile into this machine's content store."""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path

from dure.cli.home import home_of
from dure.cli.screen import Live, say, step
from dure.core.errors import ConfigError
from dure.core.json import dumps_pretty
from dure.core.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="the build context")
    parser.add_argument("-t", "--tag", help="the image's name (default: the folder's)")
    parser.add_argument("-f", "--file", default="Dockerfile", help="the Dockerfile, within the context")
    parser.add_argument("--target", default="", help="stop at this stage")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--stand-ins", action="store_true", help="let images made from Debian packages answer to public names"
    )
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")


def run(arguments: argparse.Namespace) -> int:
    if not arguments.path.is_dir():
        raise ConfigError(f"there is no folder {arguments.path}")
    return asyncio.run(_build(arguments))


async def _build(arguments: argparse.Namespace) -> int:
    from dure.images.builder import build
    from dure.images.service import open_store

    home = home_of(arguments)
    settings = Settings.load(home) or Settings(str(home))
    store = open_store(home, stand_ins=arguments.stand_ins or settings.stand_ins)
    tag = arguments.tag or arguments.path.resolve().name
    began, live = time.monotonic(), Live()
    quiet = arguments.output == "json"
    try:
        image = await build(
            arguments.path,
            dockerfile=arguments.file,
            tag=tag,
            target=arguments.target,
            args=dict(_pair(text) for text in arguments.build_arg),
            store=store,
            progress=(lambda _: None) if quiet else live.show,
        )
    finally:
        live.clear()
    if quiet:
        say(dumps_pretty({"reference": image.reference, "id": image.id, "digest": image.digest, "size": image.size}))
    else:
        step(f"{image.reference}  {image.id[:19]}", time.monotonic() - began)
    return 0


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--build-arg {text!r} is not NAME=VALUE")
    return name, value
