"""Network namespaces held by bind-mounted files, and the threads that work inside them.

A thread born from another starts in the namespaces of its creator; so the threads here are started by the event
loop's thread only and never start others. Sockets stay in the namespace they were made in, whoever uses them later.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MNT_DETACH = 4096, 2
OWN = "/proc/thread-self/ns/net"
"""The namespace of the calling thread."""
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def enter(netns: int) -> None:
    """Move the calling thread into an open namespace."""
    _checked(_libc.setns(netns, _CLONE_NEWNET), "enter network namespace")


def is_namespace(path: Path) -> bool:
    """Whether a namespace is mounted there; a plain file is what a reboot left over."""
    try:
        return path.stat().st_dev == Path(OWN).stat().st_dev
    except FileNotFoundError:
        return False


def hold(path: Path) -> None:
    """Bind the calling thread's network namespace to `path`, so that it lives without a process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    _checked(_libc.mount(OWN.encode(), os.fsencode(path), None, _MS_BIND, None), f"hold namespace at {path}")


def release(path: Path) -> None:
    """Drop the bind and its file; the namespace ends with its last process. Safe to repeat."""
    while is_namespace(path):
        _checked(_libc.umount2(os.fsencode(path), _MNT_DETACH), f"release namespace at {path}")
    path.unlink(missing_ok=True)


def write_sysctl(name: str, value: str) -> None:
    """Set `net.…` of the calling thread's namespace; one the kernel does not have is passed over."""
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/sys", *name.split("/")).write_text(value)


class NamespaceThread:
    """Runs what it is given, one call after the other, on a thread of its own.

    `home` is the namespace it lives in (none: the process's own). A call may go elsewhere by `inside` or `created`,
    which come back whatever happens.
    """

    def __init__(self, name: str, home: Path | None = None) -> None:
        self._home = home
        self._queue: queue.SimpleQueue[tuple[Callable[[], object], Future[object]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._home_netns = -1

    def start(self) -> None:
        """To be called from a thread that is in the process's own namespace. Safe to repeat."""
        if self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        """Let the thread end once it has done what was asked before."""
        self._queue.put(None)

    async def call(self, function: Callable[[], T]) -> T:
        """Run it on the thread; once begun it goes on to its end even if the caller is cancelled."""
        return await asyncio.wrap_future(self.submit(function))

    def submit(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._queue.put((function, future))  # type: ignore[arg-type]  # the queue is heterogeneous
        return future

    def inside(self, netns: Path, function: Callable[[], T]) -> T:
        """On the thread: run `function` in another namespace."""
        handle = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(handle)
            try:
                return function()
            finally:
                enter(self._home_netns)
        finally:
            os.close(handle)

    def created(self, netns: Path, function: Callable[[], T]) -> T:
        """On the thread: make a namespace, run `function` inside, then hold it at `netns`.

        Held means complete: whoever dies before leaves nothing behind.
        """
        _checked(_libc.unshare(_CLONE_NEWNET), "make network namespace")
        try:
            result = function()
            hold(netns)
            return result
        finally:
            enter(self._home_netns)

    def _work(self) -> None:
        problem = self._settle()
        while (item := self._queue.get()) is not None:
            function, future = item
            if not future.set_running_or_notify_cancel():
                continue
            if problem is not None:
                future.set_exception(problem)
                continue
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            del item, function, future
        if self._home_netns >= 0:
            os.close(self._home_netns)

    def _settle(self) -> OSError | None:
        try:
            self._home_netns = os.open(self._home or OWN, os.O_RDONLY | os.O_CLOEXEC)
            if self._home is not None:
                enter(self._home_netns)
        except OSError as error:
            return error
        return None
