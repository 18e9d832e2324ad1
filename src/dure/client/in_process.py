"""A transport that calls the API server's handler directly: decoded values pass through, nothing is encoded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from dure.client.transport import Answer, Call
from dure.core.aio import Scope
from dure.core.errors import ApiError, error_from_status
from dure.core.json import JSONDecodeError, loads
from dure.wire.http import Handler, Request, Response


class InProcessTransport:
    """Speaks to `handler` as `user`, for whom it vouches; `agent` is what managedFields name as the manager."""

    def __init__(self, handler: Handler, user: Any, agent: str = "dure") -> None:
        self._handler = handler
        self._user = user
        self._agent = agent

    def send(self, call: Call) -> Scope[Answer]:
        return self._send(call)

    @asynccontextmanager
    async def _send(self, call: Call) -> AsyncIterator[Answer]:
        headers = {"accept": "application/json", "user-agent": self._agent, **call.headers}
        if call.value is not None:
            headers["content-type"] = call.content_type
        request = Request(call.method, call.path, call.query, headers, value=call.value, user=self._user)
        answer = _Answer(await self._handler(request))
        try:
            if answer.status >= 400:
                raise answer.error()
            yield answer
        finally:
            await answer.close()


class _Answer:
    def __init__(self, response: Response) -> None:
        self._response = response
        self._values: AsyncIterator[Any] | None = None
        self.status = response.status

    async def value(self) -> Any:
        return self._whole()

    async def text(self) -> str:
        stream = self._response.stream
        if stream is None:
            return _joined(self._response.body).decode()
        return b"".join([chunk async for chunk in stream.chunks()]).decode()

    def values(self) -> AsyncIterator[Any]:
        assert self._response.stream is not None, "this answer does not go on"
        self._values = self._response.stream.values()
        return self._values

    def error(self) -> ApiError:
        try:
            status = self._whole()
        except JSONDecodeError:
            status = {"message": _joined(self._response.body).decode(errors="replace")}
        return error_from_status(status or {}, self.status)

    async def close(self) -> None:
        """Tell the stream that nobody reads on."""
        if (close := getattr(self._values, "aclose", None)) is not None:
            await close()

    def _whole(self) -> Any:
        if self._response.value is not None:
            return self._response.value
        body = _joined(self._response.body)
        return loads(body) if body else None


def _joined(body: bytes | Sequence[bytes | memoryview]) -> bytes:
    return body if isinstance(body, bytes) else b"".join(body)
