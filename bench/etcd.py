"""A bare etcd on this machine, as the peer that durable writes are measured against.

Spoken to over gRPC by a client written for this one call, so that the client costs no more than the one that loads
the API server. etcdserverpb.KV/Txn; HTTP/2 (RFC 9113) with header fields that are never indexed (RFC 7541).
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

START_SECONDS = 20.0

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1


def is_installed() -> bool:
    return shutil.which("etcd") is not None


class Etcd(asyncio.Protocol):
    """Creates keys with a compare in the same transaction, as an API server does. One connection, many calls at once.

    What is sent in one go must fit etcd's first window of 64 KB: some fifty calls of 1 KB at once.
    """

    name = "etcd, gRPC"

    def __init__(self, authority: str, pid: int) -> None:
        self.pid = pid
        self._fields = _fields(authority)
        self._stream = -1
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._answers: dict[int, bytes] = {}
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        window = (1 << 31) - 65536
        transport.write(  # type: ignore[attr-defined]
            _PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_WINDOW, 0, 0, window.to_bytes(4, "big"))
        )

    def connection_lost(self, exc: Exception | None) -> None:
        for call in self._calls.values():
            if not call.done():
                call.set_exception(ConnectionResetError("etcd closed the connection"))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 9 and end - at >= 9 + (length := int.from_bytes(data[at : at + 3], "big")):
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            self._take(data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + length])
            at += 9 + length
        self._rest = data[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == _DATA:
            self._answers[stream] = self._answers.get(stream, b"") + payload
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._transport.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _GOAWAY:
            self._transport.abort()
        if (kind in (_DATA, _HEADERS) and flags & _END_STREAM) or kind == _RESET:
            call = self._calls.pop(stream, None)
            answer = self._answers.pop(stream, b"")
            if call is not None and not call.done():
                call.set_result(answer[5:])

    async def create(self, key: str, value: bytes) -> None:
        """TxnRequest{compare=1, success=2}, Compare{target=2, key=3, create_revision=5}: put unless it is there."""
        name = key.encode()
        absent = b"\x10\x01" + _bytes(3, name) + b"\x28\x00"
        put = _bytes(2, _bytes(1, name) + _bytes(2, value))
        answer = await self._call(_bytes(1, absent) + _bytes(2, put))
        if not answer[2 + answer[1] :].startswith(b"\x10\x01"):  # after the header: succeeded=2
            raise RuntimeError(f"etcd refused {key}: {answer!r}")

    async def _call(self, message: bytes) -> bytes:
        assert self._transport is not None
        self._stream += 2
        call: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._calls[self._stream] = call
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, self._stream, self._fields) + _frame(_DATA, _END_STREAM, self._stream, body)
        )
        return await call

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _fields(authority: str) -> bytes:
    """The request's header block: POST and http from the static table, the rest as literals."""

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    return (
        b"\x83\x86"
        + b"\x04" + text("/etcdserverpb.KV/Txn")
        + b"\x01" + text(authority)
        + b"\x00" + text("content-type") + text("application/grpc")
        + b"\x00" + text("te") + text("trailers")
    )  # fmt: skip


def _bytes(field: int, data: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = bytearray(), len(data)
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    size.append(length)
    return bytes([field << 3 | 2]) + bytes(size) + data


@asynccontextmanager
async def running_etcd(folder: Path) -> AsyncIterator[Etcd]:
    """One member with its data in `folder`, gone at the end."""
    client, peer = _free_port(), _free_port()
    url = f"http://127.0.0.1:{client}"
    process = await asyncio.create_subprocess_exec(
        "etcd", "--data-dir", str(folder), "--log-level", "error",
        "--listen-client-urls", url, "--advertise-client-urls", url,
        "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
        "--initial-cluster", f"default=http://127.0.0.1:{peer}",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    etcd: Etcd | None = None
    try:
        etcd = await _connect(client, process.pid)
        yield etcd
    finally:
        if etcd is not None:
            etcd.close()
        process.terminate()
        await process.wait()


async def _connect(port: int, pid: int) -> Etcd:
    """Once it has a leader, which the first write waits for."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                _, etcd = await asyncio.get_running_loop().create_connection(
                    lambda: Etcd(f"127.0.0.1:{port}", pid), "127.0.0.1", port
                )
                await etcd.create("bench/first", b"")
                return etcd
            except (OSError, RuntimeError):
                await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
