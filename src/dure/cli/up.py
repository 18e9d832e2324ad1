"""`dure up`: check the machine, start the platform, show each step; in the foreground until Ctrl-C, or detached."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dure.apps.supervisor import Progress, Supervisor, claimed
from dure.cli.home import home_of
from dure.cli.screen import Live, bold, faint, good, say, step
from dure.core.errors import ConfigError
from dure.core.json import loads
from dure.core.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--detach", action="store_true", help="return once the platform is ready")
    parser.add_argument("--nodes", type=int, help="local nodes (default 2)")
    parser.add_argument(
        "--stand-ins",
        action="store_true",
        default=None,
        help="let images made from Debian packages answer to public names",
    )
    parser.add_argument(
        "--no-containers",
        dest="containers",
        action="store_false",
        default=None,
        help="API and controllers only; needs no root",
    )
    parser.add_argument("--simulated-nodes", type=int, help="nodes that only pretend to run pods")
    parser.add_argument("--port-offset", type=int, help="moves every default port")
    parser.add_argument("--listen", help="address of the API server (default 127.0.0.1)")
    parser.add_argument("--cluster-cidr", help="pod network (default 10.244.0.0/16)")
    parser.add_argument("--service-cidr", help="service network (default 10.96.0.0/16)")
    parser.add_argument("--link-cidr", help="network between this host and its nodes (default 10.243.0.0/24)")
    parser.add_argument(
        "--no-merge-kubeconfig",
        dest="merge_kubeconfig",
        action="store_false",
        default=None,
        help="leave ~/.kube/config alone",
    )


def settings_from(arguments: argparse.Namespace) -> Settings:
    """What was said now over what the folder was last started with."""
    home = home_of(arguments)
    settings = Settings.load(home) or Settings(str(home))
    said = {
        name: value
        for name in Settings.__dataclass_fields__
        if name != "home" and (value := getattr(arguments, name, None)) is not None
    }
    settings = replace(settings, **said)
    settings.check()
    return settings


def run(arguments: argparse.Namespace) -> int:
    from dure.apps.doctor import require
    from dure.apps.leftovers import end_leftovers

    settings = settings_from(arguments)
    with claimed(settings) as lock:
        if ended := end_leftovers(settings):
            say(faint(f"{ended} daemons ended whose supervisor was killed"))
        for warning in require(settings):
            say(faint(f"! {warning.message} → {warning.mend}"))
        settings.save()
        return _detached(settings, lock) if arguments.detach else _foreground(settings)


class _Screen:
    """Shows progress as it comes; `ready` once everything is up."""

    def __init__(self, settings: Settings, *, foreground: bool) -> None:
        self._settings = settings
        self._foreground = foreground
        self._live = Live()
        self.ready = False

    def report(self, progress: Progress) -> None:
        if progress.error:
            self._live.clear()
            return
        if progress.step:
            step(f"{progress.source}: {progress.step}", progress.seconds)
        if progress.ready and not self.ready:
            self.ready = True
            self._welcome(progress.seconds)

    def _welcome(self, seconds: float) -> None:
        settings = self._settings
        say(f"\n{good(bold('Dure is up'))} in {seconds:.2f} s: {settings.api_url}")
        chosen = f"--context {settings.context}" if settings.merge_kubeconfig else f"--kubeconfig {settings.kubeconfig}"
        say(f"  kubectl {chosen} get nodes      " + faint("(or: dure kubectl get nodes)"))
        say("  dure deploy PATH                  " + faint("build and run an application"))
        say(
            "  dure status, dure down            "
            + faint("look, and end it" + (" (or Ctrl-C here)" if self._foreground else ""))
        )


def _foreground(settings: Settings) -> int:
    from dure.apps.teardown import tear_down

    screen = _Screen(settings, foreground=True)
    try:
        asyncio.run(Supervisor(settings, _tolerant(screen.report)).run())
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it behind
        _tolerant(say)("\nstopping …")
        tear_down(settings, report=_tolerant(step))
    _tolerant(say)(faint("objects are kept: `dure up` finds them again, `dure down` clears them"))
    return 0


def _tolerant(show: Callable[[Any], None]) -> Callable[[Any], None]:
    """The platform outlives whoever was reading: a pipe closed, a terminal gone."""

    def shown(what: Any) -> None:
        try:
            show(what)
        except OSError:
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 -- for the rest of this process

    return shown


def _detached(settings: Settings, lock: int) -> int:
    read_end, write_end = os.pipe()
    settings.log_dir.mkdir(parents=True, exist_ok=True)
    with (settings.log_dir / "supervisor.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "dure.apps.supervisor", settings.home, str(write_end), str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(write_end, lock),
            start_new_session=True,
        )
    os.close(write_end)
    screen = _Screen(settings, foreground=False)
    failure: dict[str, Any] | None = None
    with os.fdopen(read_end, "rb") as pipe:
        for line in pipe:
            message = loads(line)
            screen.report(Progress(**message))
            if message["error"]:
                failure = message
            if screen.ready:
                return 0
    child.wait()
    if failure is not None:
        raise ConfigError(failure["error"], failure["mend"])
    raise ConfigError("the platform ended while starting", f"see {settings.log_dir}/*.log")
