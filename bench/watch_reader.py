"""Holds many watches and counts what they deliver; on some of them the time of every event. A process of its own.

TLS sockets on epoll, no event loop: what reading costs must not be taken for what serving costs. Asked by lines of
JSON on standard input, answers by lines on standard output. Clocks are CLOCK_MONOTONIC, the same in all processes.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from bench.measure import percentile
from dure.core.json import dumps, loads

PATH = "/api/v1/namespaces/bench/configmaps"
_TIMED_EVERY = 20
"""Every so manieth watch is read event by event."""
_QUIET_SECONDS = 3.0
_MARK = b'{"type":"ADDED"'
_NAME = re.compile(rb'"name":"(event-\d+)"')


@dataclass(slots=True)
class Watch:
    """One open watch. `tail` is the end of what came last, in which an event's mark may have been cut."""

    sock: ssl.SSLSocket
    timed: bool
    events: int = 0
    tail: bytes = b""
    seen: list[tuple[str, int]] = field(default_factory=list)

    def read(self, buffer: memoryview) -> bool:
        """All there is. False once it has ended."""
        while True:
            try:
                size = self.sock.recv_into(buffer)
            except ssl.SSLWantReadError:
                return True
            if not size:
                return False
            self._count(self.tail + bytes(buffer[:size]))

    def _count(self, data: bytes) -> None:
        self.events += data.count(_MARK)
        if not self.timed:
            self.tail = data[-len(_MARK) + 1 :]
            return
        now = time.monotonic_ns()
        cut = max(data.rfind(b"}\n"), 0)
        self.seen += [(name.decode(), now) for name in dict.fromkeys(_NAME.findall(data[:cut]))]
        self.tail = data[cut:]
        self.events -= self.tail.count(_MARK)


class Reader:
    """All watches and the loop that reads them."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext, revision: str, count: int) -> None:
        self._poll = select.epoll()
        self._watches: dict[int, Watch] = {}
        self._buffer = memoryview(bytearray(1 << 16))
        for number in range(count):
            watch = Watch(_open(host, port, tls, revision), timed=number % _TIMED_EVERY == 0)
            self._watches[watch.sock.fileno()] = watch
            self._poll.register(watch.sock, select.EPOLLIN)
        self._poll.register(sys.stdin, select.EPOLLIN)
        self._last = 0
        self._cpu = time.process_time()

    def run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == sys.stdin.fileno():
                    line = sys.stdin.buffer.readline()
                    if not line:
                        return
                    sys.stdout.buffer.write(dumps(self._answer(loads(line))) + b"\n")
                    sys.stdout.buffer.flush()
                else:
                    self._read(fd)

    def _read(self, fd: int) -> None:
        if not self._watches[fd].read(self._buffer):
            self._poll.unregister(fd)
        self._last = time.monotonic_ns()

    def _answer(self, question: Any) -> dict[str, Any]:
        if "ready" in question:
            return {"ready": True}
        self._wait_all(question["expect"])
        sent = question["sent"]
        times = [(at - sent[name]) / 1e6 for watch in self._watches.values() for name, at in watch.seen if name in sent]
        report = {
            "events": sum(watch.events for watch in self._watches.values()),
            "last_ns": self._last,
            "p50": percentile(times, 50),
            "p99": percentile(times, 99),
            "cpu_seconds": time.process_time() - self._cpu,
        }
        for watch in self._watches.values():
            watch.events, watch.seen = 0, []
        self._cpu = time.process_time()
        return report

    def _wait_all(self, expected: int) -> None:
        """Until every watch has had `expected` events, or none has had any for a while."""
        deadline = time.monotonic() + _QUIET_SECONDS
        while time.monotonic() < deadline and any(watch.events < expected for watch in self._watches.values()):
            for fd, _ in self._poll.poll(0.5):
                if fd != sys.stdin.fileno():
                    self._read(fd)
                    deadline = time.monotonic() + _QUIET_SECONDS


def _open(host: str, port: int, tls: ssl.SSLContext, revision: str) -> ssl.SSLSocket:
    """A watch of everything after the collection's `revision`."""
    sock = tls.wrap_socket(socket.create_connection((host, port)), server_hostname=host)
    request = f"GET {PATH}?watch=true&resourceVersion={revision} HTTP/1.1\r\nHost: {host}:{port}\r\n"
    sock.sendall(f"{request}Accept: application/json\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(4096)
    if b" 200 " not in head[:16]:
        raise SystemExit(f"watch refused: {head.decode()}")
    sock.setblocking(False)
    return sock


def main() -> None:
    host, port, authority, certificate, key, revision, count = sys.argv[1:]
    tls = ssl.create_default_context(cafile=authority)
    tls.load_cert_chain(certificate, key)
    Reader(host, int(port), tls, revision, int(count)).run()


if __name__ == "__main__":
    main()
