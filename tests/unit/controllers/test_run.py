"""All controllers together: a small day in a cluster, and silence when nothing happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dure.client.events import EventRecorder
from dure.controllers import Context, Informers, run_controllers
from dure.core.aio import running
from dure.core.clock import LoopClock
from dure.core.json import Obj
from tests.support.cluster import api_server
from tests.unit.controllers.cluster import NODE, Cluster, Kubelet, deployment
from tests.unit.controllers.test_endpoints import service
from tests.unit.controllers.test_garbage import CRD
from tests.unit.controllers.test_job import job
from tests.unit.controllers.test_volume import claim


def lease() -> Obj:
    """Of a node that was heard of so late that nobody waits for it."""
    meta = {"name": NODE, "namespace": "kube-node-lease"}
    spec = {"holderIdentity": NODE, "renewTime": "2999-01-01T00:00:00.000000Z"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


@asynccontextmanager
async def whole(folder: Path) -> AsyncIterator[Cluster]:
    async with api_server() as (server, client):
        clock = LoopClock()
        context = Context(client, Informers(client), EventRecorder(client, "test", clock=clock), clock)
        kubelet = Kubelet(client, clock)
        work = run_controllers(context, client.kinds, root_certificate="PEM", volumes=folder)
        await client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        await client.create(lease())
        async with running(work, kubelet.run()):
            yield Cluster(server, client, context, kubelet, clock)


async def test_everything_at_once_and_then_nothing(tmp_path: Path) -> None:
    async with whole(tmp_path) as there:
        await there.settle()
        await there.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
        await there.client.create(deployment())
        await there.client.create(service())
        await there.client.create(claim())
        there.kubelet.fate = lambda pod: "succeeded" if "job-name" in pod["metadata"]["labels"] else "ready"
        await there.client.create(job())
        await there.settle(30)
        assert (await there.client.get("deployments.apps", "web", "default"))["status"]["availableReplicas"] == 3
        assert (await there.client.get("jobs.batch", "work", "default"))["status"]["succeeded"] == 1
        assert (await there.client.get("persistentvolumeclaims", "data", "default"))["status"]["phase"] == "Bound"
        assert len((await there.client.get("endpoints", "web", "default"))["subsets"][0]["addresses"]) == 3
        await there.settle(3700)
        assert (await there.client.list("events")).items == []
        before = there.server_revision()
        await there.settle(3600)
        assert there.server_revision() == before


async def test_a_namespace_with_a_bit_of_everything_goes(tmp_path: Path) -> None:
    async with whole(tmp_path) as there:
        await there.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
        await there.client.create(CRD)
        await there.settle()
        for body in (deployment(), service(), claim(), job()):
            body["metadata"]["namespace"] = "team"
            await there.client.create(body)
        custom = {"apiVersion": "example.com/v1", "kind": "Team", "metadata": {"name": "red", "namespace": "team"}}
        await there.client.create(custom)
        await there.settle(10)
        there.kubelet.stop_seconds = 3
        await there.client.delete("namespaces", "team")
        await there.settle(60)
        assert not await there.exists("namespaces", "team")
        assert (await there.client.list("persistentvolumes")).items == []
        assert (await there.client.list("pods")).items == []
