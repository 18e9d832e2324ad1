"""The `dure` command: one parser, each command in a module of its own that is imported when it is called.

Exit codes: 0 done, 1 the thing asked for failed, 2 it cannot be done as asked (with the mend on the next line).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import dure

COMMANDS: dict[str, str] = {
    "up": "start the platform and keep it running",
    "down": "stop the platform and leave nothing behind",
    "status": "show what runs",
    "doctor": "check this machine, and say how to mend what is missing",
    "deploy": "build an application, apply it, wait until it answers",
    "build": "build an image from a Dockerfile",
    "image": "list, make, import, export and remove images",
    "logs": "print the platform's own logs, or those of an application",
    "kubectl": "run kubectl against this platform",
    "version": "print versions",
}


def _command_at(words: Sequence[str]) -> int:
    """Where the command stands: the first word that is neither an option nor `--home`'s value."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] == "--home" else 1
    return at


def build_parser(chosen: str = "") -> argparse.ArgumentParser:
    """The whole command line, importing no command but the chosen one."""
    parser = argparse.ArgumentParser(
        prog="dure",
        description="The whole outer architecture of microservices in one install.",
        epilog="Start with `dure up`, then `dure deploy PATH`.",
    )
    parser.add_argument("--home", help="data folder (default: $DURE_HOME, /var/lib/dure for root)")
    parser.add_argument("--version", action="version", version=f"dure {dure.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == chosen:
            importlib.import_module(f"dure.cli.{name}").add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `dure` script."""
    if argv is not None:
        sys.argv[1:] = list(argv)
    words, rest = sys.argv[1:], []
    at = _command_at(words)
    if words[at : at + 1] == ["kubectl"]:
        words, rest = words[: at + 1], words[at + 1 :]
    arguments = build_parser(words[at] if at < len(words) else "").parse_args(words)
    arguments.rest = rest
    command = importlib.import_module(f"dure.cli.{arguments.command}")
    from dure.core.errors import ConfigError, DureError

    try:
        code = command.run(arguments)
    except ConfigError as error:
        _complain(error.message, error.mend)
        code = 2
    except DureError as error:
        _complain(str(error), "")
        code = 1
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        if not error.filename:
            raise
        _complain(f"{error.filename}: {error.strerror}", "")
        code = 1
    except KeyboardInterrupt:
        code = 130
    raise SystemExit(code)


def _complain(message: str, mend: str) -> None:
    print(f"dure: {message}", file=sys.stderr)
    if mend:
        print(f"  → {mend}", file=sys.stderr)


if __name__ == "__main__":
    main()
