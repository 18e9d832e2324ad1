"""Settings: names derived from the data folder, and what cannot work is refused before anything starts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dure.core.errors import ConfigError
from dure.core.settings import Settings


def test_default_folder_has_the_plain_name() -> None:
    settings = Settings("/var/lib/dure")
    assert (settings.instance, settings.api_url, settings.dns_ip) == ("dure", "https://127.0.0.1:6443", "10.96.0.10")


def test_other_folders_have_names_of_their_own(tmp_path: Path) -> None:
    names = {Settings(str(tmp_path / name)).instance for name in "abc"}
    assert len(names) == 3
    assert all(len(name) == len("dure-1234") for name in names)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path), nodes=3, port_offset=7, stand_ins=True)
    settings.save()
    assert Settings.load(tmp_path) == settings


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cluster_cidr": "10.0.0.0/33"}, "cluster_cidr '10.0.0.0/33' is not an IPv4 network"),
        ({"service_cidr": "10.244.1.0/24"}, "cluster_cidr 10.244.0.0/16 and service_cidr 10.244.1.0/24 overlap"),
        ({"cluster_cidr": "10.9.0.0/24"}, "too small"),
        ({"nodes": 17}, "from 0 to 16"),
        ({"nodes": 0}, "leaves no node"),
        ({"port_offset": -1}, "--port-offset"),
    ],
)
def test_what_cannot_work_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        replace(Settings("/x"), **change).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"x', "settings.json is damaged: "),
        ("[]", "settings.json is damaged: not a mapping"),
        ('{"nodes": "x"}', "settings.json is damaged: nodes is 'x'"),
        ('{"stand_ins": 1}', "settings.json is damaged: stand_ins is 1"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(says)):
        Settings.load(tmp_path)


def test_settings_of_a_newer_version_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"nodes": 3, "zone": "x"}')
    assert Settings.load(tmp_path) == Settings(str(tmp_path), nodes=3)
