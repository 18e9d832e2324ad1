"""Service account tokens: signed JSON web tokens that name an account, an audience and, if bound, a pod.

Claims follow Kubernetes' bound service account tokens (KEP-1205); signatures are ES256 (RFC 7518).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization

from dure.core.errors import DureError
from dure.core.ids import new_uid
from dure.core.json import Obj
from dure.identity.authority import load_or_make_key

ISSUER = "https://kubernetes.default.svc.cluster.local"


class TokenRefused(DureError):
    """Not signed by this cluster, ended, or for another audience."""


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a verified token says. Whoever trusts it also checks that the account and the pod still exist."""

    namespace: str
    account: str
    account_uid: str
    audiences: tuple[str, ...]
    expires: int
    token_id: str
    pod: str = ""
    pod_uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.account}"

    @property
    def groups(self) -> tuple[str, ...]:
        return ("system:serviceaccounts", f"system:serviceaccounts:{self.namespace}")


class TokenSigner:
    """Signs and checks tokens with one key kept at `key_path`."""

    def __init__(self, key_path: Path, issuer: str = ISSUER) -> None:
        self._key = load_or_make_key(key_path)
        self._public = self._key.public_key()
        self.issuer = issuer

    def issue(
        self, account: Obj, *, audiences: Sequence[str] = (), seconds: int = 3600, pod: Obj | None = None
    ) -> tuple[str, int]:
        """The token and when it ends, in seconds since the epoch. No audience means the API server's own."""
        now = int(time.time())
        meta = account["metadata"]
        private: dict[str, Any] = {
            "namespace": meta["namespace"],
            "serviceaccount": {"name": meta["name"], "uid": meta["uid"]},
        }
        if pod is not None:
            private["pod"] = {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        claims = {
            "iss": self.issuer,
            "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
            "aud": list(audiences) or [self.issuer],
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
            "jti": new_uid(),
            "kubernetes.io": private,
        }
        return jwt.encode(claims, self._key, algorithm="ES256"), now + seconds

    def verify(self, token: str, audiences: Sequence[str] = ()) -> TokenClaims:
        """Raises TokenRefused. The audience must be one of `audiences`, by default the API server's own."""
        try:
            claims = jwt.decode(
                token,
                self._public,
                algorithms=["ES256"],
                audience=list(audiences) or [self.issuer],
                issuer=self.issuer,
                leeway=10,
                options={"require": ["exp", "iat", "sub", "aud"]},
            )
            private = claims["kubernetes.io"]
            pod = private.get("pod") or {}
            return TokenClaims(
                namespace=private["namespace"],
                account=private["serviceaccount"]["name"],
                account_uid=private["serviceaccount"]["uid"],
                audiences=tuple(claims["aud"]),
                expires=claims["exp"],
                token_id=claims.get("jti", ""),
                pod=pod.get("name", ""),
                pod_uid=pod.get("uid", ""),
            )
        except (jwt.InvalidTokenError, KeyError, TypeError) as error:
            raise TokenRefused(f"token refused: {error}") from error

    def public_pem(self) -> bytes:
        """The verification key."""
        return self._public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
