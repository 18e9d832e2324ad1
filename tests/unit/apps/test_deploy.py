"""Waiting for an application: what is said when it does not come up."""

from __future__ import annotations

from pathlib import Path

import pytest

from dure.apps.application import Application
from dure.apps.deploy import Deployer, DeployFailed
from dure.client.client import Client
from dure.core.json import Obj
from tests.support.cluster import api_server

NO_IMAGE = {"reason": "ImagePullBackOff", "message": "no such host"}


def pod() -> Obj:
    spec = {"containers": [{"name": "c", "image": "gone.invalid/x:1"}], "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"}, "spec": spec}


async def account(client: Client) -> None:
    meta = {"name": "default", "namespace": "default"}
    await client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})


async def test_the_timeout_says_why() -> None:
    async with api_server() as (_, client):
        await account(client)
        deployer = Deployer(client, Application("app", Path(), "default", (), (pod(),)), {})
        await deployer.apply(lambda _: None)
        entry = {"name": "c", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        status = {"containerStatuses": [{**entry, "state": {"waiting": NO_IMAGE}}]}
        await client.patch("pods", "web", "default", {"status": status}, subresource="status")
        with pytest.raises(DeployFailed) as failed:
            await deployer.wait_ready(lambda _: None, within=20)
        assert str(failed.value).splitlines() == [
            "not ready after 20 s:",
            "  pod/web Pending (c: ImagePullBackOff: no such host)",
            "  → look closer: dure kubectl -n default describe pods, dure kubectl -n default logs POD",
        ]


async def test_a_failure_says_why_too() -> None:
    """A Deployment past its deadline said `timed out progressing`, and not that its image cannot be had."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "once", "controller": True}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}}
    job["spec"] = {"template": {"spec": {"restartPolicy": "Never", "containers": pod()["spec"]["containers"]}}}
    async with api_server() as (_, client):
        await account(client)
        deployer = Deployer(client, Application("app", Path(), "default", (), (job,)), {})
        await deployer.apply(lambda _: None)
        uid = (await client.get("jobs.batch", "once", "default"))["metadata"]["uid"]
        mine = pod()
        mine["metadata"]["ownerReferences"] = [{**owner, "uid": uid}]
        await client.create(mine)
        entry = {"name": "c", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        status = {"containerStatuses": [{**entry, "state": {"waiting": NO_IMAGE}}]}
        await client.patch("pods", "web", "default", {"status": status}, subresource="status")
        late = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too late"}
        change = {
            "status": {"startTime": "2026-01-01T00:00:00Z", "conditions": [{**late, "type": "FailureTarget"}, late]}
        }
        await client.patch("jobs.batch", "once", "default", change, subresource="status")
        with pytest.raises(DeployFailed, match=r"job/once too late \(c: ImagePullBackOff: no such host\)"):
            await deployer.wait_ready(lambda _: None, within=20)
