"""Messages between agent and monitor: length-prefixed JSON on a unix stream socket, file descriptors beside it.

A message that carries descriptors says how many in `fds`; they travel with its first byte (unix(7), SCM_RIGHTS),
so the order of descriptors is the order of messages.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

_HEADER = struct.Struct(">I")
_MAX_MESSAGE = 64 << 20
_MAX_FDS = 64


class Frames:
    """One end of a connection, non-blocking. The owner watches the socket and calls `receive` and `flush`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._input = bytearray()
        self._fds: deque[int] = deque()
        self._output: deque[tuple[memoryview, list[int]]] = deque()

    def send(self, message: Message, fds: Sequence[int] = ()) -> bool:
        """Queue a message and write what the socket takes; True if nothing is left. The descriptors are duplicated."""
        if fds:
            message = {**message, "fds": len(fds)}
        body = json.dumps(message, separators=(",", ":")).encode()
        self._output.append((memoryview(_HEADER.pack(len(body)) + body), [os.dup(fd) for fd in fds]))
        return self.flush()

    def flush(self) -> bool:
        """Write on; True if nothing is left. Raises ConnectionError when the other end is gone."""
        while self._output:
            data, fds = self._output.popleft()
            try:
                sent = socket.send_fds(self.sock, [data], fds) if fds else self.sock.send(data)
            except BlockingIOError:
                self._output.appendleft((data, fds))
                return False
            except BaseException:
                self._output.appendleft((data, fds))
                raise
            _close_all(fds)
            if sent < len(data):
                self._output.appendleft((data[sent:], []))
        return True

    def receive(self) -> list[tuple[Message, list[int]]]:
        """The whole messages that have come. Raises ConnectionError at the end of the stream."""
        messages: list[tuple[Message, list[int]]] = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.sock, 1 << 18, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return messages
            self._fds.extend(fds)
            if not data:
                if messages:
                    return messages  # the end is met again at the next call
                raise ConnectionResetError("the other end closed the connection")
            self._input += data
            self._cut(messages)

    def _cut(self, messages: list[tuple[Message, list[int]]]) -> None:
        while len(self._input) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._input)
            if length > _MAX_MESSAGE:
                raise ConnectionResetError(f"message of {length} bytes: at most {_MAX_MESSAGE}")
            end = _HEADER.size + length
            if len(self._input) < end:
                return
            message = json.loads(self._input[_HEADER.size : end])
            del self._input[:end]
            messages.append((message, [self._fds.popleft() for _ in range(message.get("fds", 0))]))

    def close(self) -> None:
        self.sock.close()
        _close_all(self._fds)
        for _, fds in self._output:
            _close_all(fds)
        self._output.clear()


def _close_all(fds: Sequence[int] | deque[int]) -> None:
    for fd in fds:
        os.close(fd)
