"""The API server: one request in, one answer out, each concern a step of its own.

Steps: what is it about, who sends it, may they, which part answers; errors become Status objects here and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from dure.api.kind import Kinds
from dure.apiserver.access import Access
from dure.apiserver.authentication import Authentication
from dure.apiserver.call import Call
from dure.apiserver.errors import unknown_path
from dure.apiserver.negotiation import PROTOBUF, choose_media
from dure.apiserver.parts import Parts, Setup, build_parts
from dure.apiserver.ports import VerifiedUser
from dure.apiserver.representation import json_response, protobuf_response
from dure.apiserver.requestinfo import RequestInfo, read_request_info
from dure.core.errors import ApiError, InternalError
from dure.core.ids import new_uid
from dure.store.model import Store, StoreFull
from dure.wire.http import Request, Response

log = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ApiServer:
    """Open it before use: `async with server.opened(): ... await server.handle(request)`."""

    def __init__(self, store: Store, kinds: Kinds, setup: Setup | None = None) -> None:
        self._setup = setup or Setup()
        self._parts: Parts = build_parts(store, kinds, self._setup)
        self._authentication: Authentication = self._parts.authentication
        self._access: Access = self._parts.access
        self.kinds = kinds
        self.store = store

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[ApiServer]:
        """Runs what the server needs beside requests, and makes the objects every cluster has."""
        async with AsyncExitStack() as stack:
            for scope in self._parts.scopes:
                await stack.enter_async_context(scope())
            await self._parts.bootstrap()
            for service in self._parts.services:
                await stack.enter_async_context(service())
            self._parts.health.ready = True
            try:
                yield self
            finally:
                self._parts.health.ready = False

    async def handle(self, request: Request) -> Response:
        """Never raises an ApiError or a bug: both are answered as Status."""
        info = read_request_info(request)
        warnings: list[str] = []
        try:
            response = await self._answer(request, info, warnings)
        except ApiError as error:
            response = _refusal(request, error)
        except StoreFull as error:
            response = _refusal(request, InternalError(f"Internal error occurred: {error}"))
        except Exception:
            log.exception("request failed", extra={"method": request.method, "path": request.path})
            response = _refusal(request, InternalError("Internal error occurred: the server has logged the cause"))
        if request.user is None:
            _complete(request, response, warnings)
            self._parts.health.count(info, response.status)
        return response

    async def _answer(self, request: Request, info: RequestInfo, warnings: list[str]) -> Response:
        user = await self._authentication.user_of(request)
        user = self._access.impersonated(user, request)
        self._access.require(user, info, request)
        if info.is_resource:
            return await self._resource(request, info, user, warnings)
        for part in self._parts.plain:
            response = part.answer(request, info)
            if response is not None:
                return response
        raise unknown_path()

    async def _resource(self, request: Request, info: RequestInfo, user: VerifiedUser, warnings: list[str]) -> Response:
        kind = self.kinds.at(info.group, info.version, info.resource)
        if kind is None or (info.namespace and not kind.namespaced and kind.resource != "namespaces"):
            raise unknown_path()
        media = choose_media(request.headers.get("accept", ""), binary=kind.custom is None)
        return await self._parts.resources.answer(Call(request, info, user, kind, media, warnings))


def _refusal(request: Request, error: ApiError) -> Response:
    status = error.to_status()
    if request.user is not None:
        return Response(error.code, value=status)
    wants_protobuf = request.headers.get("accept", "").startswith(PROTOBUF)
    response = protobuf_response(status) if wants_protobuf else json_response(status)
    response.status = error.code
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.code == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="kubernetes-master"'
    return response


def _complete(request: Request, response: Response, warnings: list[str]) -> None:
    """Headers every answer on the wire carries."""
    response.headers["Audit-Id"] = request.headers.get("audit-id") or new_uid()
    if warnings:
        response.headers["Warning"] = ", ".join(_warning(text) for text in dict.fromkeys(warnings))


def _warning(text: str) -> str:
    escaped = "".join(char for char in text if char.isprintable()).replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'
