"""Registry credentials of a pod: its imagePullSecrets, in Docker's two forms."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from dure.core.json import JSONDecodeError, Obj, loads
from dure.node.payload import secret_data
from dure.node.references import References


async def pull_credentials(pod: Obj, references: References) -> list[dict[str, str]]:
    """`{registry, username, password}` of each entry; secrets that are missing are passed over, as by kubelet."""
    found: list[dict[str, str]] = []
    for ref in pod["spec"].get("imagePullSecrets") or []:
        secret = await references.get("secrets", pod["metadata"].get("namespace", ""), ref.get("name", ""))
        if secret is not None:
            found.extend(parse_docker_config(secret))
    return found


def parse_docker_config(secret: Obj) -> list[dict[str, str]]:
    data = secret_data(secret)
    try:
        if ".dockerconfigjson" in data:
            entries: Any = loads(data[".dockerconfigjson"]).get("auths") or {}
        else:
            entries = loads(data.get(".dockercfg", b"{}"))
    except (JSONDecodeError, AttributeError):
        return []
    if not isinstance(entries, Mapping):
        return []
    return [
        credential
        for registry, entry in entries.items()
        if isinstance(entry, Mapping) and (credential := _credential(str(registry), entry))
    ]


def _credential(registry: str, entry: Mapping[str, Any]) -> dict[str, str] | None:
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if not username and entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        username, _, password = text.partition(":")
    return {"registry": registry, "username": username, "password": password} if username else None
