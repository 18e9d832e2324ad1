"""From a kubeconfig, or a pod's service account, to a transport.

Form: Kubernetes' `client.config/v1.Config`; the folder and environment of in-cluster clients.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from dure.client.credentials import Fresh, tls_context, tls_files, token_file
from dure.client.http import HttpTransport
from dure.client.retry import RetryingTransport
from dure.client.transport import Transport
from dure.core.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@asynccontextmanager
async def transport_from_kubeconfig(path: Path | str, context: str = "") -> AsyncIterator[Transport]:
    """An open transport to the file's current context, or to `context`. Raises ConfigError."""
    async with http_from_kubeconfig(Path(path), context) as transport:
        yield RetryingTransport(transport)


@asynccontextmanager
async def transport_in_cluster(folder: Path = SERVICE_ACCOUNT) -> AsyncIterator[Transport]:
    """For a program in a pod: its service account's token, renewed by the node. Raises ConfigError."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (folder / "token").exists():
        raise ConfigError("this is not a pod with a service account", "give a kubeconfig instead")
    shown = f"[{host}]" if ":" in host else host
    tls, token = tls_files(folder / "ca.crt"), token_file(folder / "token")
    async with HttpTransport(f"https://{shown}:{port}", tls=tls, token=token) as transport:
        yield RetryingTransport(transport)


def http_from_kubeconfig(path: Path, context: str = "") -> HttpTransport:
    """Not opened yet. Raises ConfigError naming what is missing."""
    config = _load(path)
    chosen = context or str(config.get("current-context") or "")
    if not chosen:
        raise ConfigError(f"{path} has no current context", "choose one: kubectl config use-context")
    where = _named(config, "contexts", chosen, path)
    cluster = _named(config, "clusters", str(where.get("cluster") or ""), path)
    user = _named(config, "users", str(where["user"]), path) if where.get("user") else {}
    server = str(cluster.get("server") or "")
    if not server.startswith(("http://", "https://")):
        raise ConfigError(f"{path}: cluster {where.get('cluster')!r} has no server URL", "mend the kubeconfig")
    return HttpTransport(
        server,
        tls=_tls(cluster, user, path) if server.startswith("https://") else None,
        token=_token(user, path),
        server_name=str(cluster.get("tls-server-name") or ""),
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is not there", "start the platform with `dure up`, or name a kubeconfig") from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a kubeconfig: {error}", "mend it, or name another") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} is not a kubeconfig", "mend it, or name another")
    return config


def _named(config: dict[str, Any], section: str, name: str, path: Path) -> dict[str, Any]:
    for entry in config.get(section) or ():
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry.get(section.removesuffix("s")) or {}
    raise ConfigError(f"{path}: nothing named {name!r} among {section}", "mend the kubeconfig")


def _tls(cluster: dict[str, Any], user: dict[str, Any], path: Path) -> Callable[[], ssl.SSLContext]:
    authority = _Material(cluster, "certificate-authority", path)
    certificate = _Material(user, "client-certificate", path)
    key = _Material(user, "client-key", path)
    verify = not cluster.get("insecure-skip-tls-verify")

    def make() -> ssl.SSLContext:
        trusted = authority.read()
        return tls_context(trusted.decode() if trusted else None, certificate.read(), key.read(), verify=verify)

    fresh = Fresh(tuple(m.path for m in (authority, certificate, key) if m.path is not None), make)
    fresh()  # a bad certificate is told at once, not at the first request
    return fresh


def _token(user: dict[str, Any], path: Path) -> Callable[[], str] | None:
    if user.get("tokenFile"):
        return token_file(path.parent / str(user["tokenFile"]))
    if user.get("token"):
        return lambda: str(user["token"])
    for unsupported in ("exec", "auth-provider"):
        if user.get(unsupported):
            raise ConfigError(f"{path}: users with {unsupported!r} are not supported", "use a token or certificate")
    return None


class _Material:
    """PEM given inline (`<name>-data`) or as a path beside the kubeconfig."""

    def __init__(self, entry: dict[str, Any], name: str, config: Path) -> None:
        self._data = str(entry.get(f"{name}-data") or "")
        self._name = name
        self._config = config
        self.path = config.parent / str(entry[name]) if not self._data and entry.get(name) else None

    def read(self) -> bytes | None:
        try:
            if self._data:
                return base64.b64decode(self._data, validate=True)
            return self.path.read_bytes() if self.path is not None else None
        except (OSError, binascii.Error) as error:
            raise ConfigError(f"{self._config}: {self._name}: {error}", "mend the kubeconfig") from error
