"""Environment, command line, user, limits, managed files: the pure parts of a container's start."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from dure.node.confined import opened, read_inside
from dure.node.pods import accounts, etc_files
from dure.node.pods.accounts import Accounts, User, resolve_user
from dure.node.pods.container_spec import command_line, in_mount_order, make_security
from dure.node.pods.downward import Downward
from dure.node.pods.environment import ConfigFailure, Sources, expand, make_environment, service_environment
from dure.node.pods.qos import qos_class
from dure.node.pods.resources import container_resources, pod_resources
from dure.node.ports import Image, Mount
from tests.support.node import pod_of

NO_SOURCES = Sources({}, {})


def downward(pod: dict[str, Any] | None = None) -> Downward:
    allocatable = {"cpu": "4", "memory": "8589934592"}
    return Downward(pod or pod_of(), "10.244.1.5", "10.243.0.11", "dure-1", allocatable)


def environment(container: dict[str, Any], sources: Sources = NO_SOURCES) -> dict[str, str]:
    return make_environment(container, sources, downward(), {"SVC_HOST": "10.96.0.9"}, ["PATH=/bin", "A=image"])


def test_values_expand_what_came_before() -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(SVC_HOST)-$$(A)-$(NOPE)-$(LATER)"},
        {"name": "LATER", "value": "x"},
    ]
    found = environment({"name": "app", "env": env})
    assert found["B"] == "1-10.96.0.9-$(A)-$(NOPE)-$(LATER)"
    assert found["PATH"] == "/bin"


def test_sources_are_read_by_key_and_whole() -> None:
    secret = {"data": {"password": base64.b64encode(b"hunter2").decode()}}
    sources = Sources({"settings": {"data": {"a": "1", "b": "2"}}}, {"keys": secret})
    container = {
        "name": "app",
        "envFrom": [{"prefix": "S_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}],
        "env": [
            {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "b"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "x", "optional": True}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
    }
    found = environment(container, sources)
    assert {name: found[name] for name in ("S_a", "S_b", "password", "ONE", "IP")} == {
        "S_a": "1",
        "S_b": "2",
        "password": "hunter2",
        "ONE": "2",
        "IP": "10.244.1.5",
    }
    assert "NONE" not in found


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "gone", "key": "a"}}, 'configmap "gone" not found'),
        ({"secretKeyRef": {"name": "gone", "key": "a"}}, 'secret "gone" not found'),
        ({"configMapKeyRef": {"name": "here", "key": "a"}}, "couldn't find key a in ConfigMap default/here"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigFailure, match=message):
        environment({"name": "app", "env": [{"name": "A", "valueFrom": source}]}, Sources({"here": {}}, {}))


def test_resource_fields_have_divisors_and_fall_back_to_the_node() -> None:
    pod = pod_of(containers=[{"name": "app", "resources": {"limits": {"cpu": "250m"}}}])
    facts = downward(pod)
    container = pod["spec"]["containers"][0]
    assert facts.resource({"resource": "limits.cpu"}, container) == "1"
    assert facts.resource({"resource": "limits.cpu", "divisor": "1m"}, container) == "250"
    assert facts.resource({"resource": "limits.memory", "divisor": "1Mi"}, container) == "8192"
    assert facts.resource({"resource": "limits.cpu", "divisor": "1m", "containerName": "app"}) == "250"


def test_downward_maps_are_sorted_and_quoted() -> None:
    pod = pod_of(metadata={"labels": {"b": 'say "hi"', "a": "1"}})
    assert downward(pod).field("metadata.labels") == 'a="1"\nb="say \\"hi\\""'
    assert downward(pod).field("metadata.labels['a']") == "1"


def test_service_links() -> None:
    def service(name: str, namespace: str, address: str, *ports: dict[str, Any]) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": address, "ports": list(ports)},
        }

    services = [
        service("kubernetes", "default", "10.96.0.1", {"name": "https", "port": 443, "protocol": "TCP"}),
        service("web-app", "shop", "10.96.3.4", {"port": 80, "protocol": "TCP"}),
        service("headless", "shop", "None", {"port": 80}),
        service("other", "elsewhere", "10.96.9.9", {"port": 1}),
    ]
    found = service_environment(pod_of(namespace="shop"), services)
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert found["WEB_APP_PORT_80_TCP"] == "tcp://10.96.3.4:80"
    assert not any(name.startswith(("OTHER", "HEADLESS")) for name in found)
    off = service_environment(pod_of(namespace="shop", enableServiceLinks=False), services)
    assert {name.split("_")[0] for name in off} == {"KUBERNETES"}


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, ("/entry", "cmd")),
        ({"args": ["$(A)"]}, ("/entry", "1")),
        ({"command": ["/own"]}, ("/own",)),
        ({"command": ["/own"], "args": ["$$(A)", "$(B)"]}, ("/own", "$(A)", "$(B)")),
    ],
)
def test_command_and_args_against_the_image(container: dict[str, Any], expected: tuple[str, ...]) -> None:
    image = Image("sha256:1", "x", entrypoint=("/entry",), cmd=("cmd",))
    assert command_line(container, image, {"A": "1"}) == expected


def test_expansion_leaves_other_dollars() -> None:
    assert expand("$HOME $( $(A) $$ $", {"A": "1"}) == "$HOME $( 1 $ $"


KNOWN = Accounts((("root", 0, 0, "/root"), ("app", 1000, 1001, "/home/app")), (("app", 1001, ()), ("x", 7, ("app",))))


@pytest.mark.parametrize(
    ("pod_context", "context", "image_user", "expected"),
    [
        ({}, {}, "", User(0, 0, (), "/root")),
        ({}, {}, "app", User(1000, 1001, (7,), "/home/app")),
        ({}, {}, "1000", User(1000, 1001, (7,), "/home/app")),
        ({}, {}, "4242:x", User(4242, 7)),
        ({"runAsUser": 5, "runAsGroup": 6, "fsGroup": 9, "supplementalGroups": [8]}, {}, "app", User(5, 6, (8, 9))),
        ({"runAsUser": 5}, {"runAsUser": 1000}, "", User(1000, 1001, (7,), "/home/app")),
    ],
)
def test_users(pod_context: dict[str, Any], context: dict[str, Any], image_user: str, expected: User) -> None:
    container = {"name": "app", "securityContext": context}
    assert resolve_user(pod_of(securityContext=pod_context), container, image_user, KNOWN) == expected


@pytest.mark.parametrize(
    ("context", "image_user", "message"),
    [
        ({"runAsNonRoot": True}, "", "image will run as root"),
        ({"runAsNonRoot": True}, "app", r"non-numeric user \(app\), cannot verify user is non-root"),
        ({"runAsNonRoot": True, "runAsUser": 0}, "", "runAsUser breaks non-root policy"),
        ({}, "nobody", "unable to find user nobody"),
    ],
)
def test_users_that_are_refused(context: dict[str, Any], image_user: str, message: str) -> None:
    with pytest.raises(ConfigFailure, match=message):
        resolve_user(pod_of(), {"name": "app", "securityContext": context}, image_user, KNOWN)


def test_account_files_are_read_inside_the_image_only(tmp_path: Path) -> None:
    """A link to the host's own file must lead to the image's, and a device must not be read at all."""
    (tmp_path / "host").write_text("root:x:0:0::/host:/bin/sh\n")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").symlink_to(tmp_path / "host")
    assert Accounts.of_rootfs(root).users == ()
    (root / "etc/passwd").unlink()
    os.mkfifo(root / "etc/passwd")
    assert read_inside(root, "/etc/passwd", accounts.FILE_LIMIT) is None
    with pytest.raises(OSError), opened(root, "../host"):
        pass


def test_security_is_tight_unless_asked() -> None:
    user = User(1, 2)
    tight = make_security(pod_of(), {"name": "a"}, user)
    assert (tight.no_new_privileges, tight.privileged, tight.seccomp) == (True, False, "RuntimeDefault")
    asked = {"allowPrivilegeEscalation": True, "capabilities": {"add": ["cap_net_admin"], "drop": ["ALL"]}}
    loose = make_security(pod_of(), {"name": "a", "securityContext": asked}, user)
    assert (loose.no_new_privileges, loose.add_capabilities, loose.drop_capabilities) == (
        False,
        ("NET_ADMIN",),
        ("ALL",),
    )


def test_limits_become_cgroup_numbers() -> None:
    resources = {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "2Gi"}}
    pod = pod_of(containers=[{"name": "app", "resources": resources}])
    found = container_resources(pod, pod["spec"]["containers"][0], 4 << 30)
    assert (found.cpu_shares, found.cpu_quota, found.memory_bytes, found.oom_score_adj) == (102, 50_000, 2 << 30, 750)
    assert qos_class(pod) == "Burstable"
    assert pod_resources(pod).cpu_quota == 50_000
    assert container_resources(pod_of(), {"name": "app"}, 1 << 30).oom_score_adj == 1000


def test_quality_of_service() -> None:
    same = {"cpu": "1", "memory": "1Gi"}
    assert qos_class(pod_of()) == "BestEffort"
    assert qos_class(pod_of(containers=[{"name": "a", "resources": {"limits": same}}])) == "Guaranteed"


def test_outer_mounts_come_first() -> None:
    mounts = [Mount("a", "/data/inner"), Mount("b", "/data"), Mount("c", "/etc/hosts")]
    assert [mount.target for mount in in_mount_order(mounts)] == ["/data", "/data/inner", "/etc/hosts"]


RESOLVER = etc_files.parse_resolv_conf(
    "search corp.example\nnameserver 1.1.1.1 # x\noptions ndots:2\n", "10.96.0.10", "cluster.local"
)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {},
            "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\n"
            "nameserver 10.96.0.10\noptions ndots:5\n",
        ),
        ({"dnsPolicy": "Default"}, "search corp.example\nnameserver 1.1.1.1\noptions ndots:2\n"),
        ({"hostNetwork": True}, "search corp.example\nnameserver 1.1.1.1\noptions ndots:2\n"),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["9.9.9.9"],
                    "searches": ["x"],
                    "options": [{"name": "edns0"}, {"name": "ndots", "value": "1"}],
                },
            },
            "search x\nnameserver 9.9.9.9\noptions edns0 ndots:1\n",
        ),
    ],
)
def test_resolv_conf_by_policy(spec: dict[str, Any], expected: str) -> None:
    assert etc_files.resolv_conf(pod_of(namespace="shop", **spec), RESOLVER) == expected


def test_hosts_file_has_the_pod_and_its_aliases() -> None:
    spec = {"hostname": "db", "subdomain": "data", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}
    text = etc_files.hosts_file(pod_of(namespace="shop", **spec), "10.244.1.5", "cluster.local")
    assert "10.244.1.5\tdb.data.shop.svc.cluster.local\tdb\n" in text
    assert text.endswith("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")
