"""`dure doctor`: every check of this machine, each with the command that mends it."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from dure.apps.doctor import examine
from dure.apps.supervisor import is_running
from dure.cli.home import home_of
from dure.cli.screen import bad, faint, good, paint, say
from dure.core.json import dumps_pretty
from dure.core.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")


def run(arguments: argparse.Namespace) -> int:
    home = home_of(arguments)
    settings = Settings.load(home) or Settings(str(home))
    findings = list(examine(settings, ports=not is_running(settings)))
    healthy = all(finding.level != "error" for finding in findings)
    if arguments.output == "json":
        say(dumps_pretty({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}))
        return 0 if healthy else 1
    marks = {"ok": good("✓"), "warning": paint("!", "33"), "error": bad("✗")}
    for finding in findings:
        say(f"{marks[finding.level]} {finding.message}")
        if finding.mend:
            say(f"    → {finding.mend}")
    say("" if healthy else "\n" + bad("this machine cannot run containers yet") + faint(" (mend the lines marked ✗)"))
    return 0 if healthy else 1
