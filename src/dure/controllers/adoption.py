"""Taking over objects that match a selector and have no controller, and letting go of those that match no longer.

Follows Kubernetes' ControllerRefManager: an orphan is adopted only while the owner is alive, which is asked of
the API and not of the cache; a deleting object is never adopted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dure.api.meta import (
    ObjectKey,
    controller_of,
    gvk_of,
    is_deleting,
    key_of,
    labels_of,
    namespace_of,
    owner_reference,
    uid_of,
)
from dure.api.selectors import LabelSelector, from_label_selector
from dure.client.client import Client
from dure.control.informer import Informer
from dure.controllers.shared import orphans_in, owned_by
from dure.core.errors import Conflict, Invalid, NotFound
from dure.core.json import Obj


def wanted_by(owners: Informer) -> Callable[[Obj], list[ObjectKey]]:
    """For `watches`: the keys of the owners that may adopt an object nobody controls."""

    def keys(obj: Obj) -> list[ObjectKey]:
        if controller_of(obj) is not None:
            return []
        matching = []
        for owner in owners.list(namespace_of(obj)):
            selector = from_label_selector(owner["spec"].get("selector"))
            if selector and selector.matches(labels_of(obj)):
                matching.append(key_of(owner))
        return matching

    return keys


async def claim(client: Client, informer: Informer, owner: Obj, finalizers: Sequence[str] = ()) -> list[Obj]:
    """The objects that are `owner`'s by its selector: owned and matching, and orphans just adopted.

    What is adopted gets `finalizers`.
    """
    selector = from_label_selector(owner["spec"].get("selector")) or LabelSelector()
    mine: list[Obj] = []
    for obj in owned_by(informer, uid_of(owner)):
        if selector.matches(labels_of(obj)) or is_deleting(owner):
            mine.append(obj)
        elif not is_deleting(obj):
            await _release(client, informer.resource, obj, owner)
    orphans = _matching_orphans(informer, namespace_of(owner), selector)
    if not orphans or is_deleting(owner) or not await _is_alive(client, owner):
        return mine
    for obj in orphans:
        adopted = await _adopt(client, informer.resource, obj, owner, finalizers)
        if adopted is not None:
            mine.append(adopted)
    return mine


def _matching_orphans(informer: Informer, namespace: str, selector: LabelSelector) -> list[Obj]:
    return [obj for obj in orphans_in(informer, namespace) if not is_deleting(obj) and selector.matches(labels_of(obj))]


async def _is_alive(client: Client, owner: Obj) -> bool:
    kind = client.kinds.of(gvk_of(owner))
    assert kind is not None, "the owner came from this client"
    namespace, name = key_of(owner)
    try:
        found = await client.get(kind.resource, name, namespace)
    except NotFound:
        return False
    return uid_of(found) == uid_of(owner) and not is_deleting(found)


async def _adopt(client: Client, resource: str, obj: Obj, owner: Obj, finalizers: Sequence[str]) -> Obj | None:
    """None when it has gone, or another controller was faster: two controllers are refused by the server."""
    meta: dict[str, Any] = {"ownerReferences": [owner_reference(owner)]}
    return await _amend(client, resource, obj, meta | ({"finalizers": [*finalizers]} if finalizers else {}))


async def _release(client: Client, resource: str, obj: Obj, owner: Obj) -> None:
    await _amend(client, resource, obj, {"ownerReferences": [{"$patch": "delete", "uid": uid_of(owner)}]})


async def _amend(client: Client, resource: str, obj: Obj, meta: dict[str, Any]) -> Obj | None:
    namespace, name = key_of(obj)
    patch = {"metadata": {"uid": uid_of(obj), **meta}}
    try:
        return await client.patch(resource, name, namespace, patch, type="strategic")
    except (NotFound, Invalid, Conflict):
        return None
