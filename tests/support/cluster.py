"""A whole API server in this process, with a client that may do everything: what tests above the store stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dure.api.kind import Kinds
from dure.api.kinds import builtin_kinds
from dure.apiserver.parts import Setup
from dure.apiserver.ports import MASTERS, VerifiedUser
from dure.apiserver.server import ApiServer
from dure.client.client import Client
from dure.client.in_process import InProcessTransport
from dure.core.clock import LoopClock
from dure.store.memory import MemoryStore

ADMIN = VerifiedUser("test-admin", (MASTERS,))


def client_of(server: ApiServer, user: VerifiedUser = ADMIN) -> Client:
    """A client that speaks to `server` as `user`."""
    return Client(InProcessTransport(server.handle, user), server.kinds)


@asynccontextmanager
async def api_server(kinds: Kinds | None = None, setup: Setup | None = None) -> AsyncIterator[tuple[ApiServer, Client]]:
    """A bootstrapped server on a MemoryStore with the built-in kinds, and an administrator's client."""
    clock = LoopClock()
    server = ApiServer(MemoryStore(clock=clock), kinds or builtin_kinds(), setup or Setup(clock=clock))
    async with server.opened():
        yield server, client_of(server)
