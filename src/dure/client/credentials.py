"""Credentials in files that others renew: read again when a file has changed, never more often.

A bearer token file as in Kubernetes' projected service account tokens; certificates as in a kubeconfig.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from dure.core.errors import ConfigError

T = TypeVar("T")


class Fresh(Generic[T]):
    """A value made from files; made anew when one of them changes."""

    def __init__(self, paths: tuple[Path, ...], make: Callable[[], T]) -> None:
        self._paths = paths
        self._make = make
        self._seen: tuple[tuple[int, int, int], ...] | None = None
        self._value: T

    def __call__(self) -> T:
        seen = tuple(_identity(path) for path in self._paths)
        if seen != self._seen:
            self._value = self._make()
            self._seen = seen
        return self._value


def token_file(path: Path) -> Callable[[], str]:
    return Fresh((path,), lambda: path.read_text().strip())


def tls_files(
    authority: Path, certificate: Path | None = None, key: Path | None = None
) -> Callable[[], ssl.SSLContext]:
    """A client context that trusts `authority` only and shows `certificate`, if there is one."""

    def make() -> ssl.SSLContext:
        shown = (certificate.read_bytes(), key.read_bytes()) if certificate and key else (None, None)
        return tls_context(authority.read_text(), *shown)

    return Fresh(tuple(path for path in (authority, certificate, key) if path), make)


def tls_context(
    authority: str | None, certificate: bytes | None = None, key: bytes | None = None, *, verify: bool = True
) -> ssl.SSLContext:
    """From PEM texts; without an authority the system's. Raises ConfigError."""
    try:
        context = ssl.create_default_context(cadata=authority)
        if certificate and key:
            with _in_memory(certificate + b"\n" + key) as path:
                context.load_cert_chain(path)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"a certificate or key cannot be used: {error}", "check the kubeconfig") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path for what must not touch a disk: OpenSSL takes private keys by path only."""
    descriptor = os.memfd_create("credentials")
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int, int]:
    """Changes with every rewrite, also by an atomic exchange of links."""
    try:
        stat = path.stat()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "check the kubeconfig") from error
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
