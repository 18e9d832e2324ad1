"""What the network rooms need from the control kit: a read-only cache of one kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dure.api.meta import ObjectKey
from dure.core.json import Obj

Changed = Callable[[Obj | None, Obj | None], None]


class Cache(Protocol):
    """`dure.control.informer.Informer` as it is used here; objects are frozen."""

    async def wait_synced(self) -> None: ...

    def get(self, key: ObjectKey) -> Obj | None: ...

    def list(self, namespace: str = "") -> Sequence[Obj]: ...

    def by_index(self, name: str, value: str) -> Sequence[Obj]: ...

    def on_change(self, callback: Changed) -> Any:
        """`callback(old, new)` on the loop, after the cache has changed."""
        ...


BY_SERVICE = "service"
"""Name of the index that an EndpointSlice cache must have, made with `service_of_slice`."""

SERVICE_NAME = "kubernetes.io/service-name"


def service_of_slice(endpoint_slice: Obj) -> list[str]:
    """The key `<namespace>/<service>` that an EndpointSlice belongs to."""
    meta = endpoint_slice["metadata"]
    name = (meta.get("labels") or {}).get(SERVICE_NAME)
    return [f"{meta.get('namespace', '')}/{name}"] if name else []
