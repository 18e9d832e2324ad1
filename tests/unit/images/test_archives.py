"""Layers: hostile archives leave nothing behind, and a folder always gives the same tar."""

import contextlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dure.images.archive import digest_layer, write_layer
from dure.images.errors import ArchiveRefused
from dure.images.extract import Limits, extract_layer

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", **fields: object) -> Entry:
    info = tarfile.TarInfo(name)
    info.size, info.uid, info.gid, info.mode = len(data), os.getuid(), os.getgid(), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def link(name: str, target: str) -> Entry:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> Entry:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def folder(name: str, mode: int = 0o755) -> Entry:
    return entry(name, type=tarfile.DIRTYPE, mode=mode)


def archive(*entries: Entry) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def unpack(root: Path, *entries: Entry, limits: Limits | None = None) -> None:
    root.mkdir(exist_ok=True)
    extract_layer(io.BytesIO(archive(*entries)), root, limits or Limits())


def test_files_links_and_folders_are_unpacked(tmp_path: Path) -> None:
    unpack(
        tmp_path / "r",
        *(folder("d", 0o750), entry("d/f", b"hello", mode=0o4711, mtime=5), link("l", "/d"), hard_link("h", "d/f")),
        *(entry("made/on/the/way", b"x"), entry("./dot", b"y"), entry("/rooted", b"z")),
    )
    root = tmp_path / "r"
    assert (root / "d/f").read_bytes() == b"hello"
    assert (root / "d/f").stat().st_mode & 0o7777 == 0o4711
    assert ((root / "d/f").stat().st_mtime, (root / "d/f").stat().st_nlink) == (5, 2)
    assert ((root / "d").stat().st_mode & 0o777, (root / "l").readlink()) == (0o750, Path("/d"))
    assert sorted(path.name for path in root.iterdir()) == ["d", "dot", "h", "l", "made", "rooted"]


def test_links_to_folders_inside_are_followed_within_the_root(tmp_path: Path) -> None:
    """Debian's merged /usr: /bin is a link, and layers write to bin/…"""
    unpack(tmp_path / "r", folder("usr"), folder("usr/bin"), link("bin", "/usr/bin"), entry("bin/sh", b"#!"))
    assert (tmp_path / "r/usr/bin/sh").read_bytes() == b"#!"


def test_folders_behind_a_link_are_made(tmp_path: Path) -> None:
    unpack(tmp_path / "r", folder("var"), link("var/run", "../run/now"), entry("var/run/x/f", b"1"))
    assert (tmp_path / "r/run/now/x/f").read_bytes() == b"1"


def attack_dotdot(root: Path, victim: Path) -> None:
    unpack(root, entry(f"../{victim.name}", b"bad"))


def attack_link_then_file(root: Path, victim: Path) -> None:
    unpack(root, link("out", str(victim.parent)), entry(f"out/{victim.name}", b"bad"))


def attack_link_over_file(root: Path, victim: Path) -> None:
    unpack(root, link("f", str(victim)), entry("f", b"bad"))


def attack_hard_link_outside(root: Path, victim: Path) -> None:
    unpack(root, hard_link("f", str(victim)), entry("f", b"bad"))


def attack_hard_link_dotdot(root: Path, victim: Path) -> None:
    unpack(root, hard_link("f", f"../{victim.name}"), entry("f", b"bad"))


def attack_hard_link_through_link(root: Path, victim: Path) -> None:
    unpack(root, link("out", ".."), hard_link("f", f"out/{victim.name}"), entry("f", b"bad"))


def attack_folder_mode_through_link(root: Path, victim: Path) -> None:
    unpack(root, link("d", str(victim.parent)), folder("d", 0o777))


def attack_relative_chain(root: Path, victim: Path) -> None:
    unpack(root, folder("a"), link("a/up", "../.."), link("b", "a/up/../.."), entry(f"b/{victim.name}", b"bad"))


def attack_proc_magic(root: Path, victim: Path) -> None:
    unpack(root, link("p", f"/proc/self/root{victim.parent}"), entry(f"p/{victim.name}", b"bad"))


