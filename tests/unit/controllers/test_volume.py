"""Claims find volumes, keep them while they are used, and give them back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dure.api.meta import is_deleting, name_of
from dure.controllers.protection import ProtectionReconciler
from dure.controllers.volume import ClaimReconciler, default_storage_class
from dure.core.json import Obj
from tests.unit.controllers.cluster import Cluster, cluster, plain_pod

CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"


@asynccontextmanager
async def started(folder: Path, **options: Any) -> AsyncIterator[Cluster]:
    async with cluster(
        lambda context: ClaimReconciler(context, folder).build(),
        lambda context: ProtectionReconciler(context).build(),
        **options,
    ) as there:
        yield there


def claim(name: str = "data", size: str = "1Gi", **spec: Any) -> Obj:
    body = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": body}


def volume(name: str, size: str = "1Gi", **spec: Any) -> Obj:
    body = {
        "capacity": {"storage": size},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": f"/tmp/{name}"},
        "storageClassName": "manual",
        **spec,
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": body}


def user(name: str = "user", of: str = "data") -> Obj:
    return plain_pod(name, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": of}}])


async def phase(there: Cluster, resource: str, name: str) -> str:
    found = await there.client.get(resource, name, "default" if resource == CLAIMS else "")
    return str(found["status"]["phase"])


async def bound_to(there: Cluster, name: str = "data") -> str:
    found = await there.client.get(CLAIMS, name, "default")
    return str(found["spec"].get("volumeName", ""))


async def test_a_claim_gets_a_folder_of_the_default_class(tmp_path: Path) -> None:
    async with started(tmp_path) as there:
        await there.client.create(claim())
        await there.settle()
        assert await phase(there, CLAIMS, "data") == "Pending"
        assert await there.events("FailedBinding") != []
        await there.client.create(default_storage_class())
        await there.settle()
        found = await there.client.get(CLAIMS, "data", "default")
        (made,) = (await there.client.list(VOLUMES)).items
    assert found["spec"]["storageClassName"] == "standard"
    assert found["spec"]["volumeName"] == name_of(made) == f"pvc-{found['metadata']['uid']}"
    assert found["status"] == {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}
    assert made["status"]["phase"] == "Bound"
    assert made["spec"]["hostPath"]["path"] == str(tmp_path / name_of(made))
    assert made["spec"]["claimRef"]["name"] == "data"


async def test_the_smallest_volume_that_fits_is_taken(tmp_path: Path) -> None:
    async with started(tmp_path) as there:
        for name, size in (("small", "1Gi"), ("large", "9Gi"), ("fitting", "3Gi")):
            await there.client.create(volume(name, size))
        await there.client.create(claim(size="2Gi", storageClassName="manual"))
        await there.settle()
        assert await bound_to(there) == "fitting"
        assert [await phase(there, VOLUMES, name) for name in ("small", "large", "fitting")] == [
            "Available",
            "Available",
            "Bound",
        ]


async def test_two_claims_never_share_a_volume(tmp_path: Path) -> None:
    async with started(tmp_path) as there:
        await there.client.create(claim("one", storageClassName="manual"))
        await there.client.create(claim("two", storageClassName="manual"))
        await there.settle()
        await there.client.create(volume("only"))
        await there.settle()
        assert sorted([await bound_to(there, "one"), await bound_to(there, "two")]) == ["", "only"]
        await there.client.create(volume("second"))
        await there.settle()
        assert sorted([await bound_to(there, "one"), await bound_to(there, "two")]) == ["only", "second"]


async def test_a_pair_that_names_each_other_finds_itself(tmp_path: Path) -> None:
    async with started(tmp_path) as there:
        await there.client.create(claim("by-claim", volumeName="named"))
        await there.settle()
        await there.client.create(volume("named"))
        reference = {"namespace": "default", "name": "by-volume"}
        await there.client.create(volume("reserved", "9Gi", claimRef=reference))
        await there.client.create(volume("free"))
        await there.client.create(claim("by-volume", storageClassName="manual"))
        await there.settle()
        assert await bound_to(there, "by-claim") == "named"
        assert await bound_to(there, "by-volume") == "reserved"


async def test_a_reserved_volume_is_nobody_elses(tmp_path: Path) -> None:
    async with started(tmp_path) as there:
        await there.client.create(volume("reserved", claimRef={"namespace": "default", "name": "other"}))
        await there.client.create(claim(storageClassName="manual"))
        await there.settle()
        assert await bound_to(there) == ""


async def test_a_made_volume_goes_with_its_claim_and_its_data(tmp_path: Path) -> None:
    async with started(tmp_path) as there:
        await there.client.create(default_storage_class())
        await there.client.create(claim())
        await there.settle()
        folder = tmp_path / await bound_to(there)
        folder.mkdir()
        (folder / "file").write_text("data")
        await there.client.delete(CLAIMS, "data", "default")
        await there.settle(5)
        assert (await there.client.list(VOLUMES)).items == []
        assert not folder.exists()


async def test_retained_volumes_stay_and_are_not_given_away(tmp_path: Path) -> None:
    async with started(tmp_path) as there:
        await there.client.create({**default_storage_class(), "reclaimPolicy": "Retain"})
        await there.client.create(claim())
        await there.settle()
        name = await bound_to(there)
        (tmp_path / name).mkdir()
        await there.client.delete(CLAIMS, "data", "default")
        await there.settle(5)
        assert await phase(there, VOLUMES, name) == "Released"
        await there.client.create(claim())
        await there.settle()
        assert await bound_to(there) != name
        assert (tmp_path / name).exists()


async def test_a_claim_in_use_stays_until_its_pod_has_gone(tmp_path: Path) -> None:
    """The data of a running database went at once when somebody deleted its claim."""
    async with started(tmp_path) as there:
        await there.client.create(default_storage_class())
        await there.client.create(claim())
        await there.client.create(user())
        await there.settle()
        folder = tmp_path / await bound_to(there)
        folder.mkdir()
        await there.client.delete(CLAIMS, "data", "default")
        await there.settle(5)
        assert is_deleting(await there.client.get(CLAIMS, "data", "default"))
        assert folder.exists()
        await there.client.delete("pods", "user", "default")
        await there.settle(5)
        assert not await there.exists(CLAIMS, "data")
        assert not folder.exists()


async def test_a_finished_pod_holds_no_claim(tmp_path: Path) -> None:
    async with started(tmp_path) as there:
        there.kubelet.fate = lambda pod: "succeeded"
        await there.client.create(claim())
        await there.client.create(user())
        await there.settle()
        await there.client.delete(CLAIMS, "data", "default")
        await there.settle(5)
        assert not await there.exists(CLAIMS, "data")


async def test_a_bound_volume_stays_until_its_claim_has_gone(tmp_path: Path) -> None:
    async with started(tmp_path) as there:
        await there.client.create(volume("v", persistentVolumeReclaimPolicy="Retain"))
        await there.client.create(claim(storageClassName="manual"))
        await there.settle()
        await there.client.delete(VOLUMES, "v")
        await there.settle()
        assert is_deleting(await there.client.get(VOLUMES, "v"))
        await there.client.delete(CLAIMS, "data", "default")
        await there.settle(5)
        assert not await there.exists(VOLUMES, "v", "")


async def test_a_claim_whose_volume_was_taken_is_lost(tmp_path: Path) -> None:
    async with started(tmp_path) as there:
        await there.client.create(volume("v"))
        await there.client.create(claim(storageClassName="manual"))
        await there.settle()
        await there.client.delete(VOLUMES, "v")
        await there.client.patch(VOLUMES, "v", "", {"metadata": {"finalizers": None}})
        await there.settle()
        assert await phase(there, CLAIMS, "data") == "Lost"


async def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    async with started(tmp_path) as there:
        await there.client.create(default_storage_class())
        await there.client.create(claim("block", volumeMode="Block"))
        await there.client.create(claim("absent", storageClassName="nope"))
        await there.settle()
        assert sorted(await there.events("ProvisioningFailed")) == [
            "dure.dev/local makes file systems, not block volumes",
            'storageclass.storage.k8s.io "nope" not found',
        ]
