"""A container's output: seen, logged, shown to whoever is attached, and only then taken from its pipe.

What a pipe holds is copied by tee(2) first and consumed after the log has it, so a monitor killed at any moment
loses nothing: its successor finds the same bytes again (at least once). A terminal cannot be read that way; what
is read from it in the moment of a kill is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

from dure.node.runtimes.oci import kernel
from dure.node.runtimes.oci.shim_log import CriLog, Unfinished
from dure.node.runtimes.oci.shim_loop import HANGUP, WRITE, Loop, Timer

_ROUNDS = 16
"""Pipefuls taken from one container before the others have their turn."""
_PIPE_BYTES = 256 * 1024
_CHUNK_BYTES = 32 * 1024
_STUCK_SECONDS = 30.0

Left = Literal["nothing", "a part", "more"]
"""What may still be in a pipe: the first part of a line, or anything."""


class Attachment:
    """One who watches: packets of one stream byte (1 stdout, 2 stderr) and data on a SEQPACKET socket.

    A slow one holds the container back, as a terminal would; one that takes nothing for `_STUCK_SECONDS` is dropped.
    """

    def __init__(self, loop: Loop, sock: socket.socket, on_free: Callable[[], None], on_gone: Callable[[], None]):
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._on_free = on_free
        self._on_gone = on_gone
        self._waiting: deque[bytes] = deque()
        self._stuck: Timer | None = None
        self._ending = False
        self._closed = False
        loop.watch(sock.fileno(), self._on_ready, HANGUP)

    @property
    def blocked(self) -> bool:
        return bool(self._waiting)

    def show(self, stream: int, data: bytes) -> None:
        for start in range(0, len(data), _CHUNK_BYTES):
            self._waiting.append(bytes([stream]) + data[start : start + _CHUNK_BYTES])
        self._flush()

    def end(self) -> None:
        """Close once what waits has been taken."""
        self._ending = True
        self._flush()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._stuck is not None:
            self._stuck.cancel()
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._waiting.clear()
        self._on_gone()

    def _on_ready(self, events: int) -> None:
        if events & HANGUP:
            self.close()
            self._on_free()
        else:
            self._flush()
            if not self.blocked:
                self._on_free()

    def _flush(self) -> None:
        if self._closed:
            return
        try:
            while self._waiting:
                self._sock.send(self._waiting[0])
                self._waiting.popleft()
        except BlockingIOError:
            self._wait_for_room()
            return
        except OSError:
            self.close()
            return
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
            self._loop.watch(self._sock.fileno(), self._on_ready, HANGUP)
        if self._ending:
            self.close()

    def _wait_for_room(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
        else:
            self._loop.watch(self._sock.fileno(), self._on_ready, HANGUP | WRITE)
        self._stuck = self._loop.later(_STUCK_SECONDS, self._drop)

    def _drop(self) -> None:
        self.close()
        self._on_free()


class Peeker:
    """Looks into a pipe without consuming; one for all containers."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        widen(self._in)
        self._sink = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)

    def peek(self, fd: int) -> bytes:
        length = kernel.tee(fd, self._in, 1 << 20)
        data = os.read(self._out, length) if length else b""
        while len(data) < length:
            data += os.read(self._out, length - len(data))
        return data

    def discard(self, fd: int, length: int) -> None:
        while length:
            length -= os.splice(fd, self._sink, length)


def widen(fd: int) -> None:
    """Give a pipe room for `_PIPE_BYTES`; where the kernel refuses, it stays as it was."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


class PipeOutput:
    """stdout or stderr through a named pipe. `idle` counts the looks in a row that found nothing new."""

    def __init__(self, name: str, fd: int, peeker: Peeker) -> None:
        widen(fd)
        self.name = name
        self.fd = fd
        self._peeker = peeker
        self._number = 1 if name == "stdout" else 2
        self._shown = 0
        self.idle = 0

    def pump(self, log: CriLog, attached: Iterable[Attachment], unfinished: Unfinished = "") -> Left:
        """Log what is there; a line without its end stays in the pipe unless `unfinished` tags it."""
        for _ in range(_ROUNDS):
            data = self._peeker.peek(self.fd)
            self.idle = 0 if len(data) > self._shown else self.idle + 1
            if not self.idle:
                for attachment in tuple(attached):
                    attachment.show(self._number, data[self._shown :])
            taken = log.write(self.name, data, unfinished)
            self._peeker.discard(self.fd, taken)
            self._shown = len(data) - taken
            if self._shown:
                return "a part"
            if not data or is_held_back(attached, unfinished):
                return "nothing"
        return "more"

    def empty(self) -> bytes:
        """Take what is there without logging it: what a runtime that failed has said."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.fd, 1 << 16)
        return b""


class TerminalOutput:
    """Both streams of a container with a terminal, by the terminal's controlling end."""

    name = "stdout"

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._rest = b""
        self.idle = 0

    def pump(self, log: CriLog, attached: Iterable[Attachment], unfinished: Unfinished = "") -> Left:
        for _ in range(_ROUNDS):
            try:
                data = os.read(self.fd, 1 << 16)
            except OSError:  # nothing there (EAGAIN), or nobody at the other end (EIO)
                data = b""
            if data:
                for attachment in tuple(attached):
                    attachment.show(1, data)
            self.idle = 0 if data else self.idle + 1
            self._rest += data
            self._rest = self._rest[log.write("stdout", self._rest, unfinished) :]
            if not data or is_held_back(attached, unfinished):
                return "a part" if self._rest else "nothing"
        return "more"


def is_held_back(attached: Iterable[Attachment], unfinished: Unfinished) -> bool:
    """Whether a slow watcher stops the reading; nobody does once the container has ended."""
    return unfinished != "F" and any(attachment.blocked for attachment in attached)
