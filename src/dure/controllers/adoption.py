"""Taking over objects that match a selector and have no controller, and letting go of those that match no longer.

Follows Kubernetes' ControllerRefManager: an orphan is adopted only while the owner is alive, a deleting one never.
"""

from __future__ import annotations

from collections.abc import Sequence

from dure.api.meta import controller_of, is_deleting, key_of, labels_of, namespace_of, owner_reference, uid_of
from dure.api.selectors import LabelSelector
from dure.client.client import Client
from dure.control.informer import Informer
from dure.controllers.shared import owned_by
from dure.core.errors import Invalid, NotFound
from dure.core.json import Obj


async def claim(client: Client, informer: Informer, resource: str, owner: Obj, selector: LabelSelector) -> list[Obj]:
    """The objects that are `owner`'s now: owned and matching, and orphans just adopted."""
    mine: list[Obj] = []
    for obj in owned_by(informer, owner):
        if selector.matches(labels_of(obj)) or is_deleting(owner):
            mine.append(obj)
        elif not is_deleting(obj):
            await _release(client, resource, obj, owner)
    if is_deleting(owner):
        return mine
    for obj in _orphans(informer, namespace_of(owner), selector):
        adopted = await _adopt(client, resource, obj, owner)
        if adopted is not None:
            mine.append(adopted)
    return mine


def _orphans(informer: Informer, namespace: str, selector: LabelSelector) -> Sequence[Obj]:
    return [
        obj
        for obj in informer.list(namespace)
        if controller_of(obj) is None and not is_deleting(obj) and selector.matches(labels_of(obj))
    ]


async def _adopt(client: Client, resource: str, obj: Obj, owner: Obj) -> Obj | None:
    references = [*(obj["metadata"].get("ownerReferences") or []), owner_reference(owner)]
    patch = {"metadata": {"uid": uid_of(obj), "ownerReferences": references}}
    try:
        return await client.patch(resource, obj["metadata"]["name"], namespace_of(obj), patch)
    except (NotFound, Invalid):
        return None  # it has gone, or another controller was faster


async def _release(client: Client, resource: str, obj: Obj, owner: Obj) -> None:
    references = [ref for ref in obj["metadata"].get("ownerReferences") or [] if ref["uid"] != uid_of(owner)]
    patch = {"metadata": {"uid": uid_of(obj), "ownerReferences": references or None}}
    namespace, name = key_of(obj)
    try:
        await client.patch(resource, name, namespace, patch)
    except (NotFound, Invalid):
        return  # nothing left to let go of
