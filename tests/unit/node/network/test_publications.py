"""Who gets which port of the host's loopback."""

from __future__ import annotations

import socket

import pytest

from dure.api.meta import ObjectKey
from dure.node.network.services.claims import Claims
from dure.node.network.services.publications import Port, elements, is_balanced, plan
from tests.unit.node.network.objects import service


def balancer(name="web", created="2026-01-01T00:00:00Z", **spec):
    made = service(name, **{"type": "LoadBalancer", **spec})
    return {**made, "metadata": {**made["metadata"], "creationTimestamp": created}}


def everything(_):
    return True


def test_a_port_leads_to_the_cluster_address():
    (found,) = plan([balancer()], "10.243.0.11", everything)
    assert elements([found]) == {"tcp . 80": "10.96.0.50 . 80"}
    assert found.ingress() == [{"ip": "127.0.0.1", "ipMode": "Proxy", "ports": [{"port": 80, "protocol": "TCP"}]}]


def test_where_the_cluster_address_means_local_endpoints_it_is_the_node_port():
    made = balancer(internalTrafficPolicy="Local", ports=[{"port": 80, "nodePort": 30080}])
    assert elements(plan([made], "10.243.0.11", everything)) == {"tcp . 80": "10.243.0.11 . 30080"}


def test_the_older_service_keeps_the_port():
    young, old = balancer("young", "2026-01-02T00:00:00Z"), balancer("old")
    first, second = plan([young, old], "10.243.0.11", everything)
    assert (first.key, first.problem) == (ObjectKey("default", "old"), "")
    assert second.problem == "127.0.0.1:80/TCP is taken by Service default/old; change the port of one of them"
    assert second.ingress() == []


def test_all_ports_or_none():
    made = balancer(ports=[{"port": 80}, {"port": 81}])
    (found,) = plan([made], "10.243.0.11", lambda port: port.number != 81)
    expected = "127.0.0.1:81/TCP is taken by another program on the host; end it or change the Service's port"
    assert found.problem == expected
    assert elements([found]) == {}


def test_protocols_without_a_loopback_are_refused():
    (found,) = plan([balancer(ports=[{"port": 80, "protocol": "SCTP"}])], "10.243.0.11", everything)
    assert found.problem == "SCTP ports cannot be published on 127.0.0.1"


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"type": "LoadBalancer"}, True),
        ({"type": "LoadBalancer", "loadBalancerClass": "dure.dev/loopback"}, True),
        ({"type": "LoadBalancer", "loadBalancerClass": "example.org/other"}, False),
        ({"type": "LoadBalancer", "clusterIP": ""}, False),
        ({"type": "NodePort"}, False),
    ],
)
def test_which_services_are_ours(spec, wanted):
    assert is_balanced(service(**spec)) is wanted


def test_a_claim_keeps_others_out_and_is_given_back():
    claims = Claims()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    assert claims.take(Port("TCP", number)) and claims.take(Port("TCP", number))
    assert not Claims().take(Port("TCP", number))
    claims.keep_only([])
    other = Claims()
    assert other.take(Port("TCP", number)) and other.take(Port("UDP", number))
    other.close()


def test_a_listener_on_any_address_has_the_port():
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        assert not Claims().take(Port("TCP", listener.getsockname()[1]))
