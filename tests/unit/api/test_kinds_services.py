"""Service, Endpoints, EndpointSlice, Ingress and NetworkPolicy."""

# ruff: noqa: E501 - tables of whole messages, one a line
from __future__ import annotations

from typing import Any

import pytest

from dure.api.kinds import builtin_kinds
from dure.core.json import Obj, thaw

KINDS = builtin_kinds()
SERVICE = KINDS.resource("services")


def service(**spec: Any) -> Obj:
    obj: Obj = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": 80}], **spec}}
    SERVICE.strategy.default(obj)
    SERVICE.strategy.prepare_create(obj)
    return obj


def faults(obj: Obj, resource: str = "services") -> list[str]:
    return [f"{error.field}: {error.message}" for error in KINDS.resource(resource).strategy.validate(obj)]


def test_a_cluster_ip_service_gets_defaults() -> None:
    assert service()["spec"] == {
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "None",
        "type": "ClusterIP",
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
    }
    assert service()["status"] == {"loadBalancer": {}}
    assert faults(service()) == []


def test_a_load_balancer_gets_more() -> None:
    spec = service(type="LoadBalancer")["spec"]
    assert spec["externalTrafficPolicy"] == "Cluster"
    assert spec["allocateLoadBalancerNodePorts"] is True


def test_client_affinity_lasts_three_hours() -> None:
    spec = service(sessionAffinity="ClientIP")["spec"]
    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}


def test_a_headless_service_needs_no_ports() -> None:
    obj = service(clusterIP="None", ports=[])
    assert obj["spec"]["clusterIPs"] == ["None"]
    assert faults(obj) == []


def test_an_external_name_has_no_address() -> None:
    obj = service(type="ExternalName", externalName="example.com", ports=[])
    assert "clusterIP" not in obj["spec"]
    assert "ipFamilies" not in obj["spec"]
    assert faults(obj) == []


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"ports": []}, "spec.ports: Required value"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        ({"ports": [{"port": 1}, {"port": 2}]}, "spec.ports[0].name: Required value"),
        ({"type": "Odd"}, 'spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'),
        ({"ports": [{"port": 1, "nodePort": 30000}]}, "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"),
        ({"type": "NodePort", "clusterIP": "None"}, "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"),
        ({"clusterIP": "x"}, 'spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'),
        ({"type": "ExternalName"}, "spec.externalName: Required value"),
        ({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}, 'spec.ports[1].name: Duplicate value: "a"'),
    ],
)  # fmt: skip
def test_what_users_get_wrong(spec: Obj, fault: str) -> None:
    assert fault in faults(service(**spec))


def test_the_name_is_a_dns_label_that_begins_with_a_letter() -> None:
    obj = service()
    obj["metadata"]["name"] = "1web"
    assert faults(obj)[0].startswith('metadata.name: Invalid value: "1web": a DNS-1035 label must consist of')


def test_what_was_allocated_is_kept_on_update() -> None:
    old = service(type="NodePort")
    old["spec"].update(clusterIP="10.96.0.5", clusterIPs=["10.96.0.5"])
    old["spec"]["ports"][0]["nodePort"] = 30001
    new = service(type="NodePort")
    SERVICE.strategy.prepare_update(new, old, "")
    assert new["spec"]["clusterIP"] == "10.96.0.5"
    assert new["spec"]["ports"][0]["nodePort"] == 30001


def test_back_to_cluster_ip_gives_node_ports_up() -> None:
    old = service(type="NodePort")
    old["spec"]["ports"][0]["nodePort"] = 30001
    new = thaw(old)
    new["spec"]["type"] = "ClusterIP"
    SERVICE.strategy.prepare_update(new, old, "")
    assert "nodePort" not in new["spec"]["ports"][0]
    assert "externalTrafficPolicy" not in new["spec"]
    assert faults(new) == []


def test_an_address_does_not_change() -> None:
    old = service(clusterIP="10.96.0.5")
    new = service(clusterIP="10.96.0.6")
    errors = SERVICE.strategy.validate_update(new, old, "")
    assert [f"{error.field}: {error.message}" for error in errors] == [
        'spec.clusterIPs[0]: Invalid value: "10.96.0.6": may not change once set'
    ]


def slice_of(**more: Any) -> Obj:
    return {"metadata": {"name": "a", "namespace": "default"}, "addressType": "IPv4", "endpoints": [], **more}


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"addressType": ""}, "addressType: Required value"),
        ({"endpoints": [{"addresses": []}]}, "endpoints[0].addresses: Required value: must contain at least 1 address"),
        ({"endpoints": [{"addresses": ["127.0.0.1"]}]}, 'endpoints[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'),
        ({"endpoints": [{"addresses": ["fd00::1"]}]}, 'endpoints[0].addresses[0]: Invalid value: "fd00::1": must be an IPv4 address'),
    ],
)  # fmt: skip
def test_endpoint_slices(more: Obj, fault: str) -> None:
    assert faults(slice_of(**more), "endpointslices.discovery.k8s.io") == [fault]


def test_an_ingress_path_needs_a_type_and_a_backend() -> None:
    rule = {"http": {"paths": [{"path": "/"}]}}
    obj = {"metadata": {"name": "a", "namespace": "default"}, "spec": {"rules": [rule]}}
    assert faults(obj, "ingresses.networking.k8s.io") == [
        "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
        "spec.rules[0].http.paths[0].backend: Required value: resource or service backend is required",
    ]


def test_a_network_policy_is_for_ingress_unless_it_has_egress() -> None:
    strategy = KINDS.resource("networkpolicies.networking.k8s.io").strategy
    obj: Obj = {"spec": {"podSelector": {}}}
    strategy.default(obj)
    assert obj["spec"]["policyTypes"] == ["Ingress"]
    obj = {"spec": {"podSelector": {}, "egress": [{}]}}
    strategy.default(obj)
    assert obj["spec"]["policyTypes"] == ["Ingress", "Egress"]
