"""Service account tokens for projected volumes: asked of the API, renewed at 80 % of their life or after a day."""

from __future__ import annotations

import random
from dataclasses import dataclass

from dure.client.client import Client
from dure.core.clock import Clock, parse_rfc3339
from dure.core.errors import ApiError, TransportError
from dure.core.json import Obj
from dure.node.volumes.errors import Missing

RENEW_AT = 0.8
LONGEST_SECONDS = 24 * 3600.0
DEFAULT_SECONDS = 3607


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    renew_at: float


class TokenSource:
    """The tokens of one pod, each kept until it is to be renewed."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._tokens: dict[tuple[str, int], Token] = {}

    async def get(self, pod: Obj, source: Obj) -> str:
        """A token bound to the pod. Raises VolumeFailure."""
        seconds = int(source.get("expirationSeconds") or DEFAULT_SECONDS)
        key = (source.get("audience") or "", seconds)
        known = self._tokens.get(key)
        if known is None or self._clock.time() >= known.renew_at:
            known = await self._request(pod, *key)
            self._tokens[key] = known
        return known.text

    @property
    def renew_at(self) -> float | None:
        """When the first of the tokens handed out is due."""
        return min((token.renew_at for token in self._tokens.values()), default=None)

    async def _request(self, pod: Obj, audience: str, seconds: int) -> Token:
        meta, account = pod["metadata"], pod["spec"].get("serviceAccountName") or "default"
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
            },
        }
        try:
            answer = await self._client.create_at("serviceaccounts", account, meta["namespace"], "token", body)
        except (ApiError, TransportError) as error:
            raise Missing(f"failed to fetch token: {error}") from error
        status, now = answer["status"], self._clock.time()
        life = parse_rfc3339(status["expirationTimestamp"]) - now
        jitter = random.uniform(0, min(10.0, life * 0.01))
        return Token(status["token"], now + min(life * RENEW_AT, LONGEST_SECONDS) - jitter)
