"""How an OCI runtime hands over the controlling end of a terminal it has made (`--console-socket`)."""

from __future__ import annotations

import os
import socket
import time


def listen_for_terminal(folder: str) -> socket.socket:
    """A socket in `folder`, whose path must stay below 90 bytes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"{folder}/tty-{time.monotonic_ns():x}")
    listener.listen(1)
    listener.setblocking(False)
    return listener


def take_terminal(listener: socket.socket) -> int:
    """The descriptor the runtime has sent before it ended; -1 if none. The socket is gone afterwards."""
    os.unlink(listener.getsockname())
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return -1
    finally:
        listener.close()
    with connection:
        connection.setblocking(False)
        try:
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return -1
    return fds[0] if fds else -1
