"""A container's stdin, stdout and stderr as the monitor holds them, its log, and who is attached.

Without a terminal these are named pipes in the container's folder. The container has its output pipes open read-write:
it is a reader of them itself, so it meets no SIGPIPE while there is no monitor.
"""

from __future__ import annotations

import functools
import os
import socket

from dure.node.runtimes.oci.shim_log import CriLog, Unfinished
from dure.node.runtimes.oci.shim_loop import EDGE, NO_TIMER, READ, Loop, Timer
from dure.node.runtimes.oci.shim_output import Attachment, Peeker, PipeOutput, TerminalOutput, is_held_back

_PATIENCE_SECONDS = (0.0, 0.001, 0.02)
"""When to look again at a line without its end, which may be written in two goes or be a prompt; after the last it is
logged as a part. It cannot wait for ever: a writer that waits for room in the middle of a write wakes its reader only
if the pipe was empty."""


class Stdio:
    """Opened before the start or at a take-over, closed at the end; safe to open again."""

    def __init__(self, loop: Loop, peeker: Peeker, folder: str, log_path: str, *, tty: bool, stdin: bool) -> None:
        self._loop = loop
        self._peeker = peeker
        self._folder = folder
        self._log_path = log_path
        self._tty = tty
        self._has_stdin = stdin
        self._log: CriLog | None = None
        self._outputs: list[PipeOutput | TerminalOutput] = []
        self._attached: list[Attachment] = []
        self._patience: dict[str, Timer] = {}
        self.terminal = -1
        self.stdin = -1

    def open(self, *, stdin_done: bool) -> None:
        """The monitor's ends. With `stdin_done` the container has read the end of its input already."""
        if self._log is None:
            self._log = CriLog(self._log_path)
        if self._tty:
            return
        if self._has_stdin and not stdin_done and self.stdin < 0:
            # read-write, so that opening does not wait for a reader
            self.stdin = os.open(f"{self._folder}/stdin", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        if not self._outputs:
            for name in ("stdout", "stderr"):
                fd = os.open(f"{self._folder}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._outputs.append(PipeOutput(name, fd, self._peeker))

    def open_for_container(self) -> tuple[int, int, int]:
        """The container's ends, the caller's to close."""
        if self._tty:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            return null, null, null
        source = f"{self._folder}/stdin" if self._has_stdin else "/dev/null"
        return (
            os.open(source, os.O_RDONLY | os.O_CLOEXEC),
            os.open(f"{self._folder}/stdout", os.O_RDWR | os.O_CLOEXEC),
            os.open(f"{self._folder}/stderr", os.O_RDWR | os.O_CLOEXEC),
        )

    def watch(self) -> None:
        """From now on log what the container writes."""
        if self.terminal >= 0 and not self._outputs:
            self._outputs.append(TerminalOutput(self.terminal))
        for output in self._outputs:
            # edge-triggered: a line without its end stays in the pipe and must not wake us for ever
            self._loop.watch(output.fd, functools.partial(self._on_output, output), READ | EDGE)

    def _on_output(self, output: PipeOutput | TerminalOutput, events: int) -> None:
        self._pump(output)

    def _pump(self, output: PipeOutput | TerminalOutput, unfinished: Unfinished = "") -> None:
        self._patience.pop(output.name, NO_TIMER).cancel()
        if self._log is None or is_held_back(self._attached, unfinished):
            return
        left = output.pump(self._log, self._attached, unfinished)
        if left == "more":
            self._loop.later(0, functools.partial(self._pump, output))
        elif left == "a part":
            step = min(output.idle, len(_PATIENCE_SECONDS) - 1)
            tag: Unfinished = "P" if step == len(_PATIENCE_SECONDS) - 1 else ""
            again = functools.partial(self._pump, output, tag)
            self._patience[output.name] = self._loop.later(_PATIENCE_SECONDS[step], again)

    def attach(self, sock: socket.socket) -> None:
        def on_gone() -> None:
            self._attached.remove(attachment)

        attachment = Attachment(self._loop, sock, self._pump_all, on_gone)
        self._attached.append(attachment)
        if self._log is None:
            attachment.end()

    def _pump_all(self) -> None:
        for output in self._outputs:
            self._pump(output)

    def finish_stdin(self) -> None:
        """The container reads the end of its input."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def held(self) -> dict[str, int]:
        """The open descriptors by name."""
        named = {"terminal": self.terminal, "stdin": self.stdin}
        if self.terminal < 0:
            named.update({output.name: output.fd for output in self._outputs})
        return {name: fd for name, fd in named.items() if fd >= 0}

    def drain(self) -> None:
        """The container has ended: log all that is still there."""
        if self._log is None:
            return
        for output in self._outputs:
            while output.pump(self._log, self._attached, "F") != "nothing":
                pass

    def empty(self) -> bytes:
        """Take what is there without logging it: what a runtime that failed has said."""
        return b"".join(output.empty() for output in self._outputs if isinstance(output, PipeOutput))

    def close(self) -> None:
        for timer in self._patience.values():
            timer.cancel()
        for attachment in tuple(self._attached):
            attachment.end()
        for output in self._outputs:
            self._loop.unwatch(output.fd)
            os.close(output.fd)
        if not self._outputs and self.terminal >= 0:
            os.close(self.terminal)
        self._outputs, self.terminal = [], -1
        self.finish_stdin()
        if self._log is not None:
            self._log.close()
            self._log = None
