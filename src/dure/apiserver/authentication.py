"""Who sends a request: client certificate (CN is the user, O the groups) or service account token.

Kubernetes' rules: everybody identified is in `system:authenticated`; a bad credential is 401, none is anonymous.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import NameOID

from dure.apiserver.ports import ANONYMOUS, AUTHENTICATED, TokenClaims, TokenIssuer, VerifiedUser
from dure.core.errors import DureError, Unauthorized
from dure.core.json import loads
from dure.store.model import KeyNotFound, Store
from dure.wire.http import Request

log = logging.getLogger(__name__)

_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_CREDENTIAL = "authentication.kubernetes.io/credential-id"


@lru_cache(maxsize=256)
def user_of_certificate(der: bytes) -> VerifiedUser:
    """The user a verified client certificate names."""
    subject = x509.load_der_x509_certificate(der).subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names:
        raise Unauthorized("Unauthorized")
    organizations = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return _authenticated(VerifiedUser(str(names[0].value), tuple(str(item.value) for item in organizations)))


def _authenticated(user: VerifiedUser) -> VerifiedUser:
    return user if AUTHENTICATED in user.groups else replace(user, groups=(*user.groups, AUTHENTICATED))


class Authentication:
    """Turns a request into a VerifiedUser; checks that a token's account and pod still exist."""

    def __init__(self, store: Store, tokens: TokenIssuer | None) -> None:
        self._store = store
        self._tokens = tokens

    async def user_of(self, request: Request) -> VerifiedUser:
        """Raises Unauthorized for a credential that is not good."""
        if isinstance(request.user, VerifiedUser):
            return _authenticated(request.user)
        if request.peer_certificate is not None:
            return user_of_certificate(request.peer_certificate)
        token = _bearer(request)
        if not token:
            return ANONYMOUS
        user = await self.user_of_token(token)
        if user is None:
            raise Unauthorized("Unauthorized")
        return user

    async def user_of_token(self, token: str, audiences: Sequence[str] = ()) -> VerifiedUser | None:
        """None when the token is not good for these audiences, or its account or pod has gone."""
        if self._tokens is None:
            return None
        try:
            claims = self._tokens.verify(token, audiences)
        except DureError as error:
            log.info("token refused", extra={"error": str(error)})
            return None
        if not await self._still_there(claims):
            log.info("token refused", extra={"user": claims.user, "error": "its account or pod has gone"})
            return None
        return _authenticated(VerifiedUser(claims.user, claims.groups, claims.account_uid, _extra(claims)))

    async def _still_there(self, claims: TokenClaims) -> bool:
        account = f"core/serviceaccounts/{claims.namespace}/{claims.account}"
        if not await self._has(account, claims.account_uid):
            return False
        pod = f"core/pods/{claims.namespace}/{claims.pod}"
        return not claims.pod or await self._has(pod, claims.pod_uid)

    async def _has(self, key: str, uid: str) -> bool:
        try:
            record = await self._store.get(key)
        except KeyNotFound:
            return False
        return bool(loads(record.value)["metadata"]["uid"] == uid)


def _extra(claims: TokenClaims) -> dict[str, list[str]]:
    extra = {_CREDENTIAL: [f"JTI={claims.token_id}"]} if claims.token_id else {}
    if claims.pod:
        extra |= {_POD_NAME: [claims.pod], _POD_UID: [claims.pod_uid]}
    return extra


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return _websocket_bearer(request)


def _websocket_bearer(request: Request) -> str:
    """Browsers cannot set headers on a WebSocket: the token then comes as a subprotocol."""
    prefix = "base64url.bearer.authorization.k8s.io."
    for offered in request.headers.get("sec-websocket-protocol", "").split(","):
        if offered.strip().startswith(prefix):
            text = offered.strip().removeprefix(prefix)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            except ValueError:
                return ""
    return ""
