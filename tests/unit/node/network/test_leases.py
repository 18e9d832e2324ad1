"""Addresses of pods, and their host ports."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from dure.node.network import hostports
from dure.node.network.leases import Lease, Leases, NoAddress
from dure.node.ports import HostPort

NETWORK = IPv4Network("10.244.1.0/24")


def leases(folder, network=NETWORK):
    made = Leases(folder, network)
    made.load()
    return made


def test_each_pod_has_its_own_and_keeps_it(tmp_path):
    made = leases(tmp_path)
    first, second = made.take("a", ()), made.take("b", ())
    assert (first.ip, second.ip) == ("10.244.1.2", "10.244.1.3")
    assert made.take("a", ()) is first


def test_they_survive_and_a_released_address_comes_back_last(tmp_path):
    made = leases(tmp_path)
    made.take("a", [HostPort(80, 8080)])
    made.take("b", ())
    made.release("b")
    made.release("b")
    again = leases(tmp_path)
    assert again.all() == [Lease("a", "10.244.1.2", 2, (HostPort(80, 8080),))]
    made.take("c", ())
    assert made.take("d", ()).ip == "10.244.1.5"


def test_a_full_network_says_so_and_starts_over_when_there_is_room(tmp_path):
    made = leases(tmp_path, IPv4Network("10.244.1.0/29"))
    for name in "abcde":
        made.take(name, ())
    with pytest.raises(NoAddress, match=r"no free address in 10\.244\.1\.0/29: 5 pods have one"):
        made.take("f", ())
    made.release("c")
    assert made.take("f", ()).ip == "10.244.1.4"


def test_files_that_are_not_leases_are_dropped(tmp_path):
    made = leases(tmp_path)
    made.take("a", ())
    (tmp_path / "b").write_text("{")
    (tmp_path / "c").write_text('{"pod_uid": "x", "ip": "10.244.1.9", "number": 9, "host_ports": []}')
    (tmp_path / ".d").write_text("")
    assert [lease.pod_uid for lease in leases(tmp_path).all()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_host_ports_become_elements_and_go_again():
    lease = Lease("a", "10.244.1.2", 2, (HostPort(80, 8080), HostPort(53, 53, "UDP", "127.0.0.1")))
    assert hostports.opened(lease).splitlines() == [
        "add element ip hostports hairpin { 10.244.1.2 . 10.244.1.2 }",
        "add element ip hostports everywhere { tcp . 80 : 10.244.1.2 . 8080 }",
        "add element ip hostports addressed { 127.0.0.1 . udp . 53 : 10.244.1.2 . 53 }",
    ]
    assert hostports.opened(Lease("b", "10.244.1.3", 3)) == ""


@pytest.mark.parametrize(
    ("wanted", "is_taken"),
    [
        (HostPort(80, 1), True),
        (HostPort(80, 1, host_ip="127.0.0.1"), True),
        (HostPort(80, 1, "UDP"), False),
        (HostPort(81, 1, host_ip="10.0.0.1"), False),
        (HostPort(81, 1, host_ip="127.0.0.1"), True),
        (HostPort(81, 1), True),
    ],
)
def test_a_host_port_belongs_to_one_pod(wanted, is_taken):
    held = Lease("a", "10.244.1.2", 2, (HostPort(80, 8080), HostPort(81, 8080, host_ip="127.0.0.1")))
    assert bool(hostports.clash([wanted], [held])) is is_taken
