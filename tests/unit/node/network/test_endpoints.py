"""Which endpoints take traffic."""

from __future__ import annotations

from dure.node.network.services.endpoints import of_addresses, of_port, usable
from tests.unit.node.network.objects import endpoint, endpoint_slice


def ips(*endpoints, port=None):
    return [one.ip for one in usable(of_port([endpoint_slice(*endpoints)], port or {"port": 80}))]


def test_ready_ones_take_traffic_and_unknown_counts_as_ready():
    assert ips(endpoint("10.0.0.2", ready=True), endpoint("10.0.0.1"), endpoint("10.0.0.3", ready=False)) == [
        "10.0.0.1",
        "10.0.0.2",
    ]


def test_draining_ones_serve_only_while_none_is_ready():
    draining = endpoint("10.0.0.1", ready=False, serving=True, terminating=True)
    gone = endpoint("10.0.0.2", ready=False, serving=False, terminating=True)
    assert ips(draining, gone) == ["10.0.0.1"]
    assert ips(draining, gone, endpoint("10.0.0.3", ready=True)) == ["10.0.0.3"]


def test_a_port_finds_its_own_by_name_and_protocol():
    ports = [{"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "web", "port": 8080}]
    one = endpoint_slice(endpoint("10.0.0.1"), ports=ports)
    assert [e.port for e in of_port([one], {"name": "dns", "port": 53, "protocol": "UDP"})] == [5353]
    assert [e.port for e in of_port([one], {"name": "web", "port": 80})] == [8080]
    assert of_port([one], {"name": "dns", "port": 53}) == []


def test_an_endpoint_in_two_slices_counts_once():
    one = endpoint_slice(endpoint("10.0.0.1"))
    assert len(of_port([one, one], {"port": 80})) == 1
    assert len(of_addresses([one, one])) == 1


def test_other_address_families_and_empty_endpoints_are_passed_over():
    six = {**endpoint_slice(endpoint("fd00::1")), "addressType": "IPv6"}
    empty = endpoint_slice({"addresses": []})
    assert of_port([six, empty], {"port": 80}) == []
    assert of_addresses([six, empty]) == []
