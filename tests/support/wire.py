"""Requests as the wire gives them, without a socket: for what only remote clients see."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dure.core.json import dumps, loads
from dure.wire.http import Handler, Request, Response


@cache
def certificate(user: str, *groups: str) -> bytes:
    """DER of a client certificate that names a user; who signed it is the wire's business, not the handler's."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, user)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


class Remote:
    """Speaks to a handler like a client with a certificate."""

    def __init__(self, handler: Handler, user: str = "admin", *groups: str) -> None:
        self._handler = handler
        self._certificate = certificate(user, *(groups or ("system:masters",))) if user else None

    async def ask(self, method: str, target: str, body: Any = None, **headers: str) -> Response:
        """Header names with underscores for dashes; a body that is not bytes goes as JSON."""
        path, _, query = target.partition("?")
        data = body if isinstance(body, bytes) else b"" if body is None else dumps(body)
        request = Request(
            method,
            path,
            parse_qs(query, keep_blank_values=True),
            {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}},
            data,
            peer_certificate=self._certificate,
            raw_target=target,
        )
        return await self._handler(request)

    async def value(self, method: str, target: str, body: Any = None, **headers: str) -> Any:
        return decoded(await self.ask(method, target, body, **headers))


def decoded(response: Response) -> Any:
    """The JSON an answer carries."""
    body = response.body if isinstance(response.body, bytes) else b"".join(response.body)
    return loads(body)


async def frames(response: Response, count: int) -> list[Any]:
    """The first `count` events of a watch, as they come over the wire."""
    assert response.stream is not None, decoded(response)
    found: list[Any] = []
    chunks = response.stream.chunks()
    async for chunk in chunks:
        found += [loads(line) for line in chunk.splitlines()]
        if len(found) >= count:
            break
    await chunks.aclose()  # type: ignore[attr-defined]
    return found
