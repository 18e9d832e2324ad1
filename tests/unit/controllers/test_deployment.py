"""Deployment: rollouts, sizes, histories, and what `kubectl rollout` reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from dure.api.meta import annotations_of, controller_of, name_of, uid_of
from dure.controllers.deployment import DeploymentReconciler
from dure.controllers.pods import template_hash
from dure.controllers.replicaset import ReplicaSetReconciler
from dure.controllers.rollout import HASH_LABEL
from dure.core.json import Obj, thaw
from tests.unit.controllers.cluster import Cluster, Fate, cluster, condition_of, deployment, replica_set

REVISION = "deployment.kubernetes.io/revision"


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[Cluster]:
    async with cluster(
        lambda context: DeploymentReconciler(context).build(),
        lambda context: ReplicaSetReconciler(context).build(),
        **options,
    ) as there:
        yield there


async def get(there: Cluster, name: str = "web") -> Obj:
    return await there.client.get("deployments.apps", name, "default")


async def edit(there: Cluster, **spec: Any) -> Obj:
    return await there.change("deployments.apps", "web", lambda obj: obj["spec"].update(spec))


def use(image: str) -> Callable[[Obj], None]:
    def change(obj: Obj) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image

    return change


async def set_image(there: Cluster, image: str) -> Obj:
    return await there.change("deployments.apps", "web", use(image))


async def images(there: Cluster) -> list[str]:
    return sorted(pod["spec"]["containers"][0]["image"] for pod in await there.pods())


async def sizes(there: Cluster) -> dict[str, int]:
    """Replicas wanted of each revision."""
    sets = await there.all("replicasets.apps")
    return {annotations_of(item)[REVISION]: item["spec"]["replicas"] for item in sets}


def only(image: str) -> Callable[[Obj], Fate]:
    """Pods of other images never become ready."""
    return lambda pod: "ready" if pod["spec"]["containers"][0]["image"] == image else "running"


async def test_a_deployment_becomes_a_set_becomes_pods() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=3))
        await there.settle()
        found = await get(there)
        (item,) = await there.all("replicasets.apps")
        pods = await there.pods()
    assert (controller_of(item) or {})["uid"] == uid_of(found)
    short = item["metadata"]["labels"][HASH_LABEL]
    assert name_of(item) == f"web-{short}"
    assert item["spec"]["selector"]["matchLabels"] == {"app": "web", HASH_LABEL: short}
    assert [pod["metadata"]["labels"] for pod in pods] == [{"app": "web", HASH_LABEL: short}] * 3
    assert annotations_of(found)[REVISION] == annotations_of(item)[REVISION] == "1"
    status = {key: value for key, value in found["status"].items() if key != "conditions"}
    assert status == {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
    }
    assert condition_of(found, "Available") == ("True", "MinimumReplicasAvailable")
    assert condition_of(found, "Progressing") == ("True", "NewReplicaSetAvailable")


async def test_a_quiet_deployment_costs_no_writes() -> None:
    async with started() as there:
        await there.client.create(deployment())
        await there.settle()
        before = (await there.client.list("deployments.apps")).revision
        await there.settle(4000)
        assert (await there.client.list("deployments.apps")).revision == before


async def test_a_new_template_rolls_out() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=4))
        await there.settle()
        await set_image(there, "app:2")
        await there.settle(5)
        found = await get(there)
        assert await images(there) == ["app:2"] * 4
        assert await sizes(there) == {"1": 0, "2": 4}
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    assert annotations_of(found)[REVISION] == "2"


async def test_a_broken_template_stops_within_the_bounds() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=10))
        await there.settle()
        there.kubelet.fate = only("app:1")
        await set_image(there, "app:broken")
        await there.settle(30)
        found = await get(there)
        assert await sizes(there) == {"1": 8, "2": 5}  # 25 % of 10: 3 more, 2 fewer
    assert found["status"]["availableReplicas"] == 8
    assert found["status"]["updatedReplicas"] == 5
    assert found["status"]["unavailableReplicas"] == 5
    assert condition_of(found, "Available") == ("True", "MinimumReplicasAvailable")
    assert condition_of(found, "Progressing") == ("True", "ReplicaSetUpdated")


async def test_rolling_back_takes_the_old_set_again() -> None:
    """`kubectl rollout undo` writes the old set's template into the deployment."""
    async with started() as there:
        await there.client.create(deployment(replicas=2))
        await there.settle()
        (first,) = await there.all("replicasets.apps")
        await set_image(there, "app:2")
        await there.settle(5)
        template = thaw(first["spec"]["template"])
        del template["metadata"]["labels"][HASH_LABEL]
        patch = [{"op": "replace", "path": "/spec/template", "value": template}]
        await there.client.patch("deployments.apps", "web", "default", patch, type="json")
        await there.settle(5)
        assert await sizes(there) == {"2": 0, "3": 2}
        again = await there.client.get("replicasets.apps", name_of(first), "default")
        assert annotations_of(again)[REVISION] == "3"
        assert annotations_of(again)["deployment.kubernetes.io/revision-history"] == "1"
        assert annotations_of(await get(there))[REVISION] == "3"
        assert await images(there) == ["app:1"] * 2


