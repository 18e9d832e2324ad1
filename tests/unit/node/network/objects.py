"""Services and slices as short texts for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Any

from dure.core.json import Obj
from dure.node.network.services.rules import NodeView

NODE = NodeView("dure-1", "10.243.0.11", IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/16"), "10.96.0.10")


def service(name: str = "web", ip: str = "10.96.0.50", **spec: Any) -> Obj:
    spec = {"type": "ClusterIP", "clusterIP": ip, "ports": [{"port": 80}], **spec}
    return {"metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"}, "spec": spec}


def endpoint(ip: str, node: str = "dure-1", hostname: str = "", **conditions: bool) -> Obj:
    return {"addresses": [ip], "nodeName": node, "hostname": hostname, "conditions": conditions}


def endpoint_slice(*endpoints: Obj, ports: Sequence[Obj] = ({"port": 8080},), name: str = "web") -> Obj:
    meta = {"name": f"{name}-1", "namespace": "default", "labels": {"kubernetes.io/service-name": name}}
    return {"metadata": meta, "addressType": "IPv4", "ports": [*ports], "endpoints": [*endpoints]}
