"""How the API server reaches nodes: the agent's unix socket, and pod addresses through the host's routes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

from dure.apiserver.ports import NodeAway


class StreamDuplex:
    """A `wire.Duplex` over asyncio streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, limit: int = 65536) -> bytes:
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def write_eof(self) -> None:
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class AgentConnector:
    """All local nodes answer on one socket, each below `/nodes/<name>`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self, node: str) -> StreamDuplex:
        try:
            return StreamDuplex(*await asyncio.open_unix_connection(str(self._path)))
        except OSError as error:
            raise NodeAway(f"the agent of node {node} does not answer: {error}") from error

    def prefix(self, node: str) -> str:
        return f"/nodes/{node}"


class HostDialer:
    """Pods and services of local nodes are a route away from the host."""

    async def open(self, node: str, ip: str, port: int, *, tls: bool = False) -> StreamDuplex:
        context = None
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        async with asyncio.timeout(10):
            return StreamDuplex(*await asyncio.open_connection(ip, port, ssl=context))
