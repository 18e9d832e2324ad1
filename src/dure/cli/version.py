"""`dure version`: what is installed, and with a platform running what it serves."""

from __future__ import annotations

import argparse

import dure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")


def run(arguments: argparse.Namespace) -> int:
    if arguments.output == "json":
        print(f'{{"version":"{dure.__version__}","kubernetes":"{dure.KUBERNETES_VERSION}"}}')
    else:
        print(f"dure {dure.__version__} (Kubernetes API {dure.KUBERNETES_VERSION})")
    return 0
