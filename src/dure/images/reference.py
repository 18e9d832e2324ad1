"""Image references: parsing and Docker's normalisation.

Grammar of github.com/distribution/reference: `[domain/]path[:tag][@digest]`; a first part without
`.`, `:` or capital letters, other than `localhost`, is no domain, and Docker Hub is meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dure.images.errors import InvalidImageName

DEFAULT_DOMAIN = "docker.io"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z")
_TAG = re.compile(r"[\w][\w.-]{0,127}\Z", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_HEX_ID = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised reference; `tag` is "latest" when neither tag nor digest was given, "" beside a digest."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        text = self.name
        if self.tag:
            text += f":{self.tag}"
        if self.digest:
            text += f"@{self.digest}"
        return text

    @property
    def name(self) -> str:
        """Without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """As people write it: without `docker.io/library/`."""
        text = str(self)
        for prefix in (f"{DEFAULT_DOMAIN}/library/", f"{DEFAULT_DOMAIN}/"):
            if text.startswith(prefix):
                return text[len(prefix) :]
        return text


def is_digest(text: str) -> bool:
    return _DIGEST.match(text) is not None


def parse_reference(text: str) -> Reference:
    """Raises InvalidImageName; the message is the one the kubelet puts into its event."""
    try:
        return _parse(text)
    except InvalidImageName as error:
        raise InvalidImageName(
            f'Failed to apply default image tag "{text}": couldn\'t parse image name "{text}": {error}'
        ) from None


def _parse(text: str) -> Reference:
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.match(digest):
        raise InvalidImageName("invalid reference format: the digest is not sha256:<64 hex digits>")
    domain, rest = _split_domain(rest)
    slash = rest.rfind("/")
    colon = rest.rfind(":")
    path, tag = (rest[:colon], rest[colon + 1 :]) if colon > slash else (rest, "")
    if colon > slash and not _TAG.match(tag):
        raise InvalidImageName("invalid reference format")
    if path != path.lower() and _PATH.match(path.lower()):
        raise InvalidImageName("invalid reference format: repository name must be lowercase")
    if not _PATH.match(path):
        raise InvalidImageName("invalid reference format")
    if not at and "/" not in path and domain == DEFAULT_DOMAIN and _HEX_ID.match(path):
        raise InvalidImageName("invalid reference format: a name may not be 64 hex digits")
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    if len(f"{domain}/{path}") > 255:
        raise InvalidImageName("invalid reference format: repository name must not be more than 255 characters")
    if not tag and not digest:
        tag = "latest"
    return Reference(domain, path, "" if digest else tag, digest)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    is_domain = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    if not is_domain:
        return DEFAULT_DOMAIN, text
    if not _DOMAIN.match(first):
        raise InvalidImageName("invalid reference format")
    return ("docker.io" if first == "index.docker.io" else first), rest
