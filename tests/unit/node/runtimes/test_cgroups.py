"""Which hierarchies a host has, and what is written where."""

from __future__ import annotations

from pathlib import Path

import pytest

from dure.core.errors import ConfigError
from dure.node.ports import Resources, Usage
from dure.node.runtimes.oci.cgroups import CgroupsV1, CgroupsV2, Hierarchies, Signs, cpu_weight, parse_hierarchies

CONTROLLERS = (
    "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\ncpuacct\t2\t1\t1\nmemory\t4\t9\t1\npids\t8\t1\t1\n"
)
V1 = (
    "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
    "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
    "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
    "cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n"
)
V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"
LIMITS = Resources(cpu_shares=512, cpu_quota=50_000, memory_bytes=1 << 20, pids=10)


def test_a_v1_host_is_recognised() -> None:
    found = parse_hierarchies(V1, CONTROLLERS)
    both = "/sys/fs/cgroup/cpu,cpuacct"
    assert found == Hierarchies(
        mode="v1",
        controllers={"cpu": both, "cpuacct": both, "memory": "/sys/fs/cgroup/memory"},
        roots=(both, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/systemd"),
    )


def test_a_hybrid_host_is_recognised() -> None:
    found = parse_hierarchies(V1 + "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n", CONTROLLERS)
    assert (found.mode, found.unified, found.roots[-1]) == (
        "hybrid",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/unified",
    )


def test_a_v2_host_is_recognised() -> None:
    found = parse_hierarchies(V2, CONTROLLERS)
    assert found == Hierarchies("v2", {}, ("/sys/fs/cgroup",), "/sys/fs/cgroup")


def test_a_host_without_cgroups_is_refused() -> None:
    with pytest.raises(ConfigError, match="no cgroup file system"):
        parse_hierarchies("proc /proc proc rw 0 0\n", CONTROLLERS)


def v1(root: Path) -> CgroupsV1:
    points = {name: str(root / name) for name in ("cpu", "cpuacct", "memory", "pids")}
    return CgroupsV1(Hierarchies("v1", points, tuple(points.values())))


def make_files(folder: Path, **values: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(value)


def test_v1_limits_are_spread_over_the_hierarchies(tmp_path: Path) -> None:
    make_files(tmp_path / "cpu/x", cpu__shares="", cpu__cfs_quota_us="", cpu__cfs_period_us="")
    make_files(tmp_path / "memory/x", memory__limit_in_bytes="")
    make_files(tmp_path / "pids/x", pids__max="")
    v1(tmp_path).ensure("/x", LIMITS)
    assert (tmp_path / "cpuacct/x").is_dir()
    written = {path.name: path.read_text() for path in tmp_path.glob("*/x/*")}
    assert written == {
        "cpu.shares": "512",
        "cpu.cfs_quota_us": "50000",
        "cpu.cfs_period_us": "100000",
        "memory.limit_in_bytes": "1048576",
        "pids.max": "10",
    }


def test_v1_use_leaves_out_what_can_be_given_back(tmp_path: Path) -> None:
    make_files(tmp_path / "cpuacct/x", cpuacct__usage="123\n")
    make_files(
        tmp_path / "memory/x", memory__usage_in_bytes="5000\n", memory__stat="cache 9\ntotal_inactive_file 2000\n"
    )
    assert v1(tmp_path).usage("/x") == Usage(123, 3000)
    assert v1(tmp_path).usage("/other") is None


def test_v1_signs_name_the_files_the_monitor_reads(tmp_path: Path) -> None:
    assert v1(tmp_path).signs("/x/y") == Signs(
        (f"{tmp_path}/pids/x/y/cgroup.procs",), (f"{tmp_path}/memory/x/y/memory.oom_control", "oom_kill")
    )


def test_a_cgroup_is_removed_from_below(tmp_path: Path) -> None:
    cgroups = v1(tmp_path)
    for path in ("/x/a/b", "/x/c"):
        cgroups.ensure(path)
    assert cgroups.remove("/x")
    assert cgroups.remove("/x")
    assert not list(tmp_path.glob("*/x"))


def test_a_cgroup_that_is_in_use_stays(tmp_path: Path) -> None:
    cgroups = v1(tmp_path)
    cgroups.ensure("/x/a")
    (tmp_path / "memory/x/a/held").touch()
    assert not cgroups.remove("/x")


def v2(root: Path) -> CgroupsV2:
    return CgroupsV2(Hierarchies("v2", {}, (str(root),), str(root)))


def test_v2_hands_controllers_down_and_sets_limits(tmp_path: Path) -> None:
    make_files(tmp_path, cgroup__controllers="cpu memory pids", cgroup__subtree_control="")
    make_files(tmp_path / "pod", cgroup__subtree_control="", cpu__weight="", cpu__max="", memory__max="", pids__max="")
    v2(tmp_path).ensure("/pod", LIMITS)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+pids"  # the last of three writes
    written = {path.name: path.read_text() for path in (tmp_path / "pod").iterdir()}
    assert written == {
        "cgroup.subtree_control": "+pids",
        "cpu.weight": "20",
        "cpu.max": "50000 100000",
        "memory.max": "1048576",
        "pids.max": "10",
    }


def test_v2_use(tmp_path: Path) -> None:
    make_files(
        tmp_path / "x", cpu__stat="usage_usec 7\n", memory__current="5000\n", memory__stat="inactive_file 1000\n"
    )
    assert v2(tmp_path).usage("/x") == Usage(7000, 4000)
    assert v2(tmp_path).usage("/other") is None


@pytest.mark.parametrize(("shares", "weight"), [(0, 1), (2, 1), (1024, 39), (262144, 10000), (1 << 20, 10000)])
def test_shares_become_weights(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


def test_a_v2_cgroup_for_processes_hands_nothing_down(tmp_path: Path) -> None:
    make_files(tmp_path, cgroup__controllers="cpu", cgroup__subtree_control="")
    make_files(tmp_path / "pause", cgroup__subtree_control="")
    v2(tmp_path).ensure("/pause")
    assert (tmp_path / "pause/cgroup.subtree_control").read_text() == ""
