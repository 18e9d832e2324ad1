"""Writing kubeconfigs: the platform's own file, and a context merged into the user's.

Form: Kubernetes' `client.config/v1.Config`.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from dure.core.errors import ConfigError
from dure.identity.authority import KeyPair, write_private

_LISTS = ("clusters", "users", "contexts")


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def make_kubeconfig(name: str, server: str, authority: Path, client: KeyPair) -> dict[str, Any]:
    """A config with one cluster, user and context, all called `name`, certificates inside."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _base64(authority)}}],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": _base64(client.certificate),
                    "client-key-data": _base64(client.key),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def write_kubeconfig(path: Path, config: dict[str, Any]) -> None:
    """Only if it says something else; where `path` is a link, what it points to."""
    data = yaml.safe_dump(config, sort_keys=False).encode()
    if not path.exists() or path.read_bytes() != data:
        write_private(path.resolve(), data)


def _load(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a kubeconfig: {error}", "mend it or use --no-merge-kubeconfig") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} is not a kubeconfig", "mend it or use --no-merge-kubeconfig")
    return config


def merge_kubeconfig(path: Path, config: dict[str, Any]) -> None:
    """Put `config`'s context into the user's file and make it current; all else in it stays."""
    mine = _load(path)
    for key in _LISTS:
        names = {entry["name"] for entry in config[key]}
        kept = [entry for entry in mine.get(key) or [] if entry.get("name") not in names]
        mine[key] = [*kept, *config[key]]
    mine.setdefault("apiVersion", "v1")
    mine.setdefault("kind", "Config")
    mine.setdefault("preferences", {})
    mine["current-context"] = config["current-context"]
    write_kubeconfig(path, mine)


def unmerge_kubeconfig(path: Path, name: str) -> None:
    """Take the context `name` out of the user's file again, and the file away if nothing is left in it."""
    if not path.exists():
        return
    mine = _load(path)
    for key in _LISTS:
        mine[key] = [entry for entry in mine.get(key) or [] if entry.get("name") != name]
    if mine.get("current-context") == name:
        mine["current-context"] = mine["contexts"][0]["name"] if mine["contexts"] else ""
    if any(mine[key] for key in _LISTS):
        write_kubeconfig(path, mine)
    else:
        path.unlink()
