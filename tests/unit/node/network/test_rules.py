"""What a Service puts into a node's table."""

from __future__ import annotations

import pytest

from dure.node.network.services.rules import NOTHING, OTHER_PROXY, Pieces, plan
from tests.unit.node.network.objects import NODE, endpoint, endpoint_slice, service

TWO = [endpoint_slice(endpoint("10.244.1.2"), endpoint("10.244.2.2", "dure-2"))]
ARRIVED = 'iifname "eth0" meta mark set meta mark or 0x4000'
MARKED = "meta mark set meta mark or 0x4000"
PICK = (
    "meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.2.2 . 8080 }"
)


def test_a_cluster_address_leads_to_one_of_the_endpoints():
    assert plan(service(), TWO, NODE) == Pieces(
        chains={"in/default/web/80-tcp": (ARRIVED, PICK)},
        elements={
            ("addresses", "10.96.0.50 . tcp . 80"): "goto in/default/web/80-tcp",
            ("hairpin", "10.244.1.2 . 10.244.1.2"): "",
        },
    )


def test_one_endpoint_needs_no_choice():
    found = plan(service(), [endpoint_slice(endpoint("10.244.2.2", "dure-2"))], NODE)
    assert found.chains["in/default/web/80-tcp"][1] == "meta l4proto tcp dnat ip to 10.244.2.2:8080"
    assert ("hairpin", "10.244.2.2 . 10.244.2.2") not in found.elements


@pytest.mark.parametrize(
    "made",
    [
        service(ip="None"),
        service(ip=""),
        service(type="ExternalName"),
        {**service(), "metadata": {"name": "x", "namespace": "y", "labels": {OTHER_PROXY: "mesh"}}},
    ],
)
def test_what_has_no_virtual_address_or_another_proxy_adds_nothing(made):
    assert plan(made, TWO, NODE) == NOTHING


def test_the_dns_address_is_left_to_the_node():
    assert plan(service(ip=NODE.dns), TWO, NODE).elements.keys() == {("hairpin", "10.244.1.2 . 10.244.1.2")}


def test_without_endpoints_only_external_addresses_need_a_rule():
    assert plan(service(), [], NODE) == NOTHING
    found = plan(service(externalIPs=["192.0.2.9"]), [], NODE)
    assert found == Pieces(elements={("refused", "192.0.2.9 . tcp . 80"): ""})


def test_a_node_port_masquerades():
    made = service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}], externalIPs=["192.0.2.9"])
    found = plan(made, TWO, NODE)
    assert found.chains["ex/default/web/80-tcp"] == (MARKED, PICK)
    assert found.elements["nodeports", "tcp . 30080"] == "goto ex/default/web/80-tcp"
    assert found.elements["addresses", "192.0.2.9 . tcp . 80"] == "goto ex/default/web/80-tcp"


def test_an_external_local_policy_keeps_the_source_and_stays_here():
    made = service(type="NodePort", externalTrafficPolicy="Local", ports=[{"port": 80, "nodePort": 30080}])
    found = plan(made, TWO, NODE)
    assert found.chains["ex/default/web/80-tcp"] == (
        "ip saddr 10.244.0.0/16 goto via/default/web/80-tcp",
        "fib saddr type local goto via/default/web/80-tcp",
        "meta l4proto tcp dnat ip to 10.244.1.2:8080",
    )
    assert found.chains["via/default/web/80-tcp"] == (MARKED, PICK)


def test_an_internal_local_policy_knows_only_this_nodes_endpoints():
    made = service(internalTrafficPolicy="Local")
    found = plan(made, TWO, NODE)
    assert found.chains["in/default/web/80-tcp"] == (ARRIVED, "meta l4proto tcp dnat ip to 10.244.1.2:8080")
    elsewhere = plan(made, [endpoint_slice(endpoint("10.244.2.2", "dure-2"))], NODE)
    assert elsewhere == NOTHING


def test_affinity_remembers_clients_by_endpoint():
    config = {"clientIP": {"timeoutSeconds": 60}}
    found = plan(service(sessionAffinity="ClientIP", sessionAffinityConfig=config), TWO, NODE)
    one, two = "default/web/80-tcp/10.244.1.2-8080", "default/web/80-tcp/10.244.2.2-8080"
    assert found.sets == {f"at/{name}": "type ipv4_addr; flags dynamic,timeout; timeout 60s;" for name in (one, two)}
    assert found.chains["in/default/web/80-tcp"] == (
        ARRIVED,
        f"ip saddr @at/{one} goto to/{one}",
        f"ip saddr @at/{two} goto to/{two}",
        f"numgen random mod 2 vmap {{ 0 : goto to/{one}, 1 : goto to/{two} }}",
    )
    assert found.chains[f"to/{one}"] == (
        f"update @at/{one} {{ ip saddr }}",
        "meta l4proto tcp dnat ip to 10.244.1.2:8080",
    )


def test_tcp_and_udp_may_share_a_number():
    ports = [{"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"}]
    behind = [{"name": "t", "port": 5353}, {"name": "u", "port": 5353, "protocol": "UDP"}]
    found = plan(service(ports=ports), [endpoint_slice(endpoint("10.244.1.2"), ports=behind)], NODE)
    assert found.chains.keys() == {"in/default/web/53-tcp", "in/default/web/53-udp"}
    assert found.datagrams == {("10.96.0.50", 53): frozenset({("10.244.1.2", 5353)})}


def test_a_load_balancer_behind_a_proxy_is_not_answered_for():
    ingress = [{"ip": "127.0.0.1", "ipMode": "Proxy"}, {"ip": "192.0.2.9"}, {"ip": "192.0.2.8", "ipMode": "Proxy"}]
    made = {**service(type="LoadBalancer"), "status": {"loadBalancer": {"ingress": ingress}}}
    found = plan(made, TWO, NODE)
    external = {key for name, key in found.elements if name == "addresses"}
    assert external == {"10.96.0.50 . tcp . 80", "192.0.2.9 . tcp . 80"}
