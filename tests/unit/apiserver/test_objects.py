"""Create, read, update and delete, through the client that controllers use."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dure.core.errors import AlreadyExists, BadRequest, Conflict, Forbidden, Invalid, NotFound, TooManyRequests
from dure.core.json import thaw
from tests.support.cluster import api_server


def config_map(name: str = "a", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def pod(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}], **spec},
    }


ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}


async def test_a_created_object_gets_what_only_the_server_gives() -> None:
    async with api_server() as (_, client):
        made = await client.create(config_map(k="v"))
        meta = made["metadata"]
        assert made["data"] == {"k": "v"}
        assert len(meta["uid"]) == 36
        assert meta["creationTimestamp"].endswith("Z")
        assert await client.get("configmaps", "a", "default") == made


async def test_creating_twice_is_refused_in_upstreams_words() -> None:
    async with api_server() as (_, client):
        await client.create(config_map())
        with pytest.raises(AlreadyExists) as caught:
            await client.create(config_map())
        assert caught.value.message == 'configmaps "a" already exists'
        assert caught.value.details == {"name": "a", "kind": "configmaps"}


async def test_a_generated_name_begins_with_its_base() -> None:
    async with api_server() as (_, client):
        made = await client.create({**config_map(), "metadata": {"generateName": "x-", "namespace": "default"}})
        assert made["metadata"]["name"].startswith("x-")
        assert len(made["metadata"]["name"]) == 7


async def test_an_object_without_a_name_is_invalid() -> None:
    async with api_server() as (_, client):
        with pytest.raises(Invalid) as caught:
            await client.create({**config_map(), "metadata": {"namespace": "default"}})
        assert caught.value.message == (
            'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required'
        )


async def test_nothing_is_made_in_a_namespace_that_is_not_there() -> None:
    async with api_server() as (_, client):
        with pytest.raises(NotFound) as caught:
            await client.create({**config_map(), "metadata": {"name": "a", "namespace": "nope"}})
        assert caught.value.message == 'namespaces "nope" not found'


async def test_nothing_is_made_in_a_namespace_that_is_ending() -> None:
    async with api_server() as (_, client):
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "old"}})
        await client.delete("namespaces", "old")
        with pytest.raises(Forbidden) as caught:
            await client.create({**config_map(), "metadata": {"name": "a", "namespace": "old"}})
        assert caught.value.message == (
            'configmaps "a" is forbidden: unable to create new content in namespace old because it is being terminated'
        )
        assert caught.value.details["causes"][0]["reason"] == "NamespaceTerminating"


async def test_a_namespace_goes_when_it_is_finalized() -> None:
    async with api_server() as (_, client):
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "old"}})
        await client.delete("namespaces", "old")
        ending = await client.get("namespaces", "old")
        assert ending["status"]["phase"] == "Terminating"
        final = {**thaw(ending), "spec": {}}
        await client.update(final, subresource="finalize")
        with pytest.raises(NotFound):
            await client.get("namespaces", "old")


async def test_a_stale_update_is_a_conflict() -> None:
    async with api_server() as (_, client):
        first = await client.create(config_map(k="1"))
        await client.update({**thaw(first), "data": {"k": "2"}})
        with pytest.raises(Conflict) as caught:
            await client.update({**thaw(first), "data": {"k": "3"}})
        assert caught.value.message == (
            'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )


async def test_an_update_without_a_revision_wins() -> None:
    async with api_server() as (_, client):
        await client.create(config_map(k="1"))
        made = await client.update(config_map(k="2"))
        assert made["data"] == {"k": "2"}


async def test_an_unchanged_update_writes_nothing() -> None:
    async with api_server() as (server, client):
        first = await client.create(config_map(k="1"))
        revision = server.store.revision
        again = await client.update(thaw(first))
        assert again == first
        assert server.store.revision == revision


async def test_an_unchanged_patch_writes_nothing() -> None:
    async with api_server() as (_server, client):
        first = await client.create(config_map(k="1"))
        again = await client.patch("configmaps", "a", "default", {"data": {"k": "1"}})
        assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_concurrent_patches_all_arrive() -> None:
    async with api_server() as (_, client):
        await client.create(config_map())
        patches = [client.patch("configmaps", "a", "default", {"data": {f"k{i}": "v"}}) for i in range(20)]
        await asyncio.gather(*patches)
        assert len((await client.get("configmaps", "a", "default"))["data"]) == 20


async def test_a_patch_that_names_an_old_revision_is_a_conflict() -> None:
    async with api_server() as (_, client):
        first = await client.create(config_map())
        await client.patch("configmaps", "a", "default", {"data": {"x": "y"}})
        stale = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"x": "z"}}
        with pytest.raises(Conflict):
            await client.patch("configmaps", "a", "default", stale)


async def test_a_write_may_not_change_name_or_uid() -> None:
    async with api_server() as (_, client):
        first = await client.create(config_map())
        with pytest.raises(BadRequest):
            await client.patch("configmaps", "a", "default", {"metadata": {"name": "b"}})
        other = thaw(first)
        other["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111"
        with pytest.raises(Conflict) as caught:
            await client.update(other)
        assert "Precondition failed: UID in precondition" in caught.value.message


async def test_status_and_spec_are_written_apart() -> None:
    async with api_server() as (_, client):
        node = await client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
        node = await client.update({**thaw(node), "status": {"phase": "x"}})
        assert "phase" not in node["status"]
        changed = {**thaw(node), "spec": {"unschedulable": True}, "status": {"phase": "Running"}}
        node = await client.update(changed, subresource="status")
        assert node["status"]["phase"] == "Running"
        assert "unschedulable" not in node["spec"]


async def test_dry_run_stores_nothing() -> None:
    async with api_server() as (server, client):
        revision = server.store.revision
        made = await client.create(config_map(), dry_run=True)
        assert made["metadata"]["uid"]
        assert server.store.revision == revision


async def test_deleting_gives_a_status_and_the_object_is_gone() -> None:
    async with api_server() as (_, client):
        await client.create(config_map())
        await client.delete("configmaps", "a", "default")
        with pytest.raises(NotFound):
            await client.get("configmaps", "a", "default")
        with pytest.raises(NotFound) as caught:
            await client.delete("configmaps", "a", "default")
        assert caught.value.message == 'configmaps "a" not found'


async def test_an_object_with_a_finalizer_stays_until_it_is_taken_off() -> None:
    async with api_server() as (_, client):
        held = config_map()
        held["metadata"]["finalizers"] = ["example.com/held"]
        await client.create(held)
        await client.delete("configmaps", "a", "default")
        marked = await client.get("configmaps", "a", "default")
        assert marked["metadata"]["deletionTimestamp"]
        assert marked["metadata"]["deletionGracePeriodSeconds"] == 0
        await client.patch("configmaps", "a", "default", {"metadata": {"finalizers": None}})
        with pytest.raises(NotFound):
            await client.get("configmaps", "a", "default")


async def test_no_finalizer_can_be_added_under_deletion() -> None:
    async with api_server() as (_, client):
        held = config_map()
        held["metadata"]["finalizers"] = ["example.com/held"]
        await client.create(held)
        await client.delete("configmaps", "a", "default")
        patch = {"metadata": {"finalizers": ["example.com/held", "example.com/more"]}}
        with pytest.raises(Invalid) as caught:
            await client.patch("configmaps", "a", "default", patch)
        assert "no new finalizers can be added if the object is being deleted" in caught.value.message


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
async def test_propagation_policies_become_finalizers(policy: str, finalizer: str) -> None:
    async with api_server() as (_, client):
        await client.create(config_map())
        await client.delete("configmaps", "a", "default", propagation=policy)
        assert (await client.get("configmaps", "a", "default"))["metadata"]["finalizers"] == [finalizer]


async def test_a_deletion_precondition_must_hold() -> None:
    async with api_server() as (_, client):
        await client.create(config_map())
        with pytest.raises(Conflict) as caught:
            await client.delete("configmaps", "a", "default", uid="other")
        assert "the UID in the precondition (other) does not match" in caught.value.message


async def test_a_collection_is_deleted_by_label() -> None:
    async with api_server() as (_, client):
        for name, color in [("a", "red"), ("b", "red"), ("c", "blue")]:
            labelled = config_map(name)
            labelled["metadata"]["labels"] = {"color": color}
            await client.create(labelled)
        await client.delete_collection("configmaps", "default", labels="color=red")
        assert [item["metadata"]["name"] for item in (await client.list("configmaps", "default")).items] == ["c"]


async def test_a_pod_on_no_node_goes_at_once() -> None:
    async with api_server() as (_, client):
        await client.create(thaw(ACCOUNT))
        await client.create(pod())
        await client.delete("pods", "web", "default")
        with pytest.raises(NotFound):
            await client.get("pods", "web", "default")


async def test_a_pod_on_a_node_has_its_grace_which_may_only_be_shortened() -> None:
    async with api_server() as (_, client):
        await client.create(thaw(ACCOUNT))
        await client.create(pod(nodeName="n1"))
        await client.delete("pods", "web", "default")
        marked = await client.get("pods", "web", "default")
        assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
        assert marked["metadata"]["generation"] == 2
        await client.delete("pods", "web", "default", grace_seconds=60)
        assert (await client.get("pods", "web", "default")) == marked
        await client.delete("pods", "web", "default", grace_seconds=5)
        assert (await client.get("pods", "web", "default"))["metadata"]["deletionGracePeriodSeconds"] == 5
        await client.delete("pods", "web", "default", grace_seconds=0)
        with pytest.raises(NotFound):
            await client.get("pods", "web", "default")


async def test_a_pod_gets_its_accounts_token_and_ca_mounted() -> None:
    async with api_server() as (_, client):
        await client.create(thaw(ACCOUNT))
        made = await client.create(pod())
        (volume,) = made["spec"]["volumes"]
        assert volume["name"].startswith("kube-api-access-")
        assert [next(iter(source)) for source in volume["projected"]["sources"]] == [
            "serviceAccountToken",
            "configMap",
            "downwardAPI",
        ]
        (mount,) = made["spec"]["containers"][0]["volumeMounts"]
        assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"


async def test_a_pod_that_wants_no_token_gets_none() -> None:
    async with api_server() as (_, client):
        await client.create(thaw(ACCOUNT))
        made = await client.create(pod(automountServiceAccountToken=False))
        assert "volumes" not in made["spec"]


async def test_a_pod_without_its_account_is_refused() -> None:
    async with api_server() as (_, client):
        with pytest.raises(Forbidden) as caught:
            await client.create(pod())
        assert caught.value.message == (
            'pods "web" is forbidden: error looking up service account default/default: '
            'serviceaccount "default" not found'
        )


async def test_a_pod_waits_for_the_default_account_of_its_new_namespace() -> None:
    """A pod created right after its namespace was refused; upstream waits for the controller that makes the account."""
    async with api_server() as (_, client), asyncio.TaskGroup() as tasks:
        made = tasks.create_task(client.create(pod()))
        await asyncio.sleep(0.5)
        assert not made.done()
        await client.create(thaw(ACCOUNT))
        assert (await made)["spec"]["serviceAccountName"] == "default"


async def test_a_lease_may_be_without_a_holder() -> None:
    """A leader that lets go of its lease writes an empty holder, and was refused."""
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l", "namespace": "default"}}
    async with api_server() as (_, client):
        made = await client.create({**lease, "spec": {"holderIdentity": "", "leaseTransitions": 1}})
        assert made["spec"]["holderIdentity"] == ""


async def test_a_pod_is_bound_once() -> None:
    async with api_server() as (_, client):
        await client.create(thaw(ACCOUNT))
        await client.create(pod())
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"}, "target": {"name": "n1"}}
        await client.create_at("pods", "web", "default", "binding", binding)
        bound = await client.get("pods", "web", "default")
        assert bound["spec"]["nodeName"] == "n1"
        assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [("PodScheduled", "True")]
        with pytest.raises(Conflict) as caught:
            await client.create_at("pods", "web", "default", "binding", binding)
        assert caught.value.message == (
            'Operation cannot be fulfilled on pods/binding "web": pod web is already assigned to node "n1"'
        )


async def test_scale_reads_and_writes_the_replicas() -> None:
    async with api_server() as (_, client):
        await client.create(deployment())
        scale = await client.get("deployments.apps", "web", "default", subresource="scale")
        assert (scale["kind"], scale["spec"], scale["status"]) == (
            "Scale",
            {"replicas": 1},
            {"replicas": 0, "selector": "app=web"},
        )
        patch = {"spec": {"replicas": 7}}
        await client.patch("deployments.apps", "web", "default", patch, subresource="scale")
        changed = await client.get("deployments.apps", "web", "default")
        assert changed["spec"]["replicas"] == 7
        assert changed["metadata"]["generation"] == 2
        with pytest.raises(Invalid):
            await client.patch("deployments.apps", "web", "default", {"spec": {"replicas": -1}}, subresource="scale")


def deployment() -> dict[str, Any]:
    labels = {"app": "web"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }


async def test_an_eviction_respects_the_budget() -> None:
    async with api_server() as (_, client):
        await client.create(thaw(ACCOUNT))
        running = pod()
        running["metadata"]["labels"] = {"app": "web"}
        made = await client.create(running)
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await client.update({**thaw(made), "status": status}, subresource="status")
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "b", "namespace": "default"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
        }
        made = await client.create(budget)
        counted = {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
        counted["observedGeneration"] = made["metadata"]["generation"]
        await client.update({**thaw(made), "status": counted}, subresource="status")
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}}
        with pytest.raises(TooManyRequests) as caught:
            await client.create_at("pods", "web", "default", "eviction", eviction)
        assert caught.value.details["causes"][0]["message"] == (
            "The disruption budget b needs 1 healthy pods and has 1 currently"
        )
        current = await client.get("poddisruptionbudgets.policy", "b", "default")
        counted["disruptionsAllowed"] = 1
        await client.update({**thaw(current), "status": counted}, subresource="status")
        await client.create_at("pods", "web", "default", "eviction", eviction)
        with pytest.raises(NotFound):
            await client.get("pods", "web", "default")


async def test_events_are_one_store_seen_two_ways() -> None:
    async with api_server() as (_, client):
        core = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "e", "namespace": "default"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"},
            "reason": "Started",
            "message": "hello",
            "type": "Normal",
        }
        await client.create(core)
        seen = await client.get("events.events.k8s.io", "e", "default")
        assert (seen["apiVersion"], seen["note"], seen["regarding"]["name"]) == ("events.k8s.io/v1", "hello", "web")
