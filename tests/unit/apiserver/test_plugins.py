"""Admission: priorities, limits of a namespace, rights nobody may hand out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dure.apiserver.ports import VerifiedUser
from dure.client.client import Client
from dure.core.errors import Forbidden
from tests.support.cluster import api_server, client_of

RBAC = "rbac.authorization.k8s.io"


def pod(**spec: Any) -> dict[str, Any]:
    meta = {"name": "web", "namespace": "default"}
    container: dict[str, Any] = {"name": "c", "image": "i"}
    if "resources" in spec:
        container["resources"] = spec.pop("resources")
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], **spec}}


async def make_account(client: Client) -> None:
    meta = {"name": "default", "namespace": "default"}
    await client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})


async def limit(client: Client, **limits: Any) -> None:
    meta = {"name": "l", "namespace": "default"}
    spec = {"limits": [{"type": "Container", **limits}]}
    await client.create({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": spec})


async def test_a_priority_comes_from_its_class() -> None:
    async with api_server() as (_, client):
        await make_account(client)
        made = await client.create(pod(priorityClassName="system-node-critical"))
        assert made["spec"]["priority"] == 2_000_001_000


async def test_an_unknown_priority_class_is_refused() -> None:
    async with api_server() as (_, client):
        await make_account(client)
        with pytest.raises(Forbidden) as caught:
            await client.create(pod(priorityClassName="none"))
        assert caught.value.message == 'pods "web" is forbidden: no PriorityClass with name none was found'


async def test_the_default_class_holds_for_pods_without_one() -> None:
    async with api_server() as (_, client):
        await make_account(client)
        await client.create(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": "usual"},
                "value": 7,
                "globalDefault": True,
            }
        )
        made = await client.create(pod())
        assert (made["spec"]["priorityClassName"], made["spec"]["priority"]) == ("usual", 7)


async def test_limits_are_filled_in_and_count_for_the_quality_of_service() -> None:
    async with api_server() as (_, client):
        await make_account(client)
        await limit(client, default={"cpu": "1"}, defaultRequest={"cpu": "500m"})
        made = await client.create(pod())
        assert made["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}
        assert made["status"]["qosClass"] == "Burstable"


async def test_a_chosen_limit_is_also_the_request() -> None:
    async with api_server() as (_, client):
        await make_account(client)
        await limit(client, default={"cpu": "1"}, defaultRequest={"cpu": "500m"})
        made = await client.create(pod(resources={"limits": {"cpu": "2"}}))
        assert made["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}


async def test_what_is_over_the_maximum_is_refused() -> None:
    async with api_server() as (_, client):
        await make_account(client)
        await limit(client, max={"cpu": "1"})
        with pytest.raises(Forbidden) as caught:
            await client.create(pod(resources={"limits": {"cpu": "2"}}))
        assert caught.value.message == ('pods "web" is forbidden: maximum cpu usage per Container is 1, but limit is 2')


async def test_nobody_hands_out_rights_they_do_not_have() -> None:
    async with api_server() as (server, client):
        manage = {"verbs": ["*"], "apiGroups": [RBAC], "resources": ["roles", "rolebindings"]}
        rights = {"verbs": ["create", "update"], "apiGroups": [RBAC], "resources": ["roles", "rolebindings"]}
        meta = {"name": "manager", "namespace": "default"}
        pods = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
        await client.create({"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": meta, "rules": [rights, pods]})
        reference = {"apiGroup": RBAC, "kind": "Role", "name": "manager"}
        subjects = [{"kind": "User", "name": "alice"}]
        binding = {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": meta, "roleRef": reference}
        await client.create({**binding, "subjects": subjects})
        await asyncio.sleep(0)
        alice = client_of(server, VerifiedUser("alice"))
        other = {"name": "other", "namespace": "default"}
        role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": other}
        with pytest.raises(Forbidden) as caught:
            await alice.create({**role, "rules": [manage]})
        assert "is attempting to grant RBAC permissions not currently held:\n" in caught.value.message
        await alice.create({**role, "rules": [pods]})
        admin = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"}
        with pytest.raises(Forbidden) as caught:
            await alice.create({**binding, "metadata": other, "roleRef": admin, "subjects": subjects})
        assert '{APIGroups:["*"], Resources:["*"], Verbs:["*"]}' in caught.value.message
        await alice.create({**binding, "metadata": other, "subjects": subjects})
