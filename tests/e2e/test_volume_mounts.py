"""Volumes that need the kernel: tmpfs for secrets and memory, subPath anchors, and that nothing stays mounted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dure.node.pods.ports import VolumeFailure
from dure.node.volumes.kernel import KernelMounter, mounts_below
from dure.node.volumes.service import remove_volumes
from dure.node.volumes.subpath import fix_subpath

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")]


def test_tmpfs_is_limited_and_leaves_nothing(tmp_path: Path) -> None:
    mounter, target = KernelMounter(), tmp_path / "pod/volumes/kind/cache dir"
    mounter.tmpfs(target, mode=0o777, size_bytes=1 << 20)
    mounter.tmpfs(target, mode=0o777, size_bytes=1 << 20)
    try:
        assert mounts_below(tmp_path) == [str(target)]
        assert target.stat().st_mode & 0o777 == 0o777
        with pytest.raises(OSError, match="No space left"):
            (target / "big").write_bytes(bytes(2 << 20))
    finally:
        remove_volumes(tmp_path / "pod", mounter)
    assert mounts_below(tmp_path) == []
    assert not (tmp_path / "pod/volumes").exists()


def test_a_sub_path_stays_what_it_was_when_it_was_checked(tmp_path: Path) -> None:
    """Swapping the folder for a link after the check must not move the mount."""
    mounter, volume, anchor = KernelMounter(), tmp_path / "data", tmp_path / "pod/volume-subpaths/v/app/0"
    (volume / "sub").mkdir(parents=True)
    (volume / "sub/mine").write_text("x")
    try:
        assert fix_subpath(str(volume), "sub", anchor, mounter, read_only=False) == str(anchor)
        (volume / "sub").rename(volume / "moved")
        (volume / "sub").symlink_to("/etc")
        assert [entry.name for entry in anchor.iterdir()] == ["mine"]
        with pytest.raises(VolumeFailure, match="leads out"):
            fix_subpath(str(volume), "sub/ssl", anchor.parent / "1", mounter, read_only=False)
    finally:
        remove_volumes(tmp_path / "pod", mounter)
    assert mounts_below(tmp_path) == []
    assert (volume / "moved/mine").exists()


def test_a_single_file_can_be_a_sub_path(tmp_path: Path) -> None:
    mounter, volume, anchor = KernelMounter(), tmp_path / "data", tmp_path / "pod/volume-subpaths/v/app/0"
    volume.mkdir()
    (volume / "..data").mkdir()
    (volume / "..data/conf").write_text("x")
    (volume / "conf").symlink_to("..data/conf")
    try:
        assert Path(fix_subpath(str(volume), "conf", anchor, mounter, read_only=True)).read_text() == "x"
    finally:
        remove_volumes(tmp_path / "pod", mounter)
    assert mounts_below(tmp_path) == []
