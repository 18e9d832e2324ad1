"""The composition of a server out of its parts; what a part needs is passed in here and nowhere else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from dure.api.kind import Kinds
from dure.apiserver.access import Access
from dure.apiserver.admission import Admission, Plugin
from dure.apiserver.allocators import ServiceAllocators
from dure.apiserver.authentication import Authentication
from dure.apiserver.bootstrap import Addresses, Bootstrap
from dure.apiserver.custom_kinds import CustomKinds
from dure.apiserver.discovery import Discovery
from dure.apiserver.health import Health
from dure.apiserver.openapi import OpenApi
from dure.apiserver.plugins.escalation import Escalation
from dure.apiserver.plugins.limit_ranges import LimitRanges
from dure.apiserver.plugins.namespace_lifecycle import NamespaceLifecycle
from dure.apiserver.plugins.priorities import Priorities
from dure.apiserver.plugins.service_accounts import ServiceAccounts
from dure.apiserver.ports import Dialer, NodeConnector, TokenIssuer
from dure.apiserver.proxy import NodeTunnels
from dure.apiserver.requestinfo import RequestInfo
from dure.apiserver.rest.deleting import Deleting
from dure.apiserver.rest.objects import Objects
from dure.apiserver.rest.pods import PodSubresources
from dure.apiserver.rest.reading import Reading
from dure.apiserver.rest.resources import Answer, Resources
from dure.apiserver.reviews import Reviews
from dure.apiserver.role_aggregation import RoleAggregation
from dure.apiserver.service_proxy import AddressProxy
from dure.apiserver.token_requests import TokenRequests
from dure.apiserver.watch_hub import WatchHub
from dure.core.clock import Clock, SystemClock
from dure.store.model import Store
from dure.wire.http import Request, Response


@dataclass(frozen=True, slots=True)
class Setup:
    """What a server is given: without `tokens` no bearer token is good, without `nodes` no tunnel opens."""

    clock: Clock = field(default_factory=SystemClock)
    tokens: TokenIssuer | None = None
    nodes: NodeConnector | None = None
    dialer: Dialer | None = None
    addresses: Addresses = field(default_factory=Addresses)
    public_address: str = "127.0.0.1:6443"


class Plain(Protocol):
    """Answers paths that are no resources; None when a path is not its own."""

    def answer(self, request: Request, info: RequestInfo) -> Response | None: ...


Scoped = Callable[[], AbstractAsyncContextManager[Any]]


@dataclass(slots=True)
class Parts:
    """A composed server: `scopes` are entered in order when it opens, `bootstrap` runs, then `services` do."""

    authentication: Authentication
    access: Access
    resources: Resources
    objects: Objects
    hub: WatchHub
    health: Health
    plain: Sequence[Plain]
    scopes: Sequence[Scoped]
    bootstrap: Callable[[], Awaitable[None]]
    services: Sequence[Scoped]


def build_parts(store: Store, kinds: Kinds, setup: Setup) -> Parts:
    _serve_old_reviews(kinds)
    access = Access(store)
    authentication = Authentication(store, setup.tokens)
    hub = WatchHub(store)
    health = Health(store)
    allocators = ServiceAllocators(store, setup.addresses.service_cidr)
    plugins: list[Plugin] = [NamespaceLifecycle(store, kinds), Escalation(access, kinds), *pod_plugins(store)]
    admission = Admission(plugins, [allocators])
    objects = Objects(store, kinds, setup.clock, admission)
    deleting = Deleting(objects, Reading(objects))
    special: dict[str, Answer] = {
        **Reviews(access, authentication).answers(),
        **PodSubresources(objects, deleting).answers(),
        **TokenRequests(objects, setup.tokens).answers(),
        **NodeTunnels(objects, setup.nodes).answers(),
        **AddressProxy(objects, setup.dialer).answers(),
    }
    return Parts(
        authentication=authentication,
        access=access,
        resources=Resources(objects, hub, access, special),
        objects=objects,
        hub=hub,
        health=health,
        plain=[Discovery(kinds, lambda: setup.public_address), OpenApi(kinds), health],
        scopes=[hub.opened, allocators.restored],
        bootstrap=Bootstrap(objects, kinds, setup.addresses).run,
        services=[RoleAggregation(objects).following, access.following, CustomKinds(objects, deleting).following],
    )


def pod_plugins(store: Store) -> list[Plugin]:
    """What is filled into pods, in upstream's order."""
    return [LimitRanges(store), ServiceAccounts(store), Priorities(store)]


def _serve_old_reviews(kinds: Kinds) -> None:
    """`kubectl auth whoami` up to 1.27 knows only the beta version."""
    current = kinds.at("authentication.k8s.io", "v1", "selfsubjectreviews")
    if current is not None and kinds.at("authentication.k8s.io", "v1beta1", "selfsubjectreviews") is None:
        kinds.add(replace(current, version="v1beta1"))
