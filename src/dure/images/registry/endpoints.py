"""Where a registry is reached, and with which credentials. Pure."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from dure.images.reference import DEFAULT_DOMAIN, Reference

_HUB = "registry-1.docker.io"
_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Registries:
    """Settings: `insecure` hosts (`host` or `host:port`) speak plain HTTP; `mirrors` maps a domain to a base URL."""

    insecure: frozenset[str] = frozenset()
    mirrors: Mapping[str, str] = field(default_factory=dict)

    def base_url(self, domain: str) -> str:
        """Without a closing slash. A registry on this machine itself speaks plain HTTP, as for Docker."""
        if domain in self.mirrors:
            return self.mirrors[domain].rstrip("/")
        host = _HUB if domain == DEFAULT_DOMAIN else domain
        return f"{'http' if self._is_plain(host) else 'https'}://{host}"

    def _is_plain(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        return host in self.insecure or name in self.insecure or _is_loopback(name)


NO_SETTINGS = Registries()


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Login:
    """A user's name and password; never shown."""

    username: str
    password: str = field(repr=False)

    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def logins_for(reference: Reference, credentials: Sequence[Mapping[str, str]]) -> list[Login]:
    """Those that are meant for the image's registry and repository, the most specific first."""
    fitting = []
    for entry in credentials:
        registry = entry.get("registry") or entry.get("server") or ""
        login = _login(entry)
        if login is not None and _is_meant(registry, reference):
            fitting.append((-len(registry), login))
    return list(_distinct(login for _, login in sorted(fitting, key=lambda pair: pair[0])))


def _distinct(logins: Iterable[Login]) -> Iterable[Login]:
    return dict.fromkeys(logins)


def _login(entry: Mapping[str, str]) -> Login | None:
    if entry.get("username"):
        return Login(entry["username"], entry.get("password", ""))
    try:
        text = base64.b64decode(entry.get("auth", ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    username, colon, password = text.partition(":")
    return Login(username, password) if colon else None


def _is_meant(registry: str, reference: Reference) -> bool:
    """The kubelet's rules: scheme and `/v1/` do not count, `*` is a part of the host, a path is a prefix."""
    text = registry.removeprefix("https://").removeprefix("http://").rstrip("/")
    for version in ("/v1", "/v2"):
        text = text.removesuffix(version)
    host, _, path = text.partition("/")
    if reference.domain == DEFAULT_DOMAIN:
        same = host in _HUB_NAMES
    else:
        same = host.count(".") == reference.domain.count(".") and fnmatchcase(reference.domain, host)
    return same and (not path or reference.path == path or reference.path.startswith(path + "/"))
