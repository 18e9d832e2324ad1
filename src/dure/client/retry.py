"""Repeats what may be repeated: reads that got no answer, and whatever the server put off with Retry-After."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from dure.client.transport import Answer, Call, Transport
from dure.core.aio import Scope
from dure.core.errors import ApiError, TooManyRequests, TransportError, Unavailable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    attempts: int = 5
    first_seconds: float = 0.1
    most_seconds: float = 5.0
    patience_seconds: float = 30.0
    """A longer Retry-After than this is left to the caller."""


class RetryingTransport:
    """A stream that breaks after its answer began is the caller's business."""

    def __init__(self, inner: Transport, policy: RetryPolicy | None = None) -> None:
        self._inner = inner
        self._policy = policy or RetryPolicy()

    def send(self, call: Call) -> Scope[Answer]:
        return self._send(call)

    @asynccontextmanager
    async def _send(self, call: Call) -> AsyncIterator[Answer]:
        async with AsyncExitStack() as stack:
            yield await self._answer(call, stack)

    async def _answer(self, call: Call, stack: AsyncExitStack) -> Answer:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await stack.enter_async_context(self._inner.send(call))
            except (ApiError, TransportError) as error:
                wait = self._wait(error, attempt)
                if wait is None or attempt >= self._policy.attempts:
                    raise
            await asyncio.sleep(wait)

    def _wait(self, error: ApiError | TransportError, attempt: int) -> float | None:
        """Seconds until the next attempt; None when there must not be one."""
        policy = self._policy
        if isinstance(error, TransportError):
            longest = min(policy.most_seconds, policy.first_seconds * 2 ** (attempt - 1))
            return longest * random.uniform(0.5, 1) if error.repeatable else None
        if not isinstance(error, TooManyRequests | Unavailable) or error.retry_after is None:
            return None
        return float(error.retry_after) if error.retry_after <= policy.patience_seconds else None
