"""Which OCI runtime a host gets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dure.core.errors import ConfigError
from dure.node.runtimes.oci.choice import Host, choose, read_host
from dure.node.runtimes.oci.shim_spawn import Program

HOST = Host(
    cgroup_mode="v1",
    unified="",
    crun="/usr/bin/crun",
    runc="/usr/sbin/runc",
    capabilities=(1 << 41) - 1,
    oom_score_adj=0,
    open_files=1024,
)
NO_SYS_RESOURCE = HOST.capabilities & ~(1 << 24)


def test_crun_is_preferred() -> None:
    assert choose(HOST) == Program("/usr/bin/crun", "crun")


def test_on_a_hybrid_host_crun_does_not_see_the_v2_side() -> None:
    host = replace(HOST, cgroup_mode="hybrid", unified="/sys/fs/cgroup/unified")
    assert choose(host) == Program("/usr/bin/crun", "crun", hide="/sys/fs/cgroup/unified")


def test_runc_needs_no_cover() -> None:
    host = replace(HOST, crun="", cgroup_mode="hybrid", unified="/sys/fs/cgroup/unified")
    assert choose(host) == Program("/usr/sbin/runc", "runc")


def test_crun_on_v2_needs_a_capability() -> None:
    host = replace(HOST, cgroup_mode="v2", unified="/sys/fs/cgroup")
    assert choose(host).name == "crun"
    assert choose(replace(host, capabilities=NO_SYS_RESOURCE)).name == "runc"
    with pytest.raises(ConfigError, match="CAP_SYS_RESOURCE"):
        choose(replace(host, capabilities=NO_SYS_RESOURCE, runc=""))


def test_without_a_runtime_the_mend_is_named() -> None:
    with pytest.raises(ConfigError, match="no OCI runtime") as caught:
        choose(replace(HOST, crun="", runc=""))
    assert caught.value.mend == "apt-get install crun"


def test_this_host_can_be_read() -> None:
    assert read_host().open_files > 0
