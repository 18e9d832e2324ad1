"""Endpoints and EndpointSlices follow services and pods; hand-made Endpoints are mirrored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dure.api.meta import annotations_of, labels_of, name_of, uid_of
from dure.controllers.endpoint_rules import MANAGED_BY, SERVICE_NAME, desired_slices
from dure.controllers.endpoints import EndpointsReconciler
from dure.core.json import Obj
from tests.unit.controllers.cluster import NODE, Cluster, cluster, plain_pod

SLICES = "endpointslices.discovery.k8s.io"


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[Cluster]:
    async with cluster(lambda context: EndpointsReconciler(context).build(), **options) as there:
        yield there


def service(name: str = "web", **spec: Any) -> Obj:
    body = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}], **spec}
    meta = {"name": name, "namespace": "default", "labels": {"team": "red"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": body}


async def slices(there: Cluster, name: str = "web") -> list[Obj]:
    return await there.all(SLICES, **{SERVICE_NAME: name})


async def addresses(there: Cluster, name: str = "web") -> list[str]:
    """Of ready endpoints, of all slices."""
    found = [entry for item in await slices(there, name) for entry in item["endpoints"]]
    return sorted(entry["addresses"][0] for entry in found if entry["conditions"]["ready"])


async def endpoints(there: Cluster, name: str = "web") -> Any:
    return (await there.client.get("endpoints", name, "default")).get("subsets")


async def test_a_ready_pod_is_an_endpoint() -> None:
    async with started() as there:
        await there.client.create(service())
        await there.client.create(plain_pod("one"))
        await there.settle()
        pod = await there.client.get("pods", "one", "default")
        (item,) = await slices(there)
        subsets = await endpoints(there)
    address, target = pod["status"]["podIP"], {"kind": "Pod", "namespace": "default", "name": "one", "uid": uid_of(pod)}
    assert item["endpoints"] == [
        {
            "addresses": [address],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": NODE,
            "targetRef": target,
        }
    ]
    assert item["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]
    assert item["addressType"] == "IPv4"
    assert labels_of(item)["team"] == "red"
    assert labels_of(item)[MANAGED_BY] == "endpointslice-controller.k8s.io"
    assert subsets == [
        {
            "addresses": [{"ip": address, "nodeName": NODE, "targetRef": target}],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        }
    ]


async def test_a_service_without_pods_has_empty_ones() -> None:
    async with started() as there:
        await there.client.create(service())
        await there.settle()
        (item,) = await slices(there)
        assert (item.get("endpoints") or [], await endpoints(there)) == ([], None)


async def test_readiness_decides() -> None:
    async with started() as there:
        there.kubelet.fate = lambda pod: "running"
        await there.client.create(service())
        await there.client.create(plain_pod("one"))
        await there.settle()
        assert await addresses(there) == []
        assert list((await endpoints(there))[0]) == ["notReadyAddresses", "ports"]
        there.kubelet.fate = lambda pod: "ready"
        there.kubelet.look_again()
        await there.settle()
        assert len(await addresses(there)) == 1
        assert list((await endpoints(there))[0]) == ["addresses", "ports"]


async def test_an_ending_pod_serves_but_is_not_ready() -> None:
    async with started() as there:
        there.kubelet.stop_seconds = 30
        await there.client.create(service())
        await there.client.create(plain_pod("one"))
        await there.settle()
        await there.client.delete("pods", "one", "default")
        await there.settle()
        (item,) = await slices(there)
        assert item["endpoints"][0]["conditions"] == {"ready": False, "serving": True, "terminating": True}
        assert await endpoints(there) is None
        await there.settle(60)
        (item,) = await slices(there)
        assert (item.get("endpoints") or []) == []


async def test_a_finished_pod_is_none() -> None:
    async with started() as there:
        await there.client.create(service())
        await there.client.create(plain_pod("one"))
        await there.settle()
        await there.kubelet.set_status(await there.client.get("pods", "one", "default"), "failed")
        await there.settle()
        assert (await slices(there))[0].get("endpoints") in ([], None)


async def test_not_ready_addresses_may_be_published() -> None:
    async with started() as there:
        there.kubelet.fate = lambda pod: "running"
        await there.client.create(service(publishNotReadyAddresses=True))
        await there.client.create(plain_pod("one"))
        await there.settle()
        (item,) = await slices(there)
        assert item["endpoints"][0]["conditions"] == {"ready": True, "serving": False, "terminating": False}
        assert "addresses" in (await endpoints(there))[0]


async def test_labels_and_selectors_move_pods_between_services() -> None:
    async with started() as there:
        await there.client.create(service())
        await there.client.create(service("other", selector={"app": "other"}))
        await there.client.create(plain_pod("one"))
        await there.settle()
        await there.client.patch("pods", "one", "default", {"metadata": {"labels": {"app": "other"}}})
        await there.settle()
        assert (len(await addresses(there)), len(await addresses(there, "other"))) == (0, 1)
        await there.client.patch("services", "web", "default", {"spec": {"selector": {"app": "other"}}})
        await there.settle()
        assert (len(await addresses(there)), len(await addresses(there, "other"))) == (1, 1)


async def test_named_ports_differ_from_pod_to_pod() -> None:
    async with started() as there:
        await there.client.create(service(ports=[{"port": 80, "targetPort": "http"}]))
        for name, number in (("old", 8080), ("new", 9090), ("none", 0)):
            pod = plain_pod(name)
            if number:
                pod["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": number}]
            await there.client.create(pod)
        await there.settle()
        found = {item["ports"][0]["port"]: len(item["endpoints"]) for item in await slices(there) if item.get("ports")}
    assert found == {8080: 1, 9090: 1}


async def test_a_headless_service_says_so_and_gives_hostnames() -> None:
    async with started() as there:
        await there.client.create(service(clusterIP="None", ports=[]))
        await there.client.create(plain_pod("one", hostname="db-0", subdomain="web"))
        await there.settle()
        (item,) = await slices(there)
        found = await there.client.get("endpoints", "web", "default")
    assert "service.kubernetes.io/headless" in labels_of(item)
    assert "service.kubernetes.io/headless" in labels_of(found)
    assert item["endpoints"][0]["hostname"] == "db-0"
    assert found["subsets"][0]["addresses"][0]["hostname"] == "db-0"


async def test_a_quiet_service_costs_no_writes() -> None:
    async with started() as there:
        await there.client.create(service())
        await there.client.create(service("plain", clusterIP="None", ports=[]))
        for number in range(3):
            await there.client.create(plain_pod(f"p{number}"))
        await there.settle(5)
        before = there.server_revision()
        await there.client.patch("pods", "p0", "default", {"metadata": {"annotations": {"a": "b"}}})
        await there.settle(500)
        assert there.server_revision() == before + 1


async def test_a_service_that_goes_takes_its_endpoints_along() -> None:
    async with started() as there:
        await there.client.create(service())
        await there.client.create(plain_pod("one"))
        await there.settle()
        await there.client.delete("services", "web", "default")
        await there.settle()
        assert await slices(there) == []
        assert not await there.exists("endpoints", "web")


async def test_what_somebody_deletes_or_spoils_comes_back() -> None:
    async with started() as there:
        await there.client.create(service())
        await there.client.create(plain_pod("one"))
        await there.settle()
        (item,) = await slices(there)
        await there.client.delete(SLICES, name_of(item), "default")
        await there.client.patch("endpoints", "web", "default", {"subsets": None})
        await there.settle()
        assert len(await addresses(there)) == 1
        assert len(await endpoints(there)) == 1


def ready_pod(number: int) -> Obj:
    meta = {"name": f"p{number}", "namespace": "default", "uid": f"{number:04}"}
    status = {
        "podIP": f"10.244.{number // 200}.{number % 200 + 1}",
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    return {"metadata": meta, "spec": {"containers": [], "nodeName": "n"}, "status": status}


def test_more_than_a_hundred_are_split_and_a_change_touches_one_slice() -> None:
    wish = {"apiVersion": "v1", "kind": "Service", **service()}
    wish["metadata"] = {**wish["metadata"], "uid": "s"}
    pods = [ready_pod(number) for number in range(1, 251)]
    first = desired_slices(wish, pods)
    assert [len(item["endpoints"]) for item in first] == [100, 100, 50]
    more = desired_slices(wish, [ready_pod(0), *pods], first)
    assert [new == old for new, old in zip(more, first, strict=True)] == [True, True, False]
    fewer = desired_slices(wish, pods[1:], first)
    assert [new == old for new, old in zip(fewer, first, strict=True)] == [False, True, True]
    assert [len(item["endpoints"]) for item in desired_slices(wish, pods[:100], first)] == [100]
    last = desired_slices(wish, pods[200:], first)
    assert [name_of(item) for item in last] == [name_of(first[2])]


def test_every_endpoint_is_in_exactly_one_slice() -> None:
    wish = {**service(), "metadata": {"name": "web", "namespace": "default", "uid": "s"}}
    present: list[Obj] = []
    for start, end in ((0, 120), (60, 320), (300, 310), (0, 400), (399, 400)):
        present = desired_slices(wish, [ready_pod(number) for number in range(start, end)], present)
        names = sorted(entry["targetRef"]["uid"] for item in present for entry in item["endpoints"])
        assert names == [f"{number:04}" for number in range(start, end)]
        assert all(0 < len(item["endpoints"]) <= 100 for item in present)


def by_hand(name: str, *addresses: str, **meta: Any) -> Obj:
    subset = {"addresses": [{"ip": address} for address in addresses], "ports": [{"name": "http", "port": 9}]}
    metadata = {"name": name, "namespace": "default", **meta}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": [subset]}


async def test_endpoints_made_by_hand_are_mirrored() -> None:
    async with started() as there:
        await there.client.create(service("ext", selector=None))
        await there.client.create(by_hand("ext", "192.0.2.1", annotations={"note": "x"}))
        await there.settle()
        (item,) = await slices(there, "ext")
        assert labels_of(item)[MANAGED_BY] == "endpointslicemirroring-controller.k8s.io"
        assert annotations_of(item).get("note") == "x"
        assert [entry["addresses"] for entry in item["endpoints"]] == [["192.0.2.1"]]
        assert item["ports"] == [{"name": "http", "protocol": "TCP", "port": 9}]
        changed = by_hand("ext", "192.0.2.1", "192.0.2.2")
        await there.client.update(changed)
        await there.settle()
        assert len(await addresses(there, "ext")) == 2
        await there.client.delete("endpoints", "ext", "default")
        await there.settle()
        assert await slices(there, "ext") == []


async def test_slices_made_by_hand_are_left_alone() -> None:
    async with started() as there:
        await there.client.create(service("ext", selector=None))
        await there.client.create(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "mine", "namespace": "default", "labels": {SERVICE_NAME: "ext"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["192.0.2.9"]}],
                "ports": [],
            }
        )
        await there.settle()
        assert [name_of(item) for item in await slices(there, "ext")] == ["mine"]


async def test_kubernetes_own_endpoints_are_not_mirrored() -> None:
    async with started() as there:
        await there.settle()
        assert [name_of(item) for item in await slices(there, "kubernetes")] == ["kubernetes"]
