"""A container's log for a client: the end of it or all, once or as it grows.

What has rotated away from the newest file is read first. Following ends when the container has ended and all it wrote
has been given; it waits for word from the kernel and the runtime and never polls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dure.core.aio import closing, running
from dure.core.clock import parse_rfc3339, rfc3339_nano
from dure.core.errors import BadRequest
from dure.node.access.inotify import FolderWatch
from dure.node.access.log_files import Sieve, log_files, start_of_tail
from dure.node.access.ports import Found
from dure.node.ports import Runtime
from dure.wire.http import Request

log = logging.getLogger(__name__)

_READ_BYTES = 256 * 1024
_STREAMS = {"": b"", "All": b"", "Stdout": b"stdout", "Stderr": b"stderr"}
_PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


@dataclass(frozen=True, slots=True)
class LogOptions:
    """`core/v1.PodLogOptions`. `since` is a time as it stands in a log."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None
    limit: int | None = None
    since: bytes = b""
    stream: bytes = b""

    @classmethod
    def of(cls, request: Request, now: float) -> LogOptions:
        """Raises BadRequest."""
        stream = request.param("stream")
        if stream not in _STREAMS:
            raise BadRequest(f'stream: Unsupported value: "{stream}": supported values: "All", "Stderr", "Stdout"')
        return cls(
            follow=_flag(request, "follow"),
            previous=_flag(request, "previous"),
            timestamps=_flag(request, "timestamps"),
            tail=_number(request, "tailLines", 0),
            limit=_number(request, "limitBytes", 1),
            since=_since(request, now),
            stream=_STREAMS[stream],
        )


def _flag(request: Request, name: str) -> bool:
    return name in request.query and request.param(name).lower() not in ("0", "false")


def _number(request: Request, name: str, least: int) -> int | None:
    text = request.param(name)
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        raise BadRequest(f'{name}: Invalid value: "{text}": must be a number') from None
    if number < least:
        raise BadRequest(f"{name}: Invalid value: {number}: must be greater than or equal to {least}")
    return number


def _since(request: Request, now: float) -> bytes:
    seconds, time = _number(request, "sinceSeconds", 1), request.param("sinceTime")
    if seconds is not None and time:
        raise BadRequest("at most one of `sinceTime` or `sinceSeconds` may be specified")
    if seconds is not None:
        return rfc3339_nano(int(max(now - seconds, 0) * 1e9)).encode()
    if not time:
        return b""
    try:
        return rfc3339_nano(int(parse_rfc3339(time) * 1e9)).encode()
    except ValueError:
        raise BadRequest(f'sinceTime: Invalid value: "{time}": must be an RFC 3339 time') from None


def open_log(found: Found, pod: str, runtime: Runtime, options: LogOptions) -> LogStream:
    """Raises BadRequest in the kubelet's words when there is no such run."""
    if options.previous:
        if not found.previous_log_path or not log_files(Path(found.previous_log_path)):
            raise BadRequest(f'previous terminated container "{found.container}" in pod "{pod}" not found')
        return LogStream(Path(found.previous_log_path), options, runtime, "")
    if not found.container_id and not log_files(Path(found.log_path)):
        reason = "trying and failing to pull image" if found.waiting in _PULL_REASONS else found.waiting
        why = f"is waiting to start: {reason}" if reason else "is not available"
        raise BadRequest(f'container "{found.container}" in pod "{pod}" {why}')
    return LogStream(Path(found.log_path), options, runtime, found.container_id if found.running else "")


class LogStream:
    """The bytes of a log; a `Stream` for HTTP. `container_id` is empty when nothing more will be written."""

    def __init__(self, path: Path, options: LogOptions, runtime: Runtime, container_id: str) -> None:
        self._path, self._options, self._runtime, self._container_id = path, options, runtime, container_id
        self._sieve = Sieve(options.timestamps, options.since, options.stream, options.limit)
        self._ended = asyncio.Event()

    async def values(self) -> AsyncIterator[bytes]:
        async with closing(self.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._options.follow and self._container_id and self._path.parent.is_dir():
            follow = self._follow()
        else:
            follow = self._read_once()
        async with closing(follow) as chunks:
            async for chunk in chunks:
                yield chunk
                if self._sieve.exhausted:
                    return

    async def _read_once(self) -> AsyncIterator[bytes]:
        with contextlib.closing(Cursor(self._path, self._options.tail)) as cursor:
            while lines := cursor.read():
                yield self._sieve.render(lines)
                await asyncio.sleep(0)  # a long log must not keep others waiting

    async def _follow(self) -> AsyncIterator[bytes]:
        with (
            FolderWatch(self._path.parent) as watch,
            contextlib.closing(Cursor(self._path, self._options.tail)) as cursor,
        ):
            async with running(self._watch_end(watch.changed)):
                while True:
                    ended = self._ended.is_set()  # asked before reading: all is written before the end is told
                    watch.changed.clear()
                    while lines := cursor.read():
                        yield self._sieve.render(lines)
                        await asyncio.sleep(0)
                    if ended:
                        return
                    await watch.changed.wait()

    async def _watch_end(self, wake: asyncio.Event) -> None:
        async with self._runtime.events() as events:
            states = {state.id: state.state for state in await self._runtime.containers()}
            if states.get(self._container_id) in ("created", "running"):
                async for state in events:
                    if state.id == self._container_id and state.state == "exited":
                        break
        self._ended.set()
        wake.set()


class Cursor:
    """Reads whole lines of a log from where its tail begins, through rotations."""

    def __init__(self, path: Path, tail: int | None) -> None:
        self._path = path
        self._files: list[BinaryIO] = []
        self._rest = b""
        self._newest = 0
        files = log_files(path)
        first, offset = (0, 0) if tail is None else start_of_tail(files, tail)
        for file in files[first:]:
            self._open(file)
        if self._files and offset:
            self._files[0].seek(offset)

    def _open(self, path: Path) -> None:
        try:
            self._files.append(path.open("rb"))
        except FileNotFoundError:
            log.debug("log file has gone", extra={"path": path})

    def read(self) -> list[bytes]:
        """Some lines with their newlines; empty when there are none now."""
        while True:
            if not self._files and not self._reopen():
                return []
            data = self._files[0].read(_READ_BYTES)
            if not data:
                if len(self._files) == 1 and not self._reopen():
                    return []
                self._files.pop(0).close()
                continue
            *lines, self._rest = (self._rest + data).split(b"\n")
            if lines:
                return [line + b"\n" for line in lines]

    def _reopen(self) -> bool:
        """Whether there is a newer file than the last one open, which is open then."""
        try:
            newest = self._path.stat().st_ino
        except FileNotFoundError:
            return False
        if self._files and newest == _inode(self._files[-1]):
            return False
        before = len(self._files)
        self._open(self._path)
        return len(self._files) > before

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files.clear()


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino
