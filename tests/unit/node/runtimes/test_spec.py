"""From wishes to an OCI configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dure.node.ports import ContainerSpec, Mount, Resources, SandboxSpec, Security
from dure.node.runtimes.oci.seccomp import default_profile
from dure.node.runtimes.oci.spec import CAPABILITIES, Device, Joined, allowed_capabilities, build_config, exec_process

from .test_choice import HOST, NO_SYS_RESOURCE

SANDBOX = SandboxSpec("uid", "default", "web", "node-1", "web", "/run/netns/web", "/dure/node-1/uid")
SPEC = ContainerSpec(
    "id", "uid", "app", 0, "app:1", "sha256:1", "/root/fs", ("run",), ("A=b",), "/work", "/logs/0.log"
)  # fmt: skip
JOINED = Joined(ipc="/ns/ipc", uts="/ns/uts", pid="", shm="/ns/shm")


def config(**changes: Any) -> dict[str, Any]:
    return build_config(replace(SPEC, **changes), SANDBOX, JOINED, HOST)


def test_the_process_is_as_asked() -> None:
    process = config(security=Security(uid=1000, gid=1001, groups=(5,)))["process"]
    assert process["user"] == {"uid": 1000, "gid": 1001, "additionalGids": [5]}
    assert (process["args"], process["cwd"], process["terminal"]) == (["run"], "/work", False)
    assert process["env"][1:] == ["HOSTNAME=web", "A=b"]
    assert process["noNewPrivileges"] is True
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}]


def test_a_container_keeps_its_own_path() -> None:
    assert config(env=("PATH=/mine",))["process"]["env"] == ["HOSTNAME=web", "PATH=/mine"]


def test_namespaces_are_joined_by_path() -> None:
    assert config()["linux"]["namespaces"] == [
        {"type": "mount"},
        {"type": "network", "path": "/run/netns/web"},
        {"type": "uts", "path": "/ns/uts"},
        {"type": "ipc", "path": "/ns/ipc"},
        {"type": "pid"},
    ]


def test_a_shared_or_the_hosts_pid_namespace() -> None:
    shared = build_config(SPEC, SANDBOX, replace(JOINED, pid="/ns/pid"), HOST)
    assert {"type": "pid", "path": "/ns/pid"} in shared["linux"]["namespaces"]
    hosts = build_config(SPEC, replace(SANDBOX, host_pid=True), JOINED, HOST)
    assert not [entry for entry in hosts["linux"]["namespaces"] if entry["type"] == "pid"]


def test_on_v2_the_container_has_its_own_cgroup_view() -> None:
    host = replace(HOST, cgroup_mode="v2")
    linux = build_config(replace(SPEC, resources=Resources(cpu_shares=1024)), SANDBOX, JOINED, host)["linux"]
    assert {"type": "cgroup"} in linux["namespaces"]
    assert linux["resources"]["unified"] == {"cpu.weight": "39", "memory.oom.group": "1"}
    assert "shares" not in linux["resources"]["cpu"]


def test_limits() -> None:
    linux = config(resources=Resources(512, 50_000, 100_000, 1 << 20, 99))["linux"]
    assert linux["cgroupsPath"] == "/dure/node-1/uid/id"
    assert linux["resources"] == {
        "devices": [{"allow": False, "access": "rwm"}],
        "cpu": {"shares": 512, "period": 100_000, "quota": 50_000},
        "memory": {"limit": 1 << 20},
        "pids": {"limit": 99},
    }


def test_a_lower_oom_score_than_ours_needs_the_capability() -> None:
    spec = replace(SPEC, resources=Resources(oom_score_adj=-997))
    assert build_config(spec, SANDBOX, JOINED, HOST)["process"]["oomScoreAdj"] == -997
    poor = replace(HOST, capabilities=NO_SYS_RESOURCE, oom_score_adj=100)
    assert build_config(spec, SANDBOX, JOINED, poor)["process"]["oomScoreAdj"] == 100


def test_own_mounts_come_after_the_defaults_and_outer_before_inner() -> None:
    mounts = (Mount("/b", "/data/deep"), Mount("/a", "/data", True), Mount("/s", "/dev/shm", False, "rshared"))
    built = config(mounts=mounts)
    own = built["mounts"][-3:]
    assert [entry["destination"] for entry in own] == ["/data", "/data/deep", "/dev/shm"]
    assert own[0]["options"] == ["rbind", "rprivate", "ro"]
    assert [entry["destination"] for entry in built["mounts"]].count("/dev/shm") == 1
    assert built["linux"]["rootfsPropagation"] == "shared"


def test_default_capabilities_are_those_of_container_runtimes() -> None:
    assert len(allowed_capabilities(Security(), HOST)) == 14
    assert CAPABILITIES.index("CAP_SYS_RESOURCE") == 24
    assert CAPABILITIES.index("CAP_CHECKPOINT_RESTORE") == 40


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        (Security(drop_capabilities=("ALL",)), set()),
        (Security(drop_capabilities=("ALL",), add_capabilities=("NET_ADMIN",)), {"CAP_NET_ADMIN"}),
        (Security(drop_capabilities=("all",), add_capabilities=("cap_chown",)), {"CAP_CHOWN"}),
        (Security(add_capabilities=("ALL",), drop_capabilities=("SYS_ADMIN",)), set(CAPABILITIES) - {"CAP_SYS_ADMIN"}),
        (Security(privileged=True, drop_capabilities=("ALL",)), set(CAPABILITIES)),
    ],
)
def test_capabilities_are_added_and_dropped(security: Security, expected: set[str]) -> None:
    assert set(allowed_capabilities(security, HOST)) == expected


def test_nobody_gets_more_than_we_have() -> None:
    host = replace(HOST, capabilities=0b1)
    assert allowed_capabilities(Security(privileged=True), host) == ["CAP_CHOWN"]


def test_privileged_lifts_the_confinement() -> None:
    linux = build_config(
        replace(SPEC, security=Security(privileged=True)), SANDBOX, JOINED, HOST, devices=[Device("/dev/x", "c", 1, 2)]
    )["linux"]
    assert not {"seccomp", "maskedPaths", "readonlyPaths"} & set(linux)
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert linux["devices"][0]["path"] == "/dev/x"


def test_a_device_is_allowed_by_number() -> None:
    built = build_config(SPEC, SANDBOX, JOINED, HOST, devices=[Device("/dev/x", "c", 1, 2)])
    assert built["linux"]["resources"]["devices"][1] == {
        "allow": True, "type": "c", "major": 1, "minor": 2, "access": "rwm",
    }  # fmt: skip


def test_the_filter_is_the_default_none_or_a_file() -> None:
    assert config()["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "seccomp" not in config(security=Security(seccomp="Unconfined"))["linux"]
    profile = {"defaultAction": "SCMP_ACT_ALLOW"}
    spec = replace(SPEC, security=Security(seccomp="/profile.json"))
    assert build_config(spec, SANDBOX, JOINED, HOST, seccomp=profile)["linux"]["seccomp"] == profile


def allowed(profile: dict[str, Any]) -> set[str]:
    rules = [rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule]
    return {name for rule in rules for name in rule["names"]}


def test_the_default_filter_keeps_the_host_out_of_reach() -> None:
    names = allowed(default_profile(allowed_capabilities(Security(), HOST), "x86_64"))
    assert {"read", "execve", "futex", "openat2", "chroot"} <= names
    assert not {"mount", "unshare", "setns", "bpf", "kexec_load", "init_module", "io_uring_setup", "keyctl"} & names


def test_capabilities_open_the_filter() -> None:
    assert {"mount", "unshare", "setns", "clone3"} <= allowed(default_profile(["CAP_SYS_ADMIN"], "x86_64"))


def test_another_process_is_like_the_first() -> None:
    process = exec_process(config(), ["sh"], tty=True)
    assert (process["args"], process["terminal"], process["env"][-1]) == (["sh"], True, "TERM=xterm")
    assert process["capabilities"] == config()["process"]["capabilities"]
