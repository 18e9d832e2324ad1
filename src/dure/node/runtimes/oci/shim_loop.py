"""The monitor's event loop: epoll, timers and children, a tenth of asyncio's memory.

A callback that raises is logged once and costs only itself. Descriptors may be closed by an earlier callback of
the same batch, so each event looks its callback up again.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR
EDGE = select.EPOLLET


class Timer:
    """One call to come; `cancel` makes it none."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def fire(self, _: int) -> None:
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


NO_TIMER = Timer(lambda: None)


class Loop:
    """Runs until `stop`. One per process: it owns SIGCHLD."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._children: dict[int, Callable[[int], None]] = {}
        self._strays: dict[int, int] = {}
        self._claims = 0
        self._running = True
        self._wakeup, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self.watch(self._wakeup, self._on_signal)

    def watch(self, fd: int, callback: Callable[[int], None], events: int = READ) -> None:
        """Call `callback(events)` when `fd` is ready; again with other events to change them."""
        if fd in self._watched:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Before the descriptor is closed; safe to repeat."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def claim(self) -> None:
        """From now on keep the status of children nobody waits for: one of them may be asked for by `child`."""
        self._claims += 1

    def release(self) -> None:
        self._claims -= 1
        if not self._claims:
            self._strays.clear()

    def child(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call `callback(wait status)` when this child has ended, also if it already has."""
        if pid in self._strays:
            status = self._strays.pop(pid)
            self.later(0, lambda: callback(status))
        else:
            self._children[pid] = callback

    def is_child(self, pid: int) -> bool:
        """Whether its end will be, or has been, told to this process."""
        if pid in self._strays:
            return True
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        while self._running:
            for fd, events in self._epoll.poll(self._wait_seconds()):
                callback = self._watched.get(fd)
                if callback is not None:
                    self._call(callback, events)
            self._run_timers()

    def _wait_seconds(self) -> float:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._call(heapq.heappop(self._timers)[2].fire, 0)

    def _on_signal(self, events: int) -> None:
        os.read(self._wakeup, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            callback = self._children.pop(pid, None)
            if callback is not None:
                self._call(callback, status)
            elif self._claims:
                self._strays[pid] = status

    @staticmethod
    def _call(callback: Callable[[int], None], value: int) -> None:
        try:
            callback(value)
        except Exception:
            traceback.print_exc(file=sys.stderr)
