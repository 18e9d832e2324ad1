"""The platform's end of the writer: starts the process, carries frames, and notices when it has gone."""

from __future__ import annotations

import asyncio
import marshal
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from dure.store import writer

BUFFER_BYTES = 1 << 20
"""So that a load is not a ping-pong of small reads."""


class Link(asyncio.Protocol):
    """One writer process. `received` gets each message; `lost` is called once, when no more can come."""

    def __init__(self, received: Callable[[tuple[Any, ...]], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost
        self._buffer = bytearray()
        self._process: subprocess.Popen[bytes]
        self._transport: asyncio.Transport

    @classmethod
    async def start(
        cls, path: Path, lock: int, received: Callable[[tuple[Any, ...]], None], lost: Callable[[], None]
    ) -> Link:
        """Start a writer for `path`; `lock` is a file descriptor it keeps open as long as it lives."""
        link = cls(received, lost)
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            link._process = _spawn(path, theirs.fileno(), lock)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        return link

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, *message: Any) -> None:
        body = marshal.dumps(message)
        self._transport.writelines((struct.pack("<I", len(body)), body))

    async def close(self) -> None:
        """Let the writer finish what it was sent, and wait until it has exited."""
        if not self._transport.is_closing():
            self._transport.write_eof()
        await self.wait_exit()

    async def wait_exit(self) -> None:
        loop = asyncio.get_running_loop()
        exited = asyncio.Event()
        descriptor = os.pidfd_open(self._process.pid)
        loop.add_reader(descriptor, exited.set)
        try:
            await exited.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._process.wait()

    def kill(self) -> None:
        self._process.kill()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4], "little")
            if len(self._buffer) < end:
                return
            message = marshal.loads(memoryview(self._buffer)[4:end].tobytes())
            del self._buffer[:end]
            self._received(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


def _spawn(path: Path, channel: int, lock: int) -> subprocess.Popen[bytes]:
    # an absolute script and no site-packages: it starts in 20 ms and holds a few megabytes
    command = [sys.executable, "-I", "-S", writer.__file__, str(path), str(channel)]
    return subprocess.Popen(command, pass_fds=(channel, lock), stdin=subprocess.DEVNULL)
