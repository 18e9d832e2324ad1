"""Whether a user may do what a request asks: the policy kept true by a watch, and the refusals' wording."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dure.apiserver.ports import ANONYMOUS, AUTHENTICATED, MASTERS, VerifiedUser
from dure.apiserver.rbac import Action, Policy
from dure.apiserver.requestinfo import RequestInfo
from dure.core.aio import running
from dure.core.errors import Forbidden, Unauthorized
from dure.core.json import loads
from dure.store.model import Compacted, Event, Store
from dure.wire.http import Request

log = logging.getLogger(__name__)

_PREFIX = "rbac.authorization.k8s.io/"
_OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version")
_TUNNELS = frozenset({"exec", "attach", "portforward"})


def action_of(info: RequestInfo) -> Action:
    if not info.is_resource:
        return Action(info.verb if info.verb != "head" else "get", path=info.path)
    return Action(
        info.verb, info.group, info.resource, info.subresource, info.namespace, info.name or info.selected_name
    )


def refusal_text(user: VerifiedUser, action: Action) -> str:
    """`User "u" cannot list resource "pods" in API group "" in the namespace "default"`."""
    if action.path:
        return f'User "{user.name}" cannot {action.verb} path "{action.path}"'
    where = f'in the namespace "{action.namespace}"' if action.namespace else "at the cluster scope"
    return (
        f'User "{user.name}" cannot {action.verb} resource "{action.full_resource}" '
        f'in API group "{action.group}" {where}'
    )


def forbidden(user: VerifiedUser, action: Action) -> Forbidden:
    text = refusal_text(user, action)
    if action.path:
        return Forbidden(f"forbidden: {text}", details={})
    resource = f"{action.resource}.{action.group}" if action.group else action.resource
    shown = f' "{action.name}"' if action.name else ""
    details = {"name": action.name} if action.name else {}
    if action.group:
        details["group"] = action.group
    details["kind"] = action.resource
    return Forbidden(f"{resource}{shown} is forbidden: {text}", details=details)


class Access:
    """Authorization of requests by RBAC; `system:masters` may do everything."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.policy = Policy()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Load the policy and keep it true while the block lasts."""
        revision = await self._load()
        async with running(self._follow(revision)):
            yield

    async def _load(self) -> int:
        page = await self._store.list(_PREFIX)
        policy = Policy()
        for record in page.records:
            policy.put(loads(record.value))
        self.policy = policy
        return page.revision

    async def _follow(self, revision: int) -> None:
        while True:
            try:
                async with self._store.watch(_PREFIX, since=revision) as events:
                    while True:
                        for event in await events.take():
                            self._apply(event)
            except Compacted:
                log.warning("the policy fell behind and is read anew")
                revision = await self._load()

    def _apply(self, event: Event) -> None:
        obj = loads(event.record.value)
        if event.type == "DELETED":
            self.policy.remove(obj)
        else:
            self.policy.put(obj)

    def allows(self, user: VerifiedUser, action: Action) -> bool:
        return MASTERS in user.groups or self.policy.allows(user, action)

    def require(self, user: VerifiedUser, info: RequestInfo, request: Request) -> None:
        """Raises Forbidden, or Unauthorized for nobody in particular."""
        if MASTERS in user.groups:
            return
        if user is ANONYMOUS:
            if not info.path.startswith(_OPEN_PATHS):
                raise Unauthorized("Unauthorized")
            return
        action = action_of(info)
        self.demand(user, action)
        if info.subresource in _TUNNELS and info.verb == "get" and "upgrade" in request.headers:
            self.demand(user, Action("create", *_place(action)))

    def demand(self, user: VerifiedUser, action: Action) -> None:
        """Raises Forbidden."""
        if not self.allows(user, action):
            raise forbidden(user, action)

    def impersonated(self, user: VerifiedUser, request: Request) -> VerifiedUser:
        """Whom the request is to count as from. Raises Forbidden."""
        name = request.headers.get("impersonate-user", "")
        if not name or request.user is not None:
            return user
        groups = [text.strip() for text in request.headers.get("impersonate-group", "").split(",") if text.strip()]
        if name.startswith("system:serviceaccount:") and name.count(":") == 3:
            _, _, namespace, account = name.split(":")
            self.demand(user, Action("impersonate", "", "serviceaccounts", "", namespace, account))
            groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        else:
            self.demand(user, Action("impersonate", "", "users", name=name))
        for group in groups:
            self.demand(user, Action("impersonate", "", "groups", name=group))
        return VerifiedUser(name, tuple(dict.fromkeys([*groups, AUTHENTICATED])))


def _place(action: Action) -> tuple[str, str, str, str, str]:
    return action.group, action.resource, action.subresource, action.namespace, action.name
