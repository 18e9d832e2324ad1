"""What every cluster has from its first moment: namespaces, policy, the services `kubernetes` and `kube-dns`.

Runs at each start: what is missing is made, what an administrator changed stays; rules of default roles only grow.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from dure.api.kind import Kinds
from dure.api.meta import gvk_of
from dure.apiserver.bootstrap_policy import cluster_role_bindings, cluster_roles, namespaced_roles
from dure.apiserver.plugins.priorities import SYSTEM_PRIORITIES
from dure.apiserver.ports import MASTERS, VerifiedUser
from dure.apiserver.rest.objects import Objects, Write
from dure.apiserver.rest.options import WriteOptions
from dure.core.errors import AlreadyExists
from dure.core.json import Obj, thaw

SERVER = VerifiedUser("system:apiserver", (MASTERS,))
_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the cluster's own services stand. `api_host` and `api_port` are where pods reach this server."""

    service_cidr: str = "10.96.0.0/16"
    api_host: str = "10.243.0.1"
    api_port: int = 6443

    @property
    def api_service(self) -> str:
        return str(ipaddress.ip_network(self.service_cidr)[1])

    @property
    def dns(self) -> str:
        return str(ipaddress.ip_network(self.service_cidr)[10])


def _service(name: str, namespace: str, address: str, ports: list[Obj], labels: dict[str, str]) -> Obj:
    spec: Obj = {"clusterIP": address, "clusterIPs": [address], "ports": ports, "type": "ClusterIP"}
    meta = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def _services(addresses: Addresses) -> Iterator[Obj]:
    https = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": addresses.api_port}]
    labels = {"component": "apiserver", "provider": "kubernetes"}
    yield _service("kubernetes", "default", addresses.api_service, https, labels)
    dns: list[Obj] = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
    ]
    labels = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    yield _service("kube-dns", "kube-system", addresses.dns, dns, labels)


def _endpoints(addresses: Addresses) -> Iterator[Obj]:
    """Where `kubernetes` leads; kept by the server itself."""
    skip = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    yield {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": skip},
        "subsets": [
            {
                "addresses": [{"ip": addresses.api_host}],
                "ports": [{"name": "https", "port": addresses.api_port, "protocol": "TCP"}],
            }
        ],
    }
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [addresses.api_host], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": addresses.api_port, "protocol": "TCP"}],
    }


def _priority_classes() -> Iterator[Obj]:
    for name, value in SYSTEM_PRIORITIES.items():
        yield {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": f"Used for system critical pods: {name.removeprefix('system-')}.",
        }


class Bootstrap:
    """Makes the first objects through the ordinary write path."""

    def __init__(self, objects: Objects, kinds: Kinds, addresses: Addresses) -> None:
        self._objects, self._kinds, self._addresses = objects, kinds, addresses

    async def run(self) -> None:
        """Safe to repeat."""
        for name in _NAMESPACES:
            await self._ensure({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for role in cluster_roles():
            await self._ensure_role(role)
        for obj in (*cluster_role_bindings(), *namespaced_roles()):
            await self._ensure(obj)
        for obj in (*_priority_classes(), *_services(self._addresses)):
            await self._ensure(obj)
        for endpoints in _endpoints(self._addresses):
            await self._keep(endpoints)

    async def _ensure(self, obj: Obj) -> bool:
        """Make it if it is not there and its kind is served; whether it was made."""
        kind = self._kinds.of(gvk_of(obj))
        if kind is None:
            return False
        meta = obj["metadata"]
        namespace = meta.get("namespace", "")
        if await self._objects.find(kind, namespace, meta["name"]) is not None:
            return False
        write = Write(kind, namespace, meta["name"], SERVER, WriteOptions(manager="dure-apiserver"))
        try:
            await self._objects.create(write, thaw(obj))
        except AlreadyExists:
            return False
        return True

    async def _ensure_role(self, role: Obj) -> None:
        """A default role that lost rules in an upgrade or by accident gets them back, unless told otherwise."""
        kind = self._kinds.of(gvk_of(role))
        if kind is None or await self._ensure(role) or role.get("aggregationRule"):
            return

        def mended(old: Obj) -> Obj:
            annotations = old["metadata"].get("annotations") or {}
            if annotations.get("rbac.authorization.kubernetes.io/autoupdate") != "true":
                return old
            missing = [rule for rule in role["rules"] if rule not in (old.get("rules") or [])]
            return {**thaw(old), "rules": [*(old.get("rules") or []), *missing]} if missing else old

        await self._objects.amend(kind, "", role["metadata"]["name"], mended)

    async def _keep(self, obj: Obj) -> None:
        """Like `_ensure`, and put right when it differs: addresses may have moved since the last start."""
        kind = self._kinds.of(gvk_of(obj))
        if kind is None or await self._ensure(obj):
            return
        meta = obj["metadata"]
        wanted = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")}
        await self._objects.amend(kind, meta["namespace"], meta["name"], lambda old: {**thaw(old), **wanted})
