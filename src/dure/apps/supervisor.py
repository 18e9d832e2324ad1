"""Keeps the daemons of one platform running, reports their start, restarts what dies.

Imports little, since it stays in memory all the while. Its state is `run/supervisor.json`; the lock
`run/lock` says that it lives.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dure.apps.notify import NOTIFY_FD
from dure.core.errors import ConfigError
from dure.core.json import dumps, loads
from dure.core.process import exclusive, is_locked
from dure.core.settings import Settings

_STOP_SECONDS = 15.0
_LAST_WORDS_SECONDS = 1.0
_HOPELESS_STARTS = 3
"""A daemon that died so often and was never ready is given up."""
_RESTART_FIRST, _RESTART_MOST = 0.1, 5.0
_STEADY_SECONDS = 10.0
"""After this long alive a daemon's next death is met without delay again."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a start or stop as the screen shows it; `seconds` since the start began."""

    source: str
    step: str
    seconds: float
    ready: bool = False
    error: str = ""
    mend: str = ""


@dataclass(slots=True)
class Daemon:
    """A child process and how it has fared."""

    name: str
    module: str
    pid: int = 0
    started: float = 0.0
    restarts: int = 0
    ready: bool = False
    ever_ready: bool = False
    delay: float = field(default=_RESTART_FIRST, repr=False)


def state_path(settings: Settings) -> Path:
    return settings.run_dir / "supervisor.json"


def lock_path(settings: Settings) -> Path:
    return settings.run_dir / "lock"


def is_running(settings: Settings) -> bool:
    return is_locked(lock_path(settings))


def read_state(settings: Settings) -> dict[str, Any]:
    """What the supervisor last wrote: {pid, started, ready, processes: [...]}; {} when there is none."""
    try:
        state: dict[str, Any] = loads(state_path(settings).read_bytes())
    except FileNotFoundError:
        return {}
    return state


class Supervisor:
    """Runs until `stop` is called or a signal arrives; then ends the daemons, last started first."""

    def __init__(self, settings: Settings, report: Callable[[Progress], None]) -> None:
        self._settings = settings
        self._report = report
        self._began = time.monotonic()
        self._started = time.time()
        self._stopping = asyncio.Event()
        self._failed: ConfigError | None = None
        daemons = [Daemon("server", "dure.apps.server")]
        if settings.containers or settings.simulated_nodes:
            daemons.append(Daemon("agent", "dure.apps.agent"))
        self._daemons: Sequence[Daemon] = daemons

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Raises ConfigError when a daemon says that it cannot start as asked."""
        with exclusive(
            lock_path(self._settings),
            f"a platform is already running in {self._settings.home}",
            "see `dure status`; end it with `dure down`",
        ):
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self.stop)
            try:
                async with asyncio.TaskGroup() as group:
                    keepers = [group.create_task(self._keep(daemon)) for daemon in self._daemons]
                    await self._stopping.wait()
                    for keeper in reversed(keepers):
                        keeper.cancel()
                        await asyncio.wait({keeper})
            finally:
                state_path(self._settings).unlink(missing_ok=True)
        if self._failed is not None:
            raise self._failed

    async def _keep(self, daemon: Daemon) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once(daemon)
            daemon.ready = False
            if self._stopping.is_set():
                return
            if code == 2:
                self._stopping.set()
                return
            if not daemon.ever_ready and daemon.restarts >= _HOPELESS_STARTS:
                log = self._settings.log_dir / f"{daemon.name}.log"
                self._failed = ConfigError(f"the {daemon.name} does not start: it ended with {code}", f"see {log}")
                self._stopping.set()
                return
            steady = time.monotonic() - began > _STEADY_SECONDS
            daemon.delay = _RESTART_FIRST if steady else min(daemon.delay * 2, _RESTART_MOST)
            daemon.restarts += 1
            self._tell(daemon.name, f"ended with {code}, starting it again")
            await asyncio.sleep(daemon.delay)

    async def _run_once(self, daemon: Daemon) -> int:
        read_end, write_end = os.pipe()
        self._settings.log_dir.mkdir(parents=True, exist_ok=True)
        with (self._settings.log_dir / f"{daemon.name}.log").open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                daemon.module,
                self._settings.home,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                env={**os.environ, NOTIFY_FD: str(write_end)},
                start_new_session=True,
            )
        os.close(write_end)
        daemon.pid, daemon.started = child.pid, time.time()
        self._write_state()
        try:
            async with asyncio.TaskGroup() as group:
                listener = group.create_task(self._listen(daemon, read_end))
                code = await child.wait()
                await asyncio.wait({listener}, timeout=_LAST_WORDS_SECONDS)
                listener.cancel()
                return code
        except asyncio.CancelledError:
            await _end(child)
            raise

    async def _listen(self, daemon: Daemon, descriptor: int) -> None:
        reader = asyncio.StreamReader()
        pipe = os.fdopen(descriptor, "rb")
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            while line := await reader.readline():
                self._heard(daemon, loads(line))
        finally:
            transport.close()

    def _heard(self, daemon: Daemon, message: dict[str, Any]) -> None:
        if message["error"]:
            self._failed = ConfigError(f"{daemon.name}: {message['error']}", message["mend"])
        daemon.ready = daemon.ready or message["ready"]
        daemon.ever_ready = daemon.ever_ready or daemon.ready
        self._tell(daemon.name, message["step"], ready=message["ready"], error=message["error"], mend=message["mend"])
        self._write_state()

    def _tell(self, source: str, step: str, *, ready: bool = False, error: str = "", mend: str = "") -> None:
        everything = ready and all(daemon.ready for daemon in self._daemons)
        seconds = time.monotonic() - self._began
        self._report(Progress(source, step, seconds, everything, error, mend))

    def _write_state(self) -> None:
        state = {
            "pid": os.getpid(),
            "started": self._started,
            "ready": all(daemon.ready for daemon in self._daemons),
            "processes": [asdict(daemon) for daemon in self._daemons],
        }
        path = state_path(self._settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        scratch.write_bytes(dumps(state))
        scratch.rename(path)


async def _end(child: asyncio.subprocess.Process) -> None:
    """SIGTERM, then SIGKILL for one that does not listen."""
    if child.returncode is not None:
        return
    child.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


def main() -> None:
    """`python -m dure.apps.supervisor HOME FD`: the detached form; progress goes to the descriptor as JSON lines."""
    from dure.core.process import set_process_name

    set_process_name("dure")
    settings = Settings.load(Path(sys.argv[1]))
    if settings is None:
        raise SystemExit(f"dure: no settings in {sys.argv[1]}")
    with os.fdopen(int(sys.argv[2]), "wb", buffering=0) as pipe:

        def report(progress: Progress) -> None:
            try:
                pipe.write(dumps(asdict(progress)) + b"\n")
            except BrokenPipeError:
                return  # whoever started us has seen enough and gone

        try:
            asyncio.run(Supervisor(settings, report).run())
        except ConfigError as error:
            report(Progress("dure", "", 0.0, error=error.message, mend=error.mend))
            raise SystemExit(2) from error


if __name__ == "__main__":
    main()
