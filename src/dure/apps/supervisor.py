"""Keeps the daemons of one platform running, reports their start, restarts what dies.

Imports little, since it stays in memory all the while. Its state is `run/supervisor.json`. Who starts, runs or removes
a platform holds the lock `run/lock`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dure.apps.notify import NOTIFY_FD, SUPERVISOR_PID
from dure.core.errors import ConfigError
from dure.core.json import dumps, loads
from dure.core.process import exclusive, is_locked
from dure.core.settings import Settings

_STOP_SECONDS = 15.0
_LAST_WORDS_SECONDS = 1.0
_HOPELESS_STARTS = 3
"""A daemon that died so often and was never ready is given up."""
_CANNOT = "ended with 2"
"""What a daemon says that cannot start as it was asked to, for a reason it has told."""
_RESTART_FIRST, _RESTART_MOST = 0.1, 5.0
_REWRITE_SECONDS = 1.0
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
    problem: str = ""
    """Why it is not there, in its own words or ours; empty once it is ready."""
    mend: str = ""
    delay: float = _RESTART_FIRST
    """How long its next death waits for the next start."""


def state_path(settings: Settings) -> Path:
    return settings.run_dir / "supervisor.json"


def lock_path(settings: Settings) -> Path:
    return settings.run_dir / "lock"


def claimed(settings: Settings) -> AbstractContextManager[int]:
    """Hold the platform's lock, as `core.process.exclusive` does. Raises ConfigError when it runs, starts or stops."""
    return exclusive(
        lock_path(settings),
        f"a platform is already running in {settings.home}",
        "see `dure status`; end it with `dure down`",
    )


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
    """Runs until `stop` is called or a signal arrives; then ends the daemons, last started first.

    For who holds the platform's lock.
    """

    def __init__(self, settings: Settings, report: Callable[[Progress], None]) -> None:
        self._settings = settings
        self._report = report
        self._began = time.monotonic()
        self._started = time.time()
        self._stopping = asyncio.Event()
        self._failed: ConfigError | None = None
        self._rewrite: asyncio.TimerHandle | None = None
        daemons = [Daemon("server", "dure.apps.server")]
        if settings.containers or settings.simulated_nodes:
            daemons.append(Daemon("agent", "dure.apps.agent"))
        self._daemons: Sequence[Daemon] = daemons

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Raises ConfigError when a daemon says that it cannot start as asked."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop)
        try:
            async with asyncio.TaskGroup() as group:
                keepers = [group.create_task(self._keep(daemon)) for daemon in self._daemons]
                await self._stopping.wait()
                for keeper in reversed(keepers):
                    keeper.cancel()
                    await asyncio.wait({keeper})
        finally:
            self._forget_rewrite()
            state_path(self._settings).unlink(missing_ok=True)
        if self._failed is not None:
            raise self._failed

    async def _keep(self, daemon: Daemon) -> None:
        while True:
            began = time.monotonic()
            ending = await self._run_once(daemon)
            daemon.ready = False
            if self._stopping.is_set():
                return
            hopeless = ending == _CANNOT or daemon.restarts >= _HOPELESS_STARTS
            if hopeless and not daemon.ever_ready:
                self._give_up(daemon, ending)
                return
            if time.monotonic() - began > _STEADY_SECONDS:
                daemon.delay = _RESTART_FIRST
            daemon.restarts += 1
            daemon.problem = daemon.problem or ending
            self._tell(daemon.name, f"{ending}, starting it again")
            self._write_state()
            await asyncio.sleep(daemon.delay)
            daemon.delay = min(daemon.delay * 2, _RESTART_MOST)

    def _give_up(self, daemon: Daemon, ending: str) -> None:
        log = self._log_of(daemon)
        self._failed = (
            ConfigError(f"{daemon.name}: {daemon.problem}", daemon.mend)
            if daemon.problem
            else ConfigError(f"the {daemon.name} does not start: it {ending}", f"see {log}")
        )
        self._stopping.set()

    def _log_of(self, daemon: Daemon) -> Path:
        return self._settings.log_dir / f"{daemon.name}.log"

    async def _run_once(self, daemon: Daemon) -> str:
        """Start it, wait for its end, and say how it ended."""
        try:
            child, descriptor = await self._spawn(daemon)
        except OSError as error:  # no memory, no processes, a full disk: all of which may pass
            return f"cannot be started: {error}"
        daemon.pid, daemon.started = child.pid, time.time()
        self._write_state()
        try:
            async with asyncio.TaskGroup() as group:
                listener = group.create_task(self._listen(daemon, descriptor))
                code = await child.wait()
                await asyncio.wait({listener}, timeout=_LAST_WORDS_SECONDS)
                listener.cancel()
                return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        except asyncio.CancelledError:
            await _end(child)
            raise

    async def _spawn(self, daemon: Daemon) -> tuple[asyncio.subprocess.Process, int]:
        """The process, and the pipe on which it tells us things."""
        self._settings.log_dir.mkdir(parents=True, exist_ok=True)
        read_end, write_end = os.pipe()
        try:
            with self._log_of(daemon).open("ab") as log:
                child = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    daemon.module,
                    self._settings.home,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(write_end,),
                    env={**os.environ, NOTIFY_FD: str(write_end), SUPERVISOR_PID: str(os.getpid())},
                    start_new_session=True,
                )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        return child, read_end

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
        if message["error"] or message["ready"]:
            daemon.problem, daemon.mend = message["error"], message["mend"]
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
        scratch = path.with_suffix(".tmp")
        self._forget_rewrite()
        try:
            scratch.write_bytes(dumps(state))
            scratch.rename(path)
        except OSError as error:  # a full disk must not end the platform
            with suppress(OSError):  # the log may lie on the same disk
                print(f"{path}: {error}", file=sys.stderr)
            self._rewrite = asyncio.get_running_loop().call_later(_REWRITE_SECONDS, self._write_state)

    def _forget_rewrite(self) -> None:
        if self._rewrite is not None:
            self._rewrite.cancel()
            self._rewrite = None


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
    """`python -m dure.apps.supervisor HOME PROGRESS LOCK`: the detached form.

    Progress goes to the first descriptor as JSON lines; the second is the platform's lock, held as long as this lives.
    """
    from dure.core.process import set_process_name

    set_process_name("dure")
    settings = Settings.load(Path(sys.argv[1]))
    if settings is None:
        raise SystemExit(f"dure: no settings in {sys.argv[1]}")
    os.set_inheritable(int(sys.argv[3]), False)
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