async def test_rollover_converges_on_the_last_template() -> None:
    async with started() as there:
        there.kubelet.ready_seconds = 10
        await there.client.create(deployment(replicas=4))
        await there.settle(30)
        for image in ("app:2", "app:3", "app:4"):
            await set_image(there, image)
            await there.settle(12)
        await there.settle(200)
        assert await images(there) == ["app:4"] * 4
        assert condition_of(await get(there), "Progressing") == ("True", "NewReplicaSetAvailable")


async def test_recreate_never_mixes() -> None:
    async with started() as there:
        there.kubelet.stop_seconds = 20
        await there.client.create(deployment(replicas=3, strategy={"type": "Recreate"}))
        await there.settle(5)
        await set_image(there, "app:2")
        for _ in range(19):
            await there.settle()
            assert {pod["spec"]["containers"][0]["image"] for pod in await there.all("pods")} == {"app:1"}
        await there.settle(10)
        assert await images(there) == ["app:2"] * 3


async def test_scaling_in_mid_rollout_is_proportional() -> None:
    """Upstream's conformance case: 10 pods, maxSurge 3, maxUnavailable 2, a broken image, then scaled to 30."""
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    async with started() as there:
        await there.client.create(deployment(replicas=10, strategy=rolling))
        await there.settle()
        there.kubelet.fate = only("app:1")
        await set_image(there, "app:broken")
        await there.settle(5)
        assert await sizes(there) == {"1": 8, "2": 5}
        await edit(there, replicas=30)
        await there.settle(5)
        assert await sizes(there) == {"1": 20, "2": 13}


async def test_scaling_down_to_nothing_in_mid_rollout() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=4))
        await there.settle()
        there.kubelet.fate = only("app:1")
        await set_image(there, "app:broken")
        await there.settle(5)
        await edit(there, replicas=0)
        await there.settle(5)
        assert await there.pods() == []
        assert condition_of(await get(there), "Available") == ("True", "MinimumReplicasAvailable")


async def test_a_paused_deployment_scales_but_does_not_roll_out() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=2))
        await there.settle()
        await edit(there, paused=True)
        await set_image(there, "app:2")
        await edit(there, replicas=4)
        await there.settle(5)
        assert await images(there) == ["app:1"] * 4
        assert condition_of(await get(there), "Progressing") == ("Unknown", "DeploymentPaused")
        await edit(there, paused=False)
        await there.settle(5)
        assert await images(there) == ["app:2"] * 4
        assert condition_of(await get(there), "Progressing") == ("True", "NewReplicaSetAvailable")


async def test_a_rollout_that_stands_still_fails_and_may_recover() -> None:
    async with started() as there:
        there.kubelet.fate = lambda pod: "running"
        await there.client.create(deployment(replicas=1, progressDeadlineSeconds=60))
        await there.settle(50)
        assert (condition_of(await get(there), "Progressing") or ("", ""))[0] == "True"
        await there.settle(20)
        assert condition_of(await get(there), "Progressing") == ("False", "ProgressDeadlineExceeded")
        there.kubelet.fate = lambda pod: "ready"
        there.kubelet.look_again()
        await there.settle()
        assert condition_of(await get(there), "Progressing") == ("True", "NewReplicaSetAvailable")


async def test_every_step_forward_extends_the_deadline() -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    async with started() as there:
        await there.client.create(deployment(replicas=4, strategy=rolling, progressDeadlineSeconds=60))
        await there.settle()
        there.kubelet.ready_seconds = 50
        await set_image(there, "app:2")
        for _ in range(45):
            await there.settle(5)
            assert (condition_of(await get(there), "Progressing") or ("", ""))[0] == "True"
        assert await images(there) == ["app:2"] * 4


