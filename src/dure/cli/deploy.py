"""`dure deploy PATH`: build, apply, wait with progress, print the URLs."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

from dure.apps.application import Application, load_application
from dure.cli.home import running_settings
from dure.cli.screen import Live, bold, good, say, step
from dure.core.errors import ConfigError
from dure.core.json import dumps_pretty
from dure.core.settings import Settings

_HELP = """PATH is a folder with dure.yaml, a folder with manifests (k8s/, manifests/ or *.yaml), or a manifest.
Folders with a Dockerfile are built; where a manifest names such an image, exactly what was built is used."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _HELP
    parser.add_argument("path", type=Path, metavar="PATH")
    parser.add_argument("-n", "--namespace", help="for objects that name none (default: dure.yaml's, else default)")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="how long to wait (default 300)")
    parser.add_argument("--no-wait", action="store_true", help="return once everything is applied")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")


def run(arguments: argparse.Namespace) -> int:
    settings = running_settings(arguments)
    app = load_application(arguments.path)
    if arguments.namespace:
        app = replace(app, namespace=arguments.namespace)
    if app.images and settings.containers and os.geteuid() != 0:
        raise ConfigError("building images needs root", "sudo dure deploy …")
    return asyncio.run(_deploy(settings, app, arguments))


async def _deploy(settings: Settings, app: Application, arguments: argparse.Namespace) -> int:
    from dure.apps.access import open_client
    from dure.apps.deploy import Deployer, Outcome, build_images
    from dure.images.service import open_store

    began, quiet, live = time.monotonic(), arguments.output == "json", Live()

    def done(text: str) -> None:
        if not quiet:
            live.clear()
            step(text, time.monotonic() - began)

    def progress(text: str) -> None:
        if not quiet:
            live.show(text)

    outcome = Outcome(app.name)
    try:
        store = open_store(settings.path, stand_ins=settings.stand_ins)
        outcome.images = await build_images(app, store, progress, done)
        async with open_client(settings) as client:
            deployer = Deployer(client, app, outcome.images)
            outcome.objects = await deployer.apply(done)
            if not arguments.no_wait:
                outcome.urls = await deployer.wait_ready(progress, within=arguments.timeout)
    finally:
        live.clear()
    if quiet:
        say(dumps_pretty(asdict(outcome)))
        return 0
    say(
        f"\n{good(bold(app.name))} is {'applied' if arguments.no_wait else 'up'} after {time.monotonic() - began:.1f} s"
    )
    for url in outcome.urls:
        say(f"  {url}")
    return 0
