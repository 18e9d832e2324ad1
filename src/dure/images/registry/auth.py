"""A registry's challenges: Basic, and Bearer tokens of the distribution specification."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from dure.core.json import JSONDecodeError, loads
from dure.images.registry.endpoints import Login

_CHALLENGE = re.compile(r"\s*([A-Za-z]+)\s+(.*)")
_PARAMETER = re.compile(r'([a-zA-Z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
_TOKEN_LIMIT = 1 << 18


@dataclass(frozen=True, slots=True)
class Challenge:
    """`scheme` in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenge(header: str) -> Challenge | None:
    """The first challenge of a WWW-Authenticate header."""
    match = _CHALLENGE.match(header)
    if match is None:
        return None
    parameters = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(match[2])}
    return Challenge(match[1].lower(), parameters)


class Denied(Exception):
    """The registry or its token server does not let us in."""


class Authenticator:
    """Answers the challenges of one registry for one repository with one login, or none."""

    def __init__(self, session: aiohttp.ClientSession, repository: str, login: Login | None, *, plain: bool) -> None:
        self._session = session
        self._repository = repository
        self._login = login
        self._plain = plain
        self._header = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": self._header} if self._header else {}

    async def answer(self, header: str) -> bool:
        """Prepare for the challenge; False if there is nothing (more) to offer. Raises Denied, aiohttp.ClientError."""
        challenge = parse_challenge(header)
        if challenge is None:
            return False
        before = self._header
        if challenge.scheme == "basic" and self._login is not None:
            self._header = self._login.basic()
        elif challenge.scheme == "bearer":
            self._header = "Bearer " + await self._token(challenge.parameters)
        return self._header != before

    async def _token(self, parameters: dict[str, str]) -> str:
        realm = parameters.get("realm", "")
        scheme = urlsplit(realm).scheme
        if scheme != "https" and not (scheme == "http" and self._plain):
            raise Denied(f"the registry names a token server that is not to be trusted: {realm!r}")
        query = {"scope": parameters.get("scope") or f"repository:{self._repository}:pull"}
        if "service" in parameters:
            query["service"] = parameters["service"]
        headers = {"Authorization": self._login.basic()} if self._login is not None else {}
        async with self._session.get(realm, params=query, headers=headers) as response:
            body = await response.content.read(_TOKEN_LIMIT)
            if response.status in (401, 403):
                raise Denied(f"failed to authorize: failed to fetch token: {response.status} {response.reason}")
            try:
                answer = loads(body) if response.status == 200 else {}
            except JSONDecodeError:
                answer = {}
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise Denied(f"failed to authorize: the token server answered {response.status} without a token")
        return token