@pytest.mark.parametrize(
    "attack",
    [
        *(attack_dotdot, attack_link_then_file, attack_link_over_file, attack_hard_link_outside),
        *(attack_hard_link_dotdot, attack_hard_link_through_link, attack_folder_mode_through_link),
        *(attack_relative_chain, attack_proc_magic),
    ],
)
def test_hostile_archive_reaches_nothing_outside(tmp_path: Path, attack: Callable[[Path, Path], None]) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"good")
    tmp_path.chmod(0o700)
    with contextlib.suppress(ArchiveRefused):
        attack(tmp_path / "root", victim)
    assert victim.read_bytes() == b"good"
    assert victim.stat().st_nlink == 1
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_device_called_overlay_attributes_is_not_taken(tmp_path: Path) -> None:
    headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y"}
    unpack(tmp_path / "r", entry("f", b"x", pax_headers=headers))
    assert os.listxattr(tmp_path / "r/f") == []


@pytest.mark.parametrize(
    ("entries", "limits"),
    [
        ([entry("a", b"12345")], Limits(bytes=4)),
        ([entry("a"), entry("b"), entry("c")], Limits(entries=2)),
        ([entry(".wh.")], Limits()),
        ([entry(".wh...")], Limits()),
        ([hard_link("a", "missing")], Limits()),
        ([hard_link("a", "")], Limits()),
        ([folder("d"), hard_link("a", "d")], Limits()),
        ([entry("x" * 300)], Limits()),
        ([entry("f", b""), entry("f/below", b"")], Limits()),
        ([link("a", "b"), link("b", "a"), entry("a/x")], Limits()),
        ([link("a", "a/b"), entry("a/x")], Limits()),
        ([entry("a", uid=1 << 33)], Limits()),
    ],
)
def test_impossible_archive_is_refused(
    tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], limits: Limits
) -> None:
    with pytest.raises((ArchiveRefused, PermissionError)):
        unpack(tmp_path / "r", *entries, limits=limits)


def test_cut_archive_is_refused(tmp_path: Path) -> None:
    data = archive(entry("a", b"x" * 5000))
    with pytest.raises(ArchiveRefused):
        extract_layer(io.BytesIO(data[:3000]), tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_archive_is_refused_or_stays_inside(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    top = tmp_path_factory.mktemp("damage")
    whole = bytearray(archive(folder("d"), link("l", "/d"), entry("d/f", b"abc"), hard_link("h", "d/f")))
    for position in data.draw(st.lists(st.integers(0, 2600), min_size=1, max_size=6)):
        whole[position] = data.draw(st.integers(0, 255))
    (top / "root").mkdir()
    with contextlib.suppress(ArchiveRefused, PermissionError):
        extract_layer(io.BytesIO(bytes(whole)), top / "root", Limits(bytes=1 << 20, entries=100))
    assert [path.name for path in top.iterdir()] == ["root"]


def fill(root: Path) -> None:
    (root / "b/c").mkdir(parents=True)
    (root / "a").write_bytes(b"1" * 600)
    (root / "b/한글").write_text("이름")
    (root / ("long-" * 30)).write_text("x")
    (root / "b/link").symlink_to("../a")
    os.link(root / "a", root / "b/c/same")
    for path in [root, *root.rglob("*")]:
        os.utime(path, (1000, 1000), follow_symlinks=False)


def test_a_folder_survives_the_way_through_a_tar(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    fill(tmp_path / "one")
    pieces: list[bytes] = []
    write_layer(tmp_path / "one", pieces.append)
    (tmp_path / "two").mkdir()
    extract_layer(io.BytesIO(b"".join(pieces)), tmp_path / "two")
    assert digest_layer(tmp_path / "two") == digest_layer(tmp_path / "one")
    assert (tmp_path / "two/b/한글").read_text() == "이름"
    assert (tmp_path / "two/b/c/same").stat().st_nlink == 2


def test_a_layer_tar_is_a_tar_for_everyone(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    fill(tmp_path / "one")
    pieces: list[bytes] = []
    write_layer(tmp_path / "one", pieces.append)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert tar.getnames() == ["a", "b", "b/c", "b/c/same", "b/link", "b/한글", "long-" * 30]
