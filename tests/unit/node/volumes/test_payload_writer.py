"""The all-at-once layout of payload volumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dure.node.volumes.errors import BadPath
from dure.node.volumes.payload_writer import PayloadFile, write_payload


def files(**contents: str) -> dict[str, PayloadFile]:
    return {name: PayloadFile(text.encode(), 0o640) for name, text in contents.items()}


def test_names_lead_through_one_link_to_the_set(tmp_path: Path) -> None:
    assert write_payload(tmp_path, {**files(a="1"), "sub/b": PayloadFile(b"2", 0o400)}, "..2001")
    assert (tmp_path / "..data").readlink() == Path("..2001")
    assert (tmp_path / "a").readlink() == Path("..data/a")
    assert (tmp_path / "sub/b").read_bytes() == b"2"
    assert (tmp_path / "sub/b").stat().st_mode & 0o777 == 0o400


def test_a_new_set_replaces_the_old_one_at_once(tmp_path: Path) -> None:
    write_payload(tmp_path, files(a="1", b="1"), "..2001")
    assert write_payload(tmp_path, files(b="2", c="2"), "..2002")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["..2002", "..data", "b", "c"]
    assert (tmp_path / "b").read_text() == "2"


def test_the_same_set_changes_nothing(tmp_path: Path) -> None:
    write_payload(tmp_path, files(a="1"), "..2001")
    assert not write_payload(tmp_path, files(a="1"), "..2002")
    assert (tmp_path / "..data").readlink() == Path("..2001")


def test_an_interrupted_write_is_overtaken(tmp_path: Path) -> None:
    write_payload(tmp_path, files(a="1"), "..2001")
    (tmp_path / "..2002").mkdir()
    (tmp_path / "..data_tmp").symlink_to("..2002")
    write_payload(tmp_path, files(a="2"), "..2003")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["..2003", "..data", "a"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "..data", "", "a//b", "a\0b"])
def test_paths_that_would_leave_the_volume_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadPath):
        write_payload(tmp_path, {path: PayloadFile(b"", 0o644)}, "..2001")
    assert list(tmp_path.iterdir()) == []