async def test_a_pod_that_breaks_later_does_not_undo_the_rollout() -> None:
    """`kubectl rollout status` of a finished deployment must not fail because a container crashes at night."""
    async with started() as there:
        await there.client.create(deployment(replicas=2, progressDeadlineSeconds=60))
        await there.settle()
        there.kubelet.fate = lambda pod: "running"
        there.kubelet.look_again()
        await there.settle(300)
        found = await get(there)
    assert condition_of(found, "Available") == ("False", "MinimumReplicasUnavailable")
    assert condition_of(found, "Progressing") == ("True", "NewReplicaSetAvailable")


async def test_old_sets_beyond_the_history_limit_go() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=1, revisionHistoryLimit=2))
        for number in range(2, 7):
            await there.settle(5)
            await set_image(there, f"app:{number}")
        await there.settle(5)
        assert await sizes(there) == {"4": 0, "5": 0, "6": 1}


async def test_history_stays_until_the_rollout_is_done() -> None:
    """With a limit of 0 the only working set must still be there while the new one is not."""
    async with started() as there:
        there.kubelet.fate = only("app:1")
        await there.client.create(deployment(replicas=1, revisionHistoryLimit=0, strategy={"type": "Recreate"}))
        await there.settle(5)
        await set_image(there, "app:broken")
        await there.settle(5)
        assert await sizes(there) == {"1": 0, "2": 1}


async def test_an_orphaned_set_is_adopted_and_rolled_over() -> None:
    async with started() as there:
        await there.client.create(replica_set("web", replicas=2))
        await there.settle()
        before = await there.names("pods")
        await there.client.create(deployment(replicas=2))
        await there.settle(5)
        found = await there.client.get("replicasets.apps", "web", "default")
        assert controller_of(found) is not None
        assert await there.names("pods") == before


async def test_an_orphan_that_comes_later_is_adopted() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=1))
        await there.settle()
        stray = replica_set("web", replicas=1)
        stray["metadata"]["name"] = "stray"
        await there.client.create(stray)
        await there.settle(5)
        assert controller_of(await there.client.get("replicasets.apps", "stray", "default")) is not None


async def test_a_set_that_no_longer_matches_is_let_go() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=1))
        await there.settle()
        (item,) = await there.all("replicasets.apps")
        patch = {"metadata": {"labels": {"app": "other"}}}
        await there.client.patch("replicasets.apps", name_of(item), "default", patch)
        await there.settle(5)
        freed = await there.client.get("replicasets.apps", name_of(item), "default")
        assert controller_of(freed) is None


async def test_a_deleted_set_is_made_again() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=1))
        await there.settle()
        (item,) = await there.all("replicasets.apps")
        await there.client.delete("replicasets.apps", name_of(item), "default")
        await there.settle()
        (again,) = await there.all("replicasets.apps")
    assert (name_of(again), uid_of(again) != uid_of(item)) == (name_of(item), True)


async def test_a_name_taken_by_a_stranger_gets_another() -> None:
    """The collision was written and at once overwritten by the old status: the deployment never got its pods."""
    async with started() as there:
        draft = await there.client.create(deployment(replicas=1), dry_run=True)
        stranger = replica_set(f"web-{template_hash(draft['spec']['template'])}", replicas=0)
        stranger["metadata"]["labels"] = {"app": "stranger"}
        stranger["spec"]["selector"]["matchLabels"] = stranger["spec"]["template"]["metadata"]["labels"] = {"app": "s"}
        await there.client.create(stranger)
        await there.client.create(deployment(replicas=1))
        await there.settle()
        found = await get(there)
        assert found["status"]["collisionCount"] == 1
        assert len(await there.pods()) == 1


async def test_status_follows_the_generation_it_saw() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=1))
        await there.settle()
        for size in (2, 3, 4):
            changed = await edit(there, replicas=size)
            await there.settle()
            assert (await get(there))["status"]["observedGeneration"] == changed["metadata"]["generation"]


async def test_annotations_and_min_ready_seconds_reach_the_set() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=1))
        await there.settle()

        def change(obj: Obj) -> None:
            obj["metadata"].setdefault("annotations", {})["kubernetes.io/change-cause"] = "because"
            obj["spec"]["minReadySeconds"] = 7

        await there.change("deployments.apps", "web", change)
        await there.settle()
        (item,) = await there.all("replicasets.apps")
    assert annotations_of(item)["kubernetes.io/change-cause"] == "because"
    assert item["spec"]["minReadySeconds"] == 7


async def test_steps_are_told_as_events() -> None:
    async with started() as there:
        await there.client.create(deployment(replicas=2))
        await there.settle()
        (item,) = await there.all("replicasets.apps")
        assert await there.events("ScalingReplicaSet") == [f"Scaled up replica set {name_of(item)} from 0 to 2"]
