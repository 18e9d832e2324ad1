"""A client for a platform's API, from its kubeconfig: what the commands use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dure.api.kinds import builtin_kinds
from dure.client.client import Client
from dure.client.kubeconfig import transport_from_kubeconfig
from dure.core.settings import Settings


@asynccontextmanager
async def open_client(settings: Settings) -> AsyncIterator[Client]:
    """As the platform's administrator. Raises ConfigError without a kubeconfig."""
    async with transport_from_kubeconfig(settings.kubeconfig) as transport:
        yield Client(transport, builtin_kinds())
