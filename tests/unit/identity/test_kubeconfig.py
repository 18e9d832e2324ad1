"""Merging a context into the user's kubeconfig, and taking it out again."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dure.core.errors import ConfigError
from dure.identity.authority import Authority
from dure.identity.kubeconfig import make_kubeconfig, merge_kubeconfig, unmerge_kubeconfig

OTHER = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "work", "cluster": {"server": "https://work"}}],
    "users": [{"name": "work", "user": {"token": "x"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "work"}}],
    "current-context": "work",
}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, object]:
    authority = Authority(tmp_path / "pki")
    return make_kubeconfig("dure", "https://127.0.0.1:6443", authority.certificate_path, authority.client("a", "admin"))


def test_others_contexts_stay(tmp_path: Path, config: dict[str, object]) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(OTHER))
    merge_kubeconfig(path, config)
    merge_kubeconfig(path, config)
    merged = yaml.safe_load(path.read_text())
    assert [entry["name"] for entry in merged["contexts"]] == ["work", "dure"]
    assert merged["current-context"] == "dure"
    unmerge_kubeconfig(path, "dure")
    left = yaml.safe_load(path.read_text())
    assert (left["contexts"], left["current-context"]) == (OTHER["contexts"], "work")


def test_a_file_of_our_own_goes_away(tmp_path: Path, config: dict[str, object]) -> None:
    path = tmp_path / "config"
    merge_kubeconfig(path, config)
    unmerge_kubeconfig(path, "dure")
    assert not path.exists()


def test_a_broken_file_is_named_and_left_alone(tmp_path: Path, config: dict[str, object]) -> None:
    path = tmp_path / "config"
    path.write_text("{: not yaml")
    with pytest.raises(ConfigError, match="is not a kubeconfig"):
        merge_kubeconfig(path, config)
    assert path.read_text() == "{: not yaml"
