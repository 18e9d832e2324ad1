"""Names and ids in Kubernetes' forms."""

from __future__ import annotations

import secrets
import uuid

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' alphabet for generated names: no vowels, so no words."""


def new_uid() -> str:
    return str(uuid.uuid4())


def random_suffix(length: int = 5) -> str:
    """The random end of a generated name."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def fnv32a(data: bytes) -> int:
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def safe_encode(text: str) -> str:
    """Digits mapped into the name alphabet, as for `pod-template-hash`."""
    return "".join(_ALPHABET[ord(char) % len(_ALPHABET)] for char in text)
