"""Finding the platform a command speaks of: its settings, and a client for its API."""

from __future__ import annotations

import argparse
from pathlib import Path

from dure.core.errors import ConfigError
from dure.core.settings import Settings, default_home


def home_of(arguments: argparse.Namespace) -> Path:
    return Path(arguments.home).absolute() if arguments.home else default_home()


def settings_of(arguments: argparse.Namespace) -> Settings:
    """What the platform was started with; raises ConfigError when there never was one."""
    home = home_of(arguments)
    settings = Settings.load(home)
    if settings is None:
        raise ConfigError(f"there is no platform in {home}", "start one: dure up")
    return settings


def running_settings(arguments: argparse.Namespace) -> Settings:
    """The same, but the platform must be running."""
    from dure.apps.supervisor import is_running

    settings = settings_of(arguments)
    if not is_running(settings):
        raise ConfigError(f"the platform in {settings.home} is not running", "start it: dure up -d")
    return settings
