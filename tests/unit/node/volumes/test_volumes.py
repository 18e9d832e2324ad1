"""Volumes of running pods, as the container's mounts show them."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from dure.core.clock import rfc3339
from dure.node.ports import Mount
from tests.support.node import TestNode, node

MOUNT = [{"name": "v", "mountPath": "/v"}]


def pod_with(volume: dict[str, Any], *mounts: dict[str, Any], **more: Any) -> dict[str, Any]:
    container = {"name": "app", "image": "app:1", "volumeMounts": list(mounts) or MOUNT}
    return {"containers": [container], "volumes": [{"name": "v", **volume}], **more}


def mount_of(here: TestNode, target: str = "/v") -> Mount:
    return next(mount for mount in here.runtime.spec_of("app").mounts if mount.target == target)


async def make(here: TestNode, kind: str, name: str, **content: Any) -> None:
    meta = {"name": name, "namespace": "default"}
    await here.client.create({"apiVersion": "v1", "kind": kind, "metadata": meta, **content})


async def wait_text(path: Path, text: str) -> float:
    for tenths in range(50):
        if path.exists() and path.read_text() == text:
            return tenths / 10
        await asyncio.sleep(0.1)
    raise AssertionError(f"{path} never held {text!r}")


async def test_empty_dir_is_open_to_all_and_goes_with_the_pod(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await here.create(**pod_with({"emptyDir": {}}))
        pod = await here.wait_ready()
        source = Path(mount_of(here).source)
        uid = pod["metadata"]["uid"]
        assert source == tmp_path / f"nodes/dure-1/pods/{uid}/volumes/kubernetes.io~empty-dir/v"
        assert source.stat().st_mode & 0o7777 == 0o777
        (source / "kept").write_text("x")
        await here.client.delete("pods", "web", "default")
        await here.wait_gone()
        assert not source.exists()


async def test_a_config_map_follows_its_object(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await make(here, "ConfigMap", "c", data={"a": "1"}, binaryData={"b": base64.b64encode(b"\xff").decode()})
        await here.create(**pod_with({"configMap": {"name": "c", "defaultMode": 0o600}}))
        await here.wait_ready()
        mount = mount_of(here)
        folder = Path(mount.source)
        assert mount.read_only
        assert (folder / "a").read_text() == "1"
        assert (folder / "b").read_bytes() == b"\xff"
        assert (folder / "a").stat().st_mode & 0o777 == 0o600
        await here.client.patch("configmaps", "c", "default", {"data": {"a": "2"}, "binaryData": None})
        assert await wait_text(folder / "a", "2") < 1
        assert not (folder / "b").exists()


async def test_items_pick_rename_and_set_modes(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await make(here, "Secret", "s", data={"k": base64.b64encode(b"v").decode(), "other": ""})
        items = [{"key": "k", "path": "deep/name", "mode": 0o400}]
        await here.create(**pod_with({"secret": {"secretName": "s", "items": items}}))
        await here.wait_ready()
        folder = Path(mount_of(here).source)
        assert (folder / "deep/name").read_text() == "v"
        assert (folder / "deep/name").stat().st_mode & 0o777 == 0o400
        assert not (folder / "other").exists()


async def test_a_missing_source_is_told_and_waited_for(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await here.create(**pod_with({"secret": {"secretName": "late"}}))
        await asyncio.sleep(1)
        pod = await here.get()
        assert pod["status"]["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
        failed = 'Warning FailedMount: MountVolume.SetUp failed for volume "v" : secret "late" not found'
        assert failed in await here.events()
        before = here.clock.time()
        await make(here, "Secret", "late", data={})
        await here.wait_ready()
        assert here.clock.time() - before < 1


async def test_an_optional_source_may_be_missing_and_come_later(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await here.create(**pod_with({"configMap": {"name": "later", "optional": True}}))
        await here.wait_ready()
        folder = Path(mount_of(here).source)
        assert list(folder.iterdir()) != []  # the empty set is a set
        await make(here, "ConfigMap", "later", data={"a": "1"})
        await wait_text(folder / "a", "1")


async def test_downward_values_follow_the_pod(tmp_path: Path) -> None:
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    async with node(tmp_path) as here:
        await here.create(metadata={"labels": {"a": "1"}}, **pod_with({"downwardAPI": {"items": items}}))
        await here.wait_ready()
        file = Path(mount_of(here).source) / "labels"
        assert file.read_text() == 'a="1"'
        await here.client.patch("pods", "web", "default", {"metadata": {"labels": {"a": "2"}}})
        await wait_text(file, 'a="2"')


async def test_projected_sources_share_one_folder(tmp_path: Path) -> None:
    sources = [
        {"configMap": {"name": "c", "items": [{"key": "a", "path": "one"}]}},
        {"secret": {"name": "s"}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    async with node(tmp_path) as here:
        await make(here, "ConfigMap", "c", data={"a": "1"})
        await make(here, "Secret", "s", data={"two": base64.b64encode(b"2").decode()})
        await here.create(**pod_with({"projected": {"sources": sources}}))
        await here.wait_ready()
        folder = Path(mount_of(here).source)
        names = ("one", "two", "name")
        assert [(folder / name).read_text() for name in names] == ["1", "2", "web"]


async def test_tokens_are_renewed_before_they_expire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [{"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}]
    async with node(tmp_path) as here:
        asked: list[float] = []

        async def issue(resource: str, name: str, namespace: str, subresource: str, body: Any) -> Any:
            asked.append(here.clock.time())
            expires = rfc3339(here.clock.time() + body["spec"]["expirationSeconds"])
            return {"status": {"token": f"{namespace}/{name}#{len(asked)}", "expirationTimestamp": expires}}

        monkeypatch.setattr(here.client, "create_at", issue)
        await here.create(**pod_with({"projected": {"sources": sources}}))
        await here.wait_ready()
        file = Path(mount_of(here).source) / "token"
        assert file.read_text() == "default/default#1"
        await asyncio.sleep(500)
        assert file.read_text() == "default/default#2"
        assert 460 < asked[1] - asked[0] <= 480


async def test_host_path_types_are_checked(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        made = tmp_path / "made"
        await here.create(**pod_with({"hostPath": {"path": str(made), "type": "DirectoryOrCreate"}}))
        await here.wait_ready()
        assert mount_of(here).source == str(made)
        (tmp_path / "file").write_text("")
        wrong = {"hostPath": {"path": str(tmp_path / "file"), "type": "Directory"}}
        await here.create("wrong", **pod_with(wrong))
        await asyncio.sleep(1)
        assert any("hostPath type check failed" in text for text in await here.events())


async def test_a_claim_is_mounted_through_its_volume(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        await make(here, "PersistentVolumeClaim", "data", spec=spec)
        await here.create(**pod_with({"persistentVolumeClaim": {"claimName": "data"}}))
        await asyncio.sleep(1)
        assert any('persistentvolumeclaim "data" is not bound' in text for text in await here.events())
        place = {"path": str(tmp_path / "volumes/pv"), "type": "DirectoryOrCreate"}
        volume = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": place}
        await here.client.create(
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": volume}
        )
        await here.client.patch("persistentvolumeclaims", "data", "default", {"spec": {"volumeName": "pv"}})
        bound = {"status": {"phase": "Bound"}}
        await here.client.patch("persistentvolumeclaims", "data", "default", bound, subresource="status")
        await here.wait_ready()
        assert mount_of(here).source == str(tmp_path / "volumes/pv")
        assert (tmp_path / "volumes/pv").stat().st_mode & 0o777 == 0o777


async def test_a_sub_path_is_made_and_cannot_leave_the_volume(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        data = tmp_path / "data"
        data.mkdir()
        (data / "out").symlink_to("/etc")
        volume = {"hostPath": {"path": str(data)}}
        env = [{"name": "WHO", "value": "me"}]
        good = pod_with(volume, {"name": "v", "mountPath": "/v", "subPathExpr": "of/$(WHO)"})
        good["containers"][0]["env"] = env
        await here.create(**good)
        await here.wait_ready()
        assert mount_of(here).source == str(data / "of/me")
        await here.create("bad", **pod_with(volume, {"name": "v", "mountPath": "/v", "subPath": "out/ssl"}))
        pod = await here.wait_for(lambda pod: _message(pod), "bad")
        assert _message(pod) == 'subPath "out/ssl" leads out of its volume'


async def test_one_key_of_a_config_map_as_a_file(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await make(here, "ConfigMap", "c", data={"conf": "x"})
        mount = {"name": "v", "mountPath": "/etc/conf", "subPath": "conf"}
        await here.create(**pod_with({"configMap": {"name": "c"}}, mount))
        await here.wait_ready()
        assert Path(mount_of(here, "/etc/conf").source).read_text() == "x"


async def test_the_group_of_the_pod_owns_its_volumes(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await make(here, "ConfigMap", "c", data={"a": "1"})
        await here.create(**pod_with({"configMap": {"name": "c"}}, securityContext={"fsGroup": 1234}))
        await here.wait_ready()
        folder = Path(mount_of(here).source)
        assert folder.stat().st_gid == (folder / "a").stat().st_gid == 1234
        assert folder.stat().st_mode & 0o2000


def _message(pod: dict[str, Any]) -> str:
    entries = (pod.get("status") or {}).get("containerStatuses") or [{"state": {}}]
    return str(entries[0]["state"].get("waiting", {}).get("message", ""))


async def test_an_image_as_a_volume(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await here.create(**pod_with({"image": {"reference": "data:1", "pullPolicy": "IfNotPresent"}}))
        await here.wait_ready()
        mount = mount_of(here)
        assert mount.read_only
        assert (Path(mount.source) / "etc/passwd").exists()
        await here.client.delete("pods", "web", "default")
        await here.wait_gone()
        assert here.images.mounted == set()
