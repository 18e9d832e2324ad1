"""One resource request in hand: what every verb needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from dure.api.kind import Kind
from dure.apiserver.negotiation import PLAIN_JSON, Media
from dure.apiserver.ports import VerifiedUser
from dure.apiserver.requestinfo import RequestInfo
from dure.wire.http import Request


@dataclass(slots=True)
class Call:
    """An authorised request on `kind`; `warnings` go out as Warning headers."""

    request: Request
    info: RequestInfo
    user: VerifiedUser
    kind: Kind
    media: Media = PLAIN_JSON
    warnings: list[str] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """Empty for cluster-scoped kinds and for all namespaces."""
        return self.info.namespace if self.kind.namespaced else ""

    @property
    def name(self) -> str:
        return self.info.name
