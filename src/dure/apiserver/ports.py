"""What the API server needs from identity and nodes; `apps/` passes the objects in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dure.core.errors import DureError
from dure.core.json import Obj
from dure.wire.http import Duplex

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"


@dataclass(frozen=True, slots=True)
class VerifiedUser:
    """Who a request is from. Only a verifier (certificate, token, in-process transport) makes one."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)


ANONYMOUS = VerifiedUser("system:anonymous", (UNAUTHENTICATED,))


class TokenClaims(Protocol):
    """What a token says whose signature, time and audience are good."""

    @property
    def namespace(self) -> str: ...
    @property
    def account(self) -> str: ...
    @property
    def account_uid(self) -> str: ...
    @property
    def audiences(self) -> tuple[str, ...]: ...
    @property
    def token_id(self) -> str: ...
    @property
    def pod(self) -> str:
        """Name of the pod the token is bound to, empty when it is not."""
        ...

    @property
    def pod_uid(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def groups(self) -> tuple[str, ...]: ...


class TokenIssuer(Protocol):
    """Signs and checks service account tokens."""

    @property
    def issuer(self) -> str: ...

    def issue(
        self, account: Obj, *, audiences: Sequence[str] = (), seconds: int = 3600, pod: Obj | None = None
    ) -> tuple[str, int]:
        """The token and when it ends, in seconds since the epoch. No audience means the API server's own."""
        ...

    def verify(self, token: str, audiences: Sequence[str] = ()) -> TokenClaims:
        """Raises a DureError when it is not this cluster's, has ended, or is for another audience.

        Whether the account and the pod still exist is for the caller to check.
        """
        ...


class NodeAway(DureError):
    """The node's agent cannot be reached; the text says how."""


class NodeConnector(Protocol):
    """Opens raw connections to the HTTP server of a node's agent."""

    async def open(self, node: str) -> Duplex:
        """A fresh connection; requests on it are rooted at `prefix(node)`. Raises NodeAway, OSError."""
        ...

    def prefix(self, node: str) -> str:
        """What goes before kubelet's paths, such as `/nodes/<node>`; may be empty."""
        ...


class Dialer(Protocol):
    """Reaches pod and service addresses from where the API server runs."""

    async def open(self, node: str, ip: str, port: int, *, tls: bool = False) -> Duplex:
        """A raw connection to a pod's address on `node`. Raises NodeAway, OSError."""
        ...
