"""A pod's life through an agent: from Pending to Running to gone, by what a client of the API sees."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

from dure.node.ports import ContainerSpec
from dure.node.runtimes.simulated import Script
from tests.support.node import node, restarts

FOREVER = Script()


def scripts(**by_name: Script) -> Any:
    return lambda spec: by_name.get(spec.name, FOREVER)


def container(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": f"{name}:1", **more}


async def test_a_pod_runs_and_is_deleted(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await here.create()
        pod = await here.wait_ready()
        assert pod["status"]["phase"] == "Running"
        assert pod["status"]["podIP"] == "10.244.1.2"
        await here.client.delete("pods", "web", "default")
        last = await here.wait_gone()
        assert last["status"]["phase"] == "Succeeded"
        assert await here.runtime.containers() == []
        assert here.network.addresses == {}
        assert here.images.mounted == set()
        assert not (tmp_path / "nodes/dure-1/pods" / last["metadata"]["uid"]).exists()


async def test_events_tell_the_story_in_kubelets_words(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        here.images.absent = {"app:1"}
        here.images.stand_ins = {"nginx:1.7.9"}
        await here.create(containers=[container("app"), {"name": "nginx", "image": "nginx:1.7.9"}])
        await here.wait_ready()
        await here.client.delete("pods", "web", "default")
        await here.wait_gone()
        note = " (local stand-in built from Debian packages)"
        assert sorted(await here.events()) == sorted(
            [
                'Normal Pulling: Pulling image "app:1"',
                f'Normal Pulled: Container image "nginx:1.7.9" already present on machine{note}',
                'Normal Pulled: Successfully pulled image "app:1" in 0ms (0ms including waiting). Image size: 0 bytes.',
                "Normal Created: Created container: app",
                "Normal Started: Started container app",
                "Normal Created: Created container: nginx",
                "Normal Started: Started container nginx",
                "Normal Killing: Stopping container app",
                "Normal Killing: Stopping container nginx",
            ]
        )


async def test_a_stand_in_that_was_made_just_now_was_not_present(tmp_path: Path) -> None:
    """The event said `already present on machine` after a minute of making it."""
    async with node(tmp_path) as here:
        here.images.absent = {"nginx:1.7.9"}
        here.images.stand_ins = {"nginx:1.7.9"}
        here.images.pull_seconds = 20
        await here.create(containers=[{"name": "nginx", "image": "nginx:1.7.9"}])
        await here.wait_ready()
        (pulled,) = [event for event in await here.events() if "Pulled" in event]
        assert pulled == (
            'Normal Pulled: Successfully pulled image "nginx:1.7.9" in 20.000s (20.000s including waiting). '
            "Image size: 0 bytes. (local stand-in built from Debian packages)"
        )


async def test_a_job_like_pod_succeeds_and_leaves_its_network(tmp_path: Path) -> None:
    async with node(tmp_path, scripts(app=Script(seconds=3))) as here:
        await here.create(restartPolicy="Never")
        pod = await here.wait_phase("Succeeded")
        state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (state["reason"], state["exitCode"]) == ("Completed", 0)
        conditions = {entry["type"]: (entry["status"], entry.get("reason")) for entry in pod["status"]["conditions"]}
        assert conditions["Ready"] == ("False", "PodCompleted")
        assert conditions["Initialized"] == ("True", "PodCompleted")
        await asyncio.sleep(1)
        assert (here.network.addresses, await here.runtime.containers()) == ({}, [])
        assert (await here.get())["status"]["phase"] == "Succeeded"
        await here.client.delete("pods", "web", "default")
        await here.wait_gone()


async def test_a_failing_container_is_restarted_with_growing_back_off(tmp_path: Path) -> None:
    starts: list[float] = []

    def behave(spec: ContainerSpec) -> Script:
        return Script(seconds=1, exit_code=3)

    async with node(tmp_path, behave) as here:
        await here.create()
        pod = await here.wait_for(lambda pod: restarts(pod) == 1)
        waiting = await here.wait_for(lambda pod: "waiting" in _state(pod) and restarts(pod) == 1)
        assert _state(waiting)["waiting"]["reason"] == "CrashLoopBackOff"
        uid = pod["metadata"]["uid"]
        assert _state(waiting)["waiting"]["message"] == (
            f"back-off 10s restarting failed container=app pod=web_default({uid})"
        )
        last = waiting["status"]["containerStatuses"][0]["lastState"]["terminated"]
        assert (last["reason"], last["exitCode"]) == ("Error", 3)
        for count in (2, 3, 4):
            await here.wait_for(lambda pod, count=count: restarts(pod) == count)
            starts.append(here.clock.time())
        assert [round(later - sooner) for sooner, later in itertools.pairwise(starts)] == [21, 41]
        uid = pod["metadata"]["uid"]
        told = f"Warning BackOff: Back-off restarting failed container app in pod web_default({uid})"
        assert told in await here.events()
        assert [state.attempt for state in await here.runtime.containers()] == [3, 4]


async def test_on_failure_restarts_until_success(tmp_path: Path) -> None:
    def behave(spec: ContainerSpec) -> Script:
        return Script(seconds=1, exit_code=1 if spec.attempt < 2 else 0)

    async with node(tmp_path, behave) as here:
        await here.create(restartPolicy="OnFailure")
        pod = await here.wait_phase("Succeeded")
        assert restarts(pod) == 2


async def test_init_containers_run_in_order_before_the_rest(tmp_path: Path) -> None:
    async with node(tmp_path, scripts(one=Script(seconds=1), two=Script(seconds=1))) as here:
        await here.create(initContainers=[container("one"), container("two")])
        first = await here.wait_for(lambda pod: "running" in _state(pod, "initContainerStatuses"))
        assert _state(first) == {"waiting": {"reason": "PodInitializing"}}
        assert first["status"]["phase"] == "Pending"
        pod = await here.wait_ready()
        assert here.runtime.starts() == ["one/0", "two/0", "app/0"]
        assert [entry["ready"] for entry in pod["status"]["initContainerStatuses"]] == [True, True]


async def test_a_failed_init_container_fails_a_pod_that_neverrestarts(tmp_path: Path) -> None:
    async with node(tmp_path, scripts(one=Script(seconds=1, exit_code=1))) as here:
        await here.create(initContainers=[container("one")], restartPolicy="Never")
        pod = await here.wait_phase("Failed")
        assert "app" not in [state.name for state in await here.runtime.containers()]
        conditions = {entry["type"]: entry for entry in pod["status"]["conditions"]}
        assert conditions["Initialized"]["message"] == "containers with incomplete status: [one]"


async def test_sidecars_start_first_and_stop_last(tmp_path: Path) -> None:
    sidecar = {"restartPolicy": "Always"}
    async with node(tmp_path, scripts(app=Script(seconds=5))) as here:
        await here.create(
            initContainers=[container("one", **sidecar), container("two", **sidecar)], restartPolicy="Never"
        )
        await here.wait_ready()
        await here.wait_phase("Succeeded")
        assert here.runtime.log == [
            "start one/0",
            "start two/0",
            "start app/0",
            "stop two/0 SIGTERM 30",
            "stop one/0 SIGTERM 30",
        ]


async def test_deletion_runs_the_hook_and_keeps_to_the_grace_period(tmp_path: Path) -> None:
    hook = {"preStop": {"exec": {"command": ["drain"]}}}
    async with node(tmp_path, scripts(app=Script(stop_seconds=None))) as here:
        await here.create(containers=[container("app", lifecycle=hook)])
        await here.wait_ready()
        began = here.clock.time()
        await here.client.delete("pods", "web", "default", grace_seconds=7)
        last = await here.wait_gone()
        assert round(here.clock.time() - began) == 7
        assert "exec app/0 drain" in here.runtime.log
        assert last["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


async def test_a_second_deletion_shortens_the_grace_period(tmp_path: Path) -> None:
    async with node(tmp_path, scripts(app=Script(stop_seconds=None))) as here:
        await here.create()
        await here.wait_ready()
        began = here.clock.time()
        await here.client.delete("pods", "web", "default", grace_seconds=600)
        await here.wait_for(lambda pod: "deletionTimestamp" in pod["metadata"])
        await here.client.delete("pods", "web", "default", grace_seconds=5)
        await here.wait_gone()
        assert here.clock.time() - began < 10


async def test_a_force_deleted_pod_is_still_stopped(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        pod = await here.create()
        await here.wait_ready()
        await here.client.delete("pods", "web", "default", grace_seconds=0)
        await here.wait_gone()
        again = await here.create()
        await here.wait_ready()
        assert again["metadata"]["uid"] != pod["metadata"]["uid"]
        assert [state.pod_uid for state in await here.runtime.containers()] == [again["metadata"]["uid"]]


async def test_a_pod_past_its_deadline_fails(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await here.create(activeDeadlineSeconds=20)
        await here.wait_ready()
        pod = await here.wait_phase("Failed")
        assert pod["status"]["reason"] == "DeadlineExceeded"
        assert pod["status"]["message"] == "Pod was active on the node longer than the specified deadline"


async def test_a_pull_that_fails_backs_off_and_recovers(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        here.images.broken = {"app:1": "connection refused"}
        await here.create()
        pod = await here.wait_for(lambda pod: "waiting" in _state(pod) and "message" in _state(pod)["waiting"])
        assert _state(pod)["waiting"] == {"reason": "ErrImagePull", "message": "connection refused"}
        pod = await here.wait_for(lambda pod: _state(pod).get("waiting", {}).get("reason") == "ImagePullBackOff")
        assert _state(pod)["waiting"]["message"] == ('Back-off pulling image "app:1": ErrImagePull: connection refused')
        here.images.broken = {}
        await here.wait_ready()
        assert 'Normal BackOff: Back-off pulling image "app:1"' in await here.events()


async def test_an_image_that_must_not_be_pulled(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        here.images.absent = {"app:1"}
        await here.create(containers=[container("app", imagePullPolicy="Never")])
        pod = await here.wait_for(lambda pod: "message" in _state(pod).get("waiting", {}))
        assert _state(pod)["waiting"] == {
            "reason": "ErrImageNeverPull",
            "message": 'Container image "app:1" is not present with pull policy of Never',
        }


async def test_a_missing_config_map_holds_the_container_until_it_is_there(tmp_path: Path) -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}]
    async with node(tmp_path) as here:
        await here.create(containers=[container("app", env=env)])
        pod = await here.wait_for(lambda pod: "message" in _state(pod).get("waiting", {}))
        assert _state(pod)["waiting"] == {
            "reason": "CreateContainerConfigError",
            "message": 'configmap "settings" not found',
        }
        before = here.clock.time()
        meta = {"name": "settings", "namespace": "default"}
        await here.client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "1"}})
        await here.wait_ready()
        assert here.clock.time() - before < 1
        assert "A=1" in here.runtime.spec_of("app").env


async def test_a_command_that_cannot_be_run(tmp_path: Path) -> None:
    async with node(tmp_path, scripts(app=Script(start_error='exec: "nope": not found'))) as here:
        await here.create()
        pod = await here.wait_for(lambda pod: restarts(pod) == 1 and "message" in _state(pod).get("waiting", {}))
        assert _state(pod)["waiting"] == {"reason": "RunContainerError", "message": 'exec: "nope": not found'}
        last = pod["status"]["containerStatuses"][0]["lastState"]["terminated"]
        assert (last["reason"], last["exitCode"]) == ("StartError", 128)
        await here.wait_for(lambda pod: _state(pod).get("waiting", {}).get("reason") == "CrashLoopBackOff")


async def test_a_post_start_hook_holds_back_the_next_container(tmp_path: Path) -> None:
    hook = {"postStart": {"sleep": {"seconds": 4}}}
    async with node(tmp_path) as here:
        await here.create(containers=[container("proxy", lifecycle=hook), container("app")])
        await here.wait_ready()
        starts = {state.name: state.started_at / 1e9 for state in await here.runtime.containers()}
        assert round(starts["app"] - starts["proxy"]) == 4


async def test_a_termination_message_is_reported(tmp_path: Path) -> None:
    async with node(tmp_path, scripts(app=Script(seconds=1, exit_code=1))) as here:
        await here.create(restartPolicy="Never")
        await here.wait_ready()
        mounts = here.runtime.spec_of("app").mounts
        source = next(mount.source for mount in mounts if mount.target == "/dev/termination-log")
        Path(source).write_text("out of cheese")
        pod = await here.wait_phase("Failed")
        assert _state(pod)["terminated"]["message"] == "out of cheese"


async def test_the_end_of_the_log_stands_in_for_a_message(tmp_path: Path) -> None:
    script = Script(seconds=1, exit_code=1, output=(("stderr", b"first\nlast words\n"),))
    async with node(tmp_path, scripts(app=script)) as here:
        policy = {"terminationMessagePolicy": "FallbackToLogsOnError"}
        await here.create(containers=[container("app", **policy)], restartPolicy="Never")
        pod = await here.wait_phase("Failed")
        assert _state(pod)["terminated"]["message"] == "first\nlast words\n"


async def test_a_killed_for_memory_container_says_so(tmp_path: Path) -> None:
    async with node(tmp_path, scripts(app=Script(seconds=1, exit_code=137, oom_killed=True))) as here:
        await here.create(restartPolicy="Never")
        pod = await here.wait_phase("Failed")
        assert _state(pod)["terminated"]["reason"] == "OOMKilled"


async def test_readiness_gates_are_asked(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await here.create(readinessGates=[{"conditionType": "example.org/lb"}])
        pod = await here.wait_phase("Running")
        ready = next(entry for entry in pod["status"]["conditions"] if entry["type"] == "Ready")
        assert ready["message"] == 'corresponding condition of pod readiness gate "example.org/lb" does not exist.'
        gate = {"status": {"conditions": [{"type": "example.org/lb", "status": "True"}]}}
        await here.client.patch("pods", "web", "default", gate, type="strategic", subresource="status")
        await here.wait_ready()


async def test_host_network_pods_take_the_nodes_address(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await here.create(hostNetwork=True)
        pod = await here.wait_ready()
        assert pod["status"]["podIP"] == "10.243.0.11"
        assert here.network.addresses == {}
        sandbox = next(iter(await here.runtime.sandboxes()))
        assert (sandbox.netns, sandbox.hostname) == ("/run/netns/host", "dure-1")


def _state(pod: dict[str, Any], field: str = "containerStatuses") -> dict[str, Any]:
    entries = (pod.get("status") or {}).get(field) or [{"state": {}}]
    state: dict[str, Any] = entries[0]["state"]
    return state


async def test_a_sidecar_that_ends_is_restarted_beside_the_rest(tmp_path: Path) -> None:
    async with node(tmp_path, scripts(helper=Script(seconds=30, exit_code=1))) as here:
        await here.create(initContainers=[container("helper", restartPolicy="Always")], restartPolicy="Never")
        await here.wait_ready()
        await asyncio.sleep(40)
        assert here.runtime.starts() == ["helper/0", "app/0", "helper/1"]
        assert (await here.get())["status"]["phase"] == "Running"


async def test_an_ephemeral_container_joins_its_target(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        await here.create()
        await here.wait_ready()
        added = {"name": "debug", "image": "tools:1", "targetContainerName": "app", "stdin": True, "tty": True}
        spec = {"spec": {"ephemeralContainers": [added]}}
        await here.client.patch("pods", "web", "default", spec, type="strategic", subresource="ephemeralcontainers")
        pod = await here.wait_for(lambda pod: "running" in _state(pod, "ephemeralContainerStatuses"))
        assert here.runtime.spec_of("debug").target_container == here.runtime.spec_of("app").id
        assert pod["status"]["phase"] == "Running"
        found = here.agent.lookup.resolve("default", "web", "debug")
        assert (found.running, found.tty, found.stdin) == (True, True, True)


async def test_a_resize_reaches_the_running_container(tmp_path: Path) -> None:
    small, large = {"limits": {"cpu": "100m"}}, {"limits": {"cpu": "200m"}, "requests": {"cpu": "100m"}}
    async with node(tmp_path) as here:
        await here.create(containers=[container("app", resources=small)])
        await here.wait_ready()
        change = {"spec": {"containers": [{"name": "app", "resources": large}]}}
        await here.client.patch("pods", "web", "default", change, type="strategic", subresource="resize")
        pod = await here.wait_for(
            lambda pod: pod["status"]["containerStatuses"][0].get("resources", {}).get("limits") == {"cpu": "200m"}
        )
        assert here.runtime.resources[here.runtime.spec_of("app").id].cpu_quota == 20_000
        assert restarts(pod) == 0
