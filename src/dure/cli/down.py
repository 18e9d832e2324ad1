"""`dure down`: stop the platform and remove what it put on the machine; `--keep` keeps objects and volumes."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from dure.apps.supervisor import claimed, is_running, read_state
from dure.cli.home import home_of
from dure.cli.screen import Live, say, step, timed
from dure.core.errors import ConfigError
from dure.core.settings import Settings

_PATIENCE_SECONDS = 60.0
_IMAGES, _IMAGE_NAMES = "images", "names.json"
_FORGOTTEN = ("store", "pki", "nodes", "volumes", "run", "logs", "kubeconfig", "settings.json")
"""What `down` without `--keep` removes; images stay, since making them again takes long."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="keep objects and volumes for the next `dure up`")
    parser.add_argument("--purge", action="store_true", help="remove images too: the whole data folder")


def run(arguments: argparse.Namespace) -> int:
    from dure.apps.teardown import tear_down

    home = home_of(arguments)
    settings = Settings.load(home)
    if settings is None:
        return _without_platform(home, purge=arguments.purge)
    if settings.containers and os.geteuid() != 0:
        raise ConfigError("this platform runs containers: stopping it needs root", "sudo dure down")
    if is_running(settings):
        with timed("daemons stopped"):
            _end_supervisor(settings)
    with claimed(settings):
        tear_down(settings, report=lambda text: step(text))
        if not arguments.keep:
            _forget(settings, everything=arguments.purge)
    return 0


def _without_platform(home: Path, *, purge: bool) -> int:
    """An earlier `down` may have left images there."""
    if purge and (home / _IMAGES / _IMAGE_NAMES).exists():
        _purge_images(home)
        step(f"images in {home} removed")
    else:
        say(f"there is no platform in {home}: nothing to do")
    return 0


def _end_supervisor(settings: Settings) -> None:
    state = read_state(settings)
    live = Live()
    if state:
        try:
            os.kill(state["pid"], signal.SIGTERM)
        except ProcessLookupError:
            live.clear()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while is_running(settings):
        if time.monotonic() > deadline:
            raise ConfigError(f"process {state.get('pid')} does not end", f"kill -9 {state.get('pid')}; dure down")
        live.show("waiting for the daemons to end")
        time.sleep(0.05)
    live.clear()


def _forget(settings: Settings, *, everything: bool) -> None:
    from dure.apps.paths import user_kubeconfig
    from dure.identity.kubeconfig import unmerge_kubeconfig

    if settings.merge_kubeconfig:
        unmerge_kubeconfig(user_kubeconfig(), settings.context)
    for name in _FORGOTTEN:
        _remove(settings.path / name)
    if everything:
        _purge_images(settings.path)
        left = settings.path.exists()
        step(
            "all of the platform's data removed, but not what else is in the folder" if left else "data folder removed"
        )
    else:
        step("objects and volumes removed, images kept (--keep keeps all, --purge keeps nothing)")


def _purge_images(home: Path) -> None:
    """And the folder itself, unless something in it is not the platform's."""
    _remove(home / _IMAGES)
    with contextlib.suppress(OSError):
        home.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
