"""Driving a platform from outside, as its users do: the `dure` and `kubectl` commands."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dure.core.settings import Settings

_PLACES = 18
DURE = [sys.executable, "-m", "dure.cli.main"]


def kubectls() -> list[str]:
    """One path for each version of kubectl here: beside this Python, on the path, and its siblings `kubectl.1.NN`."""
    found = [Path(sys.executable).with_name("kubectl")]
    if first := shutil.which("kubectl"):
        real = Path(first).resolve()
        found += sorted(real.parent.glob("kubectl.1.*")) or [real]
    return [str(path) for path in found if path.exists()]


class Platform:
    """One platform in a data folder of its own. `networks` are those of pods, services and links.

    Its commands run after `within`, for example in the namespaces of a machine of its own.
    """

    def __init__(self, home: Path, *, offset: int, networks: tuple[str, str, str], within: Sequence[str] = ()) -> None:
        self.home = home
        self.within = list(within)
        self.offset = offset
        self.networks = networks
        self.api_port = 6443 + offset
        self.kubeconfig = home / "kubeconfig"
        self.client_home = home / "client"

    def up(self, *arguments: str) -> None:
        self.dure("up", "-d", *self.options(), *arguments)

    def options(self) -> list[str]:
        """What `dure up` must be told at the first start."""
        pods, services, links = self.networks
        return [
            "--stand-ins",
            "--no-merge-kubeconfig",
            f"--port-offset={self.offset}",
            f"--cluster-cidr={pods}",
            f"--service-cidr={services}",
            f"--link-cidr={links}",
        ]

    def dure(self, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"dure {' '.join(arguments)} gave {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def command(self, *arguments: str) -> list[str]:
        return [*self.within, *DURE, "--home", str(self.home), *arguments]

    def environment(self) -> dict[str, str]:
        """For a client: this platform's kubeconfig, and a home without anybody's caches."""
        self.client_home.mkdir(exist_ok=True)
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.client_home)}

    def kubectl(
        self,
        *arguments: str,
        stdin: str | None = None,
        check: bool = True,
        timeout: float = 120,
        binary: str = "",
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.within, binary or kubectls()[0], *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment(),
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)} gave {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def out(self, *arguments: str, **options: Any) -> str:
        """What kubectl prints."""
        return self.kubectl(*arguments, **options).stdout.strip()

    def get(self, *arguments: str) -> Any:
        """`kubectl get … -o json`, decoded."""
        return json.loads(self.out("get", *arguments, "-o", "json"))

    @property
    def instance(self) -> str:
        """First part of every global name."""
        return Settings(str(self.home)).instance

    def processes(self) -> dict[str, int]:
        """Name → pid of the platform's processes."""
        status = json.loads(self.dure("status", "-o", "json").stdout)
        return {entry["name"]: entry["pid"] for entry in status["processes"]}


@contextmanager
def own_platform(prefix: str) -> Iterator[Platform]:
    """A platform, not started, on networks and ports that no other one of these has; nothing is left of it."""
    home = Path(tempfile.mkdtemp(prefix=prefix))
    with _own_place() as (offset, networks):
        made = Platform(home, offset=offset, networks=networks)
        try:
            yield made
        finally:
            made.dure("down", "--purge", check=False)
            shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _own_place() -> Iterator[tuple[int, tuple[str, str, str]]]:
    """A port offset and networks; an abstract socket's name says that they are taken."""
    with socket.socket(socket.AF_UNIX) as claim:
        for number in range(_PLACES):
            try:
                claim.bind(f"\0dure-tests-{number}")
            except OSError:
                continue
            pods, services, links = (f"10.{184 + 3 * number + step}.0.0" for step in range(3))
            yield 2000 + 20 * number, (f"{pods}/16", f"{services}/16", f"{links}/24")
            return
    raise AssertionError(f"{_PLACES} platforms are running already")


def eventually(check: Callable[[], Any], *, within: float = 30.0) -> Any:
    """The first true value of `check`; its last falsy value or error when none comes in time."""
    deadline = time.monotonic() + within
    while True:
        try:
            value = check()
            if value:
                return value
            problem: object = value
        except (AssertionError, OSError, LookupError, StopIteration, ValueError) as error:
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {problem}")
        time.sleep(0.1)
