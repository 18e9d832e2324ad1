"""Service account tokens: what is signed is what is read, and nothing else is believed."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest

from dure.identity.tokens import TokenRefused, TokenSigner

ACCOUNT = {"metadata": {"namespace": "shop", "name": "orders", "uid": "u-1"}}
POD = {"metadata": {"name": "orders-1", "uid": "p-1"}}


def test_claims_come_back(tmp_path: Path) -> None:
    signer = TokenSigner(tmp_path / "key")
    token, ends = signer.issue(ACCOUNT, seconds=600, pod=POD)
    claims = signer.verify(token)
    assert (claims.user, claims.account_uid, claims.pod, claims.pod_uid, claims.expires) == (
        "system:serviceaccount:shop:orders",
        "u-1",
        "orders-1",
        "p-1",
        ends,
    )
    assert claims.groups == ("system:serviceaccounts", "system:serviceaccounts:shop")


def test_audience_must_match(tmp_path: Path) -> None:
    signer = TokenSigner(tmp_path / "key")
    token, _ = signer.issue(ACCOUNT, audiences=["vault"])
    assert signer.verify(token, ["vault"]).audiences == ("vault",)
    with pytest.raises(TokenRefused):
        signer.verify(token)


def test_ended_token_is_refused(tmp_path: Path) -> None:
    signer = TokenSigner(tmp_path / "key")
    token, _ = signer.issue(ACCOUNT, seconds=-60)
    with pytest.raises(TokenRefused, match="expired"):
        signer.verify(token)


def test_token_of_another_key_or_without_signature_is_refused(tmp_path: Path) -> None:
    signer, stranger = TokenSigner(tmp_path / "key"), TokenSigner(tmp_path / "other")
    claims = jwt.decode(stranger.issue(ACCOUNT)[0], options={"verify_signature": False})
    for token in (stranger.issue(ACCOUNT)[0], jwt.encode(claims, "", algorithm="none"), "a.b.c", ""):
        with pytest.raises(TokenRefused):
            signer.verify(token)


def test_key_stays_over_restarts(tmp_path: Path) -> None:
    token, _ = TokenSigner(tmp_path / "key").issue(ACCOUNT)
    assert TokenSigner(tmp_path / "key").verify(token).account == "orders"
