"""ClusterRoles made of others: rules are gathered by label selector and written into the object."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dure.api.selectors import from_label_selector
from dure.apiserver.rest.objects import Change, Objects
from dure.core.aio import running
from dure.core.errors import NotFound
from dure.core.json import Obj, thaw
from dure.store.model import Compacted

log = logging.getLogger(__name__)


def gathered_rules(role: Obj, roles: list[Obj]) -> list[Obj]:
    """The rules of all roles the aggregation rule selects, in name order, each once."""
    selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or []
    rules: list[Obj] = []
    for selector in map(from_label_selector, selectors):
        for other in sorted(roles, key=lambda item: str(item["metadata"]["name"])):
            if other["metadata"]["name"] == role["metadata"]["name"] or selector is None:
                continue
            if selector.matches(other["metadata"].get("labels")):
                rules += [rule for rule in other.get("rules") or [] if rule not in rules]
    return rules


class RoleAggregation:
    """Follows ClusterRoles while its block lasts."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        revision = self._objects.store.revision
        await self.settle()
        async with running(self._follow(revision)):
            yield

    async def _follow(self, revision: int) -> None:
        kind = self._objects.kinds.resource("clusterroles.rbac.authorization.k8s.io")
        store = self._objects.store
        while True:
            try:
                async with store.watch(kind.prefix(), since=revision) as events:
                    while True:
                        await events.take()
                        await self.settle()
            except Compacted:
                log.warning("role aggregation fell behind and starts anew")
                revision = store.revision
                await self.settle()

    async def settle(self) -> None:
        """Bring every aggregated role to what its selectors say, also through roles that are aggregated themselves."""
        kind = self._objects.kinds.resource("clusterroles.rbac.authorization.k8s.io")
        decode = self._objects.codec(kind).decode
        while True:
            page = await self._objects.store.list(kind.prefix())
            roles = [decode(record) for record in page.records]
            stale = [role for role in roles if role.get("aggregationRule") and _is_stale(role, roles)]
            if not stale:
                return
            for role in stale:
                try:
                    await self._objects.amend(
                        kind, "", role["metadata"]["name"], _with_rules(gathered_rules(role, roles))
                    )
                except NotFound:
                    continue


def _with_rules(rules: list[Obj]) -> Change:
    return lambda old: {**thaw(old), "rules": rules}


def _is_stale(role: Obj, roles: list[Obj]) -> bool:
    return (role.get("rules") or []) != gathered_rules(role, roles)
