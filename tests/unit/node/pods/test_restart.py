"""What a new agent makes of what the old one left: it adopts what runs and cleans up what nobody owns."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from dure.node.ports import ContainerState, SandboxSpec
from dure.node.runtimes.simulated import Script
from tests.support.node import TestNode, is_ready, machine, restarts


async def test_a_new_agent_adopts_what_runs(tmp_path: Path) -> None:
    async with machine(tmp_path) as box:
        async with box.agent() as here:
            await here.create()
            before = await here.wait_ready()
        async with box.agent() as here:
            await asyncio.sleep(60)
            assert (await here.get())["status"] == before["status"]
            assert box.runtime.starts() == ["app/0"]
            await here.client.delete("pods", "web", "default")
            await here.wait_gone()
            assert await box.runtime.containers() == []


async def test_a_container_that_ended_meanwhile_is_restarted(tmp_path: Path) -> None:
    async with machine(tmp_path) as box:
        async with box.agent() as here:
            await here.create()
            await here.wait_ready()
        box.runtime.end((await box.runtime.named("app")).id, 9)
        async with box.agent() as here:
            pod = await here.wait_for(lambda pod: restarts(pod) == 1 and is_ready(pod))
            last = pod["status"]["containerStatuses"][0]["lastState"]["terminated"]
            assert last["exitCode"] == 9


async def test_after_a_reboot_pods_run_again(tmp_path: Path) -> None:
    async with machine(tmp_path, lambda spec: Script(seconds=1) if spec.name == "init" else Script()) as box:
        async with box.agent() as here:
            await here.create(initContainers=[{"name": "init", "image": "init:1"}])
            await here.wait_ready()
        box.runtime.reboot()
        box.network.addresses.clear()
        async with box.agent() as here:
            pod = await here.wait_for(lambda pod: restarts(pod) == 1 and is_ready(pod))
            last = pod["status"]["containerStatuses"][0]["lastState"]["terminated"]
            assert (last["reason"], last["exitCode"]) == ("ContainerStatusUnknown", 137)
            assert pod["status"]["podIP"] == "10.244.1.3"
            assert pod["status"]["podIPs"] == [{"ip": "10.244.1.3"}]
            assert box.runtime.starts()[2:] == ["init/1", "app/1"]


async def test_after_a_reboot_a_pod_that_never_restarts_has_failed(tmp_path: Path) -> None:
    async with machine(tmp_path) as box:
        async with box.agent() as here:
            await here.create(restartPolicy="Never")
            await here.wait_ready()
        box.runtime.reboot()
        async with box.agent() as here:
            pod = await here.wait_phase("Failed")
            assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "ContainerStatusUnknown"


async def test_a_finished_pod_stays_finished(tmp_path: Path) -> None:
    async with machine(tmp_path, lambda spec: Script(seconds=1)) as box:
        async with box.agent() as here:
            await here.create(restartPolicy="Never")
            await here.wait_phase("Succeeded")
            await asyncio.sleep(5)
            before = await here.get()
        async with box.agent() as here:
            await asyncio.sleep(60)
            assert await here.get() == before
            assert here.agent.lookup.resolve("default", "web").log_path.endswith("/app/0.log")
            await here.client.delete("pods", "web", "default")
            await here.wait_gone()


async def test_what_nobody_owns_is_removed(tmp_path: Path) -> None:
    async with machine(tmp_path) as box:
        async with box.agent() as here:
            await here.create()
            await here.wait_ready()
        await box.client.delete("pods", "web", "default", grace_seconds=0)
        await box.network.attach("ghost")
        await box.runtime.run_sandbox(SandboxSpec("other", "x", "x", "dure-1", "x", "", ""))
        (tmp_path / "nodes/dure-1/pods/left/volumes").mkdir(parents=True)
        async with box.agent():
            await asyncio.sleep(10)
        assert [*await box.runtime.containers(), *await box.runtime.sandboxes(), *box.network.addresses] == []
        assert list((tmp_path / "nodes/dure-1/pods").iterdir()) == []
        assert list((tmp_path / "logs/pods").iterdir()) == []


async def test_a_node_is_registered_and_keeps_its_lease(tmp_path: Path) -> None:
    async with machine(tmp_path) as box, box.agent() as here:
        found = await _node(here)
        assert found["metadata"]["labels"]["kubernetes.io/hostname"] == "dure-1"
        assert found["spec"]["podCIDR"] == "10.244.1.0/24"
        assert found["status"]["capacity"]["pods"] == "110"
        conditions = {entry["type"]: entry["status"] for entry in found["status"]["conditions"]}
        assert conditions == {
            "MemoryPressure": "False",
            "DiskPressure": "False",
            "PIDPressure": "False",
            "Ready": "True",
        }
        await asyncio.sleep(1)
        first = await here.client.get("leases.coordination.k8s.io", "dure-1", "kube-node-lease")
        await asyncio.sleep(25)
        later = await here.client.get("leases.coordination.k8s.io", "dure-1", "kube-node-lease")
        assert first["spec"]["renewTime"] < later["spec"]["renewTime"]


async def test_a_deleted_node_is_registered_again(tmp_path: Path) -> None:
    async with machine(tmp_path) as box, box.agent() as here:
        await here.client.delete("nodes", "dure-1")
        await asyncio.sleep(301)
        assert (await _node(here))["status"]["conditions"]


async def _node(here: TestNode) -> dict[str, Any]:
    return await here.client.get("nodes", "dure-1")


async def test_nonsense_about_one_pod_harms_no_other(tmp_path: Path) -> None:
    async with machine(tmp_path) as box, box.agent() as here:
        await here.create("odd")
        odd = await here.wait_ready("odd")
        box.runtime.tell(ContainerState("x" * 64, odd["metadata"]["uid"], "../up", 0, "", "", "exited"))
        await asyncio.sleep(1)
        await here.create()
        await here.wait_ready()
        await here.client.delete("pods", "odd", "default")
        await here.wait_gone("odd")
        assert box.runtime.starts() == ["app/0", "app/0"]
