"""Certificates: made once, renewed when what they say has changed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from dure.core.errors import ConfigError
from dure.identity.authority import Authority, KeyPair


def certificate(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def test_client_certificate_names_user_and_groups(tmp_path: Path) -> None:
    subject = certificate(Authority(tmp_path).client("me", "jane", ["devs", "ops"])).subject
    assert [item.value for item in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["jane"]
    assert [item.value for item in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["devs", "ops"]


def test_same_request_gives_the_same_certificate_also_after_a_restart(tmp_path: Path) -> None:
    first = certificate(Authority(tmp_path).client("me", "jane", ["devs"]))
    assert certificate(Authority(tmp_path).client("me", "jane", ["devs"])) == first


def test_other_groups_need_another_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first = certificate(authority.client("me", "jane", ["admins"]))
    assert certificate(authority.client("me", "jane")) != first


def test_server_certificate_follows_its_names(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.server("api", ["localhost", "127.0.0.1"])
    pair = authority.server("api", ["localhost", "127.0.0.1", "10.0.0.1"])
    names = certificate(pair).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "10.0.0.1"]


def test_keys_are_for_the_owner_only(tmp_path: Path) -> None:
    pair = Authority(tmp_path).client("me", "jane")
    assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600


def test_certificate_of_another_authority_is_replaced(tmp_path: Path) -> None:
    first = certificate(Authority(tmp_path).client("me", "jane"))
    (tmp_path / "ca.crt").unlink()
    (tmp_path / "ca.key").unlink()
    assert certificate(Authority(tmp_path).client("me", "jane")) != first


def test_a_key_of_another_kind_is_named(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "ca.key").write_bytes(pem)
    with pytest.raises(ConfigError, match=r"ca\.key is not an elliptic curve key"):
        Authority(tmp_path)
