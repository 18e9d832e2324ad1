"""The cluster's certificate authority: made at first start, kept in one folder, issuing short leaf certificates.

Keys are ECDSA P-256. A certificate's CN is the user, its O values are the groups (Kubernetes' X.509 authentication).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dure.core.errors import ConfigError

_BACKDATED = timedelta(minutes=5)
"""Clocks differ a little; a certificate is valid from shortly before it was made."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Paths of a PEM certificate and its key."""

    certificate: Path
    key: Path


def write_private(path: Path, data: bytes) -> None:
    """Write whole or not at all, readable by the owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(path)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_or_make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A P-256 key that stays the same over restarts."""
    if not path.exists():
        write_private(path, _pem_key(ec.generate_private_key(ec.SECP256R1())))
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is not an elliptic curve key", "move it away; a new one is made at the next start")
    return key


class Authority:
    """Issues certificates below `folder`; every file is made once and renewed before it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = load_or_make_key(folder / "ca.key")
        self.certificate_path = folder / "ca.crt"
        if not self.certificate_path.exists():
            write_private(self.certificate_path, self._self_signed())
        self._certificate = x509.load_pem_x509_certificate(self.certificate_path.read_bytes())

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate_path.read_bytes()

    def _self_signed(self) -> bytes:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dure-ca")])
        public = self._key.public_key()
        certificate = (
            _builder(name, name, public, timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, name: str, alternatives: Sequence[str], days: int = 365) -> KeyPair:
        """A serving certificate for DNS names and addresses; reissued when the list changes."""
        entries = [_general_name(text) for text in alternatives]
        return self._leaf(f"{name}-server", name, (), entries, ExtendedKeyUsageOID.SERVER_AUTH, days)

    def client(self, file: str, user: str, groups: Sequence[str] = (), days: int = 365) -> KeyPair:
        """A client certificate for `user` in `groups`, kept as `<file>.crt` and `<file>.key`."""
        return self._leaf(file, user, groups, [], ExtendedKeyUsageOID.CLIENT_AUTH, days)

    def _leaf(
        self,
        file: str,
        common_name: str,
        groups: Sequence[str],
        alternatives: list[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        days: int,
    ) -> KeyPair:
        pair = KeyPair(self._folder / f"{file}.crt", self._folder / f"{file}.key")
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        if self._still_good(pair, subject, alternatives):
            return pair
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject, self._certificate.subject, key.public_key(), timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        write_private(pair.key, _pem_key(key))
        write_private(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        return pair

    def _still_good(self, pair: KeyPair, subject: x509.Name, alternatives: list[x509.GeneralName]) -> bool:
        """Present, of this authority, not near its end, for the same user and hosts, and its key beside it."""
        if not (pair.certificate.exists() and pair.key.exists()):
            return False
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
        if certificate.issuer != self._certificate.subject or certificate.subject != subject:
            return False
        if certificate.public_key() != key.public_key():
            return False
        if certificate.not_valid_after_utc - datetime.now(UTC) < timedelta(days=30):
            return False
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        try:
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return not alternatives
        return list(found) == alternatives


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
