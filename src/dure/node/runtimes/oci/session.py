"""Live stdio of a process in a container, over descriptors that the monitor has handed on.

Data goes straight between this process and the container's pipes or terminal; nothing is polled, and a reader that
stops reading holds the process back.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import AsyncIterator, Callable
from typing import Literal

Stream = Literal["stdout", "stderr"]

_CHUNK_BYTES = 64 * 1024


async def wait_readable(fd: int) -> None:
    await _ready(fd, asyncio.get_running_loop().add_reader, asyncio.get_running_loop().remove_reader)


async def wait_writable(fd: int) -> None:
    await _ready(fd, asyncio.get_running_loop().add_writer, asyncio.get_running_loop().remove_writer)


async def _ready(fd: int, add: Callable[..., object], remove: Callable[[int], object]) -> None:
    event = asyncio.Event()
    add(fd, event.set)
    try:
        await event.wait()
    finally:
        remove(fd)


class Entrance:
    """Where input goes: a pipe's or terminal's descriptor, owned."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        if fd >= 0:
            os.set_blocking(fd, False)

    async def write(self, data: bytes) -> None:
        """A process that has closed its input loses it silently, as in a shell."""
        view = memoryview(data)
        while view and self.fd >= 0:
            try:
                view = view[os.write(self.fd, view) :]
            except BlockingIOError:
                await wait_writable(self.fd)
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO):
                    raise
                return

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def set_window_size(fd: int, columns: int, rows: int) -> None:
    with contextlib.suppress(OSError):  # the process has just ended
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class PipeSession:
    """An exec without a terminal: its own three pipes."""

    def __init__(self, stdin: int, stdout: int, stderr: int, exited: asyncio.Future[int]) -> None:
        self._entrance = Entrance(stdin)
        self._sources: dict[int, Stream] = {stdout: "stdout", stderr: "stderr"}
        for fd in self._sources:
            os.set_blocking(fd, False)
        self._exited = exited

    async def write_stdin(self, data: bytes) -> None:
        await self._entrance.write(data)

    def close_stdin(self) -> None:
        self._entrance.close()

    def resize(self, columns: int, rows: int) -> None:
        """A pipe has no size."""

    async def wait(self) -> int:
        return await asyncio.shield(self._exited)

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while self._sources:
            took = False
            for fd, stream in list(self._sources.items()):
                try:
                    data = os.read(fd, _CHUNK_BYTES)
                except BlockingIOError:
                    continue
                took = True
                if data:
                    yield stream, data
                else:
                    del self._sources[fd]
                    os.close(fd)
            if not took and self._sources:
                await self._wait_any()

    async def _wait_any(self) -> None:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        fds = list(self._sources)
        for fd in fds:
            loop.add_reader(fd, event.set)
        try:
            await event.wait()
        finally:
            for fd in fds:
                loop.remove_reader(fd)

    def close(self) -> None:
        self._entrance.close()
        for fd in self._sources:
            os.close(fd)
        self._sources.clear()


class TerminalSession:
    """An exec with a terminal: everything is stdout."""

    def __init__(self, terminal: int, exited: asyncio.Future[int]) -> None:
        self._entrance = Entrance(terminal)
        self._exited = exited

    async def write_stdin(self, data: bytes) -> None:
        await self._entrance.write(data)

    def close_stdin(self) -> None:
        """A terminal ends with its process; end of file is a character."""

    def resize(self, columns: int, rows: int) -> None:
        set_window_size(self._entrance.fd, columns, rows)

    async def wait(self) -> int:
        return await asyncio.shield(self._exited)

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while self._entrance.fd >= 0:
            try:
                data = os.read(self._entrance.fd, _CHUNK_BYTES)
            except BlockingIOError:
                await wait_readable(self._entrance.fd)
                continue
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                return  # the last process has let go of the terminal
            if not data:
                return
            yield "stdout", data

    def close(self) -> None:
        self._entrance.close()


class AttachSession:
    """The main process of a container: output as packets from the monitor, input straight into its pipe or terminal."""

    def __init__(self, packets: int, entrance: int, *, terminal: bool, on_stdin_closed: Callable[[], None]) -> None:
        self._packets = socket.socket(fileno=packets)
        self._packets.setblocking(False)
        self._entrance = Entrance(entrance)
        self._terminal = terminal
        self._on_stdin_closed = on_stdin_closed
        self._ended = asyncio.Event()

    async def write_stdin(self, data: bytes) -> None:
        await self._entrance.write(data)

    def close_stdin(self) -> None:
        if self._entrance.fd >= 0 and not self._terminal:
            self._entrance.close()
            self._on_stdin_closed()

    def resize(self, columns: int, rows: int) -> None:
        if self._terminal:
            set_window_size(self._entrance.fd, columns, rows)

    async def wait(self) -> int:
        await self._ended.wait()
        return 0

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while True:
            try:
                packet = self._packets.recv(_CHUNK_BYTES)
            except BlockingIOError:
                await wait_readable(self._packets.fileno())
                continue
            except ConnectionError:
                packet = b""
            if not packet:
                self._ended.set()
                return
            yield ("stdout" if packet[0] == 1 else "stderr"), packet[1:]

    def close(self) -> None:
        self._entrance.close()
        self._packets.close()
        self._ended.set()
