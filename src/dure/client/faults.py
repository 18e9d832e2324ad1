"""A transport that fails on purpose, as networks and servers do, for tests and drills."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from dure.client.transport import Answer, Call, Transport
from dure.core.aio import Scope, closing
from dure.core.errors import ApiError, TransportError


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one call."""

    delay_seconds: float = 0.0
    error: ApiError | TransportError | None = None
    """Raised instead of sending."""
    loses_answer: bool = False
    """The server does it, the answer never arrives."""
    cut_after: int | None = None
    """A stream breaks after so many frames."""


NO_FAULT = Fault()


class FaultyTransport:
    """Asks `faults` about every call."""

    def __init__(self, inner: Transport, faults: Callable[[Call], Fault]) -> None:
        self._inner = inner
        self._faults = faults

    def send(self, call: Call) -> Scope[Answer]:
        return self._send(call)

    @asynccontextmanager
    async def _send(self, call: Call) -> AsyncIterator[Answer]:
        fault = self._faults(call)
        if fault.delay_seconds:
            await asyncio.sleep(fault.delay_seconds)
        if fault.error is not None:
            raise fault.error
        async with self._inner.send(call) as answer:
            if fault.loses_answer:
                raise _lost(call)
            yield answer if fault.cut_after is None else _CutAnswer(answer, call, fault.cut_after)


class _CutAnswer:
    def __init__(self, inner: Answer, call: Call, frames: int) -> None:
        self._inner = inner
        self._call = call
        self._frames = frames
        self.status = inner.status

    async def value(self) -> Any:
        return await self._inner.value()

    async def text(self) -> str:
        return await self._inner.text()

    async def values(self) -> AsyncIterator[Any]:
        left = self._frames
        async with closing(self._inner.values()) as frames:
            while left and (frame := await anext(frames, None)) is not None:
                left -= 1
                yield frame
        raise _lost(self._call)


def by_chance(
    chance: random.Random, *, refuse: float = 0.0, lose: float = 0.0, cut: float = 0.0
) -> Callable[[Call], Fault]:
    """Faults with these probabilities; equal seeds give equal faults."""

    def choose(call: Call) -> Fault:
        if chance.random() < refuse:
            return Fault(error=TransportError(f"{call.method} {call.path}: connection refused", repeatable=True))
        if chance.random() < lose:
            return Fault(loses_answer=True)
        if chance.random() < cut:
            return Fault(cut_after=chance.randrange(5))
        return NO_FAULT

    return choose


def _lost(call: Call) -> TransportError:
    return TransportError(f"{call.method} {call.path}: connection lost", repeatable=call.method == "GET")
