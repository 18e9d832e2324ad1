"""Config maps and secrets as bytes by key. Pure."""

from __future__ import annotations

import base64
import binascii

from dure.core.json import Obj


def config_map_data(config_map: Obj) -> dict[str, bytes]:
    """`data` and `binaryData` together."""
    texts = {name: value.encode() for name, value in (config_map.get("data") or {}).items()}
    return texts | {name: _decoded(value) for name, value in (config_map.get("binaryData") or {}).items()}


def secret_data(secret: Obj) -> dict[str, bytes]:
    return {name: _decoded(value) for name, value in (secret.get("data") or {}).items()}


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return b""  # the API server has checked it; nothing useful can be said here
