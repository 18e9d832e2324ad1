"""Job: counts that never forget a pod, ends that hold, and no pod held by a finalizer for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

from dure.api.meta import annotations_of, controller_of, key_of, labels_of, name_of, uid_of
from dure.controllers.garbage import GarbageCollector
from dure.controllers.job import JobReconciler
from dure.controllers.job_rules import INDEX, TRACKING, format_indexes, is_tracked, parse_indexes
from dure.controllers.job_strays import StrayPodReconciler
from dure.core.aio import running
from dure.core.clock import parse_rfc3339
from dure.core.json import Obj
from tests.unit.controllers.cluster import Cluster, cluster, condition_of, plain_pod, pod_template


def job(name: str = "work", image: str = "app:1", restart: str = "Never", **spec: Any) -> Obj:
    template = pod_template(image, {"job": name}, restartPolicy=restart)
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template, **spec}}


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[Cluster]:
    """With pods that succeed two seconds after they were made."""
    async with cluster(
        lambda context: JobReconciler(context).build(),
        lambda context: StrayPodReconciler(context).build(),
        **options,
    ) as there:
        there.kubelet.fate = lambda pod: "succeeded"
        there.kubelet.ready_seconds = 2
        yield there


@asynccontextmanager
async def collecting(there: Cluster) -> AsyncIterator[None]:
    garbage = GarbageCollector(there.client, there.client.kinds)
    async with running(garbage.watch_everything(), garbage.build().run()):
        yield


async def get(there: Cluster, name: str = "work") -> Obj:
    return await there.client.get("jobs.batch", name, "default")


def by_index(pod: Obj) -> int:
    return int(annotations_of(pod)[INDEX])


async def test_one_pod_by_default_and_then_it_is_complete() -> None:
    async with started() as there:
        await there.client.create(job())
        await there.settle(1)
        assert (await get(there))["status"]["active"] == 1
        await there.settle(5)
        found = await get(there)
        (pod,) = await there.pods()
    assert not is_tracked(pod)
    assert condition_of(found, "SuccessCriteriaMet") == ("True", "CompletionsReached")
    assert condition_of(found, "Complete") == ("True", "CompletionsReached")
    status = {key: value for key, value in found["status"].items() if key not in ("conditions", "startTime")}
    assert status == {
        "succeeded": 1,
        "ready": 0,
        "terminating": 0,
        "uncountedTerminatedPods": {},
        "completionTime": status["completionTime"],
    }
    assert parse_rfc3339(status["completionTime"]) >= parse_rfc3339(found["status"]["startTime"])


async def test_parallelism_bounds_what_runs_and_completions_what_is_run() -> None:
    async with started() as there:
        most = 0

        def watch(old: Obj | None, new: Obj | None) -> None:
            nonlocal most
            active = [pod for pod in there.kubelet.pods.list() if (pod.get("status") or {}).get("phase") != "Succeeded"]
            most = max(most, len(active))

        there.kubelet.pods.on_change(watch)
        await there.client.create(job(completions=7, parallelism=3))
        await there.settle(30)
        assert most == 3
        assert len(await there.pods()) == 7
        assert (await get(there))["status"]["succeeded"] == 7


async def test_caches_that_lag_make_no_pod_too_many() -> None:
    """The job's own counts may be seen later than the pods: a pod let go of must not be run again."""
    for lag in ({"jobs.batch": 3.0}, {"pods": 3.0}, {"jobs.batch": 5.0, "pods": 1.0}):
        async with started(lag=lag) as there:
            await there.client.create(job(completions=5, parallelism=2))
            await there.settle(300)
            assert len(await there.pods()) == 5
            assert (await get(there))["status"]["succeeded"] == 5


async def test_a_work_queue_ends_with_its_last_pod() -> None:
    async with started() as there:
        await there.client.create(job(parallelism=3))
        await there.settle(10)
        assert (await get(there))["status"]["succeeded"] == 3


async def test_failures_back_off_and_end_at_the_limit() -> None:
    async with started() as there:
        there.kubelet.fate = lambda pod: "failed"
        await there.client.create(job(backoffLimit=2))
        await there.settle(200)
        found = await get(there)
        made = sorted(parse_rfc3339(pod["metadata"]["creationTimestamp"]) for pod in await there.pods())
    assert condition_of(found, "Failed") == ("True", "BackoffLimitExceeded")
    assert found["status"]["failed"] == 3
    assert [round(later - sooner) for sooner, later in pairwise(made)] == [12, 22]


async def test_restarts_in_place_count_towards_the_limit() -> None:
    async with started() as there:
        there.kubelet.fate = lambda pod: "running"
        await there.client.create(job(restart="OnFailure", backoffLimit=3))
        await there.settle(5)
        (pod,) = await there.pods()
        statuses = [{**pod["status"]["containerStatuses"][0], "restartCount": 3}]
        await there.set_status("pods", name_of(pod), {"containerStatuses": statuses})
        await there.settle(5)
        found = await get(there)
    assert condition_of(found, "Failed") == ("True", "BackoffLimitExceeded")


async def test_the_active_deadline_stops_the_pods() -> None:
    async with started() as there:
        there.kubelet.fate = lambda pod: "running"
        there.kubelet.stop_seconds = 10
        await there.client.create(job(parallelism=2, completions=2, activeDeadlineSeconds=30))
        await there.settle(35)
        early = await get(there)
        assert condition_of(early, "FailureTarget") == ("True", "DeadlineExceeded")
        assert condition_of(early, "Failed") is None
        await there.settle(20)
        late = await get(there)
        assert condition_of(late, "Failed") == ("True", "DeadlineExceeded")
        assert await there.all("pods") == []
    assert late["status"]["failed"] == 2


async def test_indexed_pods_have_their_number() -> None:
    async with started() as there:
        await there.client.create(job(completions=5, parallelism=2, completionMode="Indexed"))
        await there.settle(30)
        found = await get(there)
        pods = sorted(await there.pods(), key=by_index)
    assert [by_index(pod) for pod in pods] == [0, 1, 2, 3, 4]
    assert [pod["spec"]["hostname"] for pod in pods] == [f"work-{number}" for number in range(5)]
    assert all(labels_of(pod)[INDEX] == annotations_of(pod)[INDEX] for pod in pods)
    assert all(name_of(pod).startswith(f"work-{by_index(pod)}-") for pod in pods)
    assert "JOB_COMPLETION_INDEX" in {entry["name"] for entry in pods[0]["spec"]["containers"][0]["env"]}
    assert found["status"]["completedIndexes"] == "0-4"


async def test_a_failed_index_is_run_again() -> None:
    async with started() as there:
        failed: set[str] = set()

        def fate(pod: Obj) -> Any:
            if by_index(pod) == 1 and not failed - {uid_of(pod)}:
                failed.add(uid_of(pod))
                return "failed"
            return "succeeded"

        there.kubelet.fate = fate
        await there.client.create(job(completions=3, parallelism=3, completionMode="Indexed"))
        await there.settle(60)
        found = await get(there)
    assert (found["status"]["succeeded"], found["status"]["failed"]) == (3, 1)
    assert found["status"]["completedIndexes"] == "0-2"


async def test_a_second_success_of_an_index_is_let_go_uncounted() -> None:
    async with started() as there:
        there.kubelet.fate = lambda pod: "running"
        await there.client.create(job(completions=2, parallelism=1, completionMode="Indexed"))
        await there.settle(5)
        (pod,) = await there.pods()
        twin = plain_pod("twin", labels_of(pod))
        twin["metadata"] |= {
            "annotations": {INDEX: "0"},
            "finalizers": [TRACKING],
            "ownerReferences": pod["metadata"]["ownerReferences"],
        }
        await there.client.create(twin)
        there.kubelet.fate = lambda pod: "succeeded"
        there.kubelet.look_again()
        await there.settle(20)
        assert (await get(there))["status"]["succeeded"] == 2
        assert not any(is_tracked(item) for item in await there.all("pods"))


async def test_a_suspended_job_runs_nothing_until_it_is_resumed() -> None:
    async with started() as there:
        there.kubelet.fate = lambda pod: "running"
        await there.client.create(job(suspend=True))
        await there.settle(5)
        assert await there.pods() == []
        assert condition_of(await get(there), "Suspended") == ("True", "JobSuspended")
        await there.change("jobs.batch", "work", lambda obj: obj["spec"].update(suspend=False))
        await there.settle(5)
        assert len(await there.pods()) == 1
        await there.change("jobs.batch", "work", lambda obj: obj["spec"].update(suspend=True))
        await there.settle(5)
        found = await get(there)
        assert await there.all("pods") == []
        assert found["status"].get("failed") is None
        assert found["status"].get("startTime") is None
        there.kubelet.fate = lambda pod: "succeeded"
        await there.change("jobs.batch", "work", lambda obj: obj["spec"].update(suspend=False))
        await there.settle(10)
        assert condition_of(await get(there), "Complete") is not None
        assert await there.events("Suspended") == ["Job suspended"]


async def test_less_parallelism_stops_pods_that_count_for_nothing() -> None:
    async with started() as there:
        there.kubelet.fate = lambda pod: "running"
        await there.client.create(job(completions=5, parallelism=4))
        await there.settle(5)
        await there.change("jobs.batch", "work", lambda obj: obj["spec"].update(parallelism=1))
        await there.settle(5)
        assert len(await there.all("pods")) == 1
        assert (await get(there))["status"].get("failed") is None


async def test_a_pod_deleted_before_it_ran_is_replaced_and_goes() -> None:
    """A pod no node had taken was held by the tracking finalizer for ever."""
    async with started(kubelet=False) as there:
        await there.client.create(job())
        await there.settle()
        (pod,) = await there.pods()
        await there.client.delete("pods", name_of(pod), "default")
        await there.settle()
        assert not await there.exists("pods", name_of(pod))
        assert (await get(there))["status"]["failed"] == 1
        assert len(await there.pods()) == 1


async def test_a_finished_job_goes_after_its_time_to_live() -> None:
    async with started() as there, collecting(there):
        await there.client.create(job(ttlSecondsAfterFinished=60))
        await there.settle(50)
        assert await there.exists("jobs.batch", "work")
        await there.settle(20)
        assert not await there.exists("jobs.batch", "work")
        assert await there.all("pods") == []


async def test_deleting_a_job_leaves_no_pod_behind() -> None:
    for propagation in ("Background", "Foreground"):
        async with started() as there, collecting(there):
            there.kubelet.fate = lambda pod: "running"
            await there.client.create(job(completions=3, parallelism=3))
            await there.settle(5)
            await there.client.delete("jobs.batch", "work", "default", propagation=propagation)
            await there.settle(10)
            assert await there.all("pods") == []
            assert not await there.exists("jobs.batch", "work")


async def test_a_job_of_the_same_name_does_not_hold_the_old_ones_pods() -> None:
    async with started() as there, collecting(there):
        there.kubelet.fate = lambda pod: "running"
        first = await there.client.create(job())
        await there.settle(5)
        await there.client.delete("jobs.batch", "work", "default", propagation="Background")
        await there.client.create(job())
        await there.settle(10)
        assert [controller_of(pod)["uid"] == uid_of(first) for pod in await there.all("pods")] == [False]  # type: ignore[index]


async def test_orphaned_pods_are_let_go() -> None:
    async with started() as there, collecting(there):
        there.kubelet.fate = lambda pod: "running"
        await there.client.create(job())
        await there.settle(5)
        await there.client.delete("jobs.batch", "work", "default", propagation="Orphan")
        await there.settle(5)
        (pod,) = await there.pods()
        assert controller_of(pod) is None
        assert not is_tracked(pod)


async def test_an_orphan_is_adopted_and_tracked_again_and_a_relabelled_pod_let_go() -> None:
    async with started() as there:
        there.kubelet.fate = lambda pod: "running"
        await there.client.create(job())
        await there.settle(5)
        (pod,) = await there.pods()
        namespace, name = key_of(pod)
        await there.client.patch("pods", name, namespace, {"metadata": {"ownerReferences": None}})
        await there.settle(5)
        again = await there.client.get("pods", name, namespace)
        assert controller_of(again) is not None
        await there.client.patch("pods", name, namespace, {"metadata": {"labels": None}})
        await there.settle(5)
        freed = await there.client.get("pods", name, namespace)
        assert controller_of(freed) is None
        assert not is_tracked(freed)


async def test_a_quiet_job_costs_no_writes() -> None:
    async with started() as there:
        there.kubelet.fate = lambda pod: "running"
        await there.client.create(job(completions=2))
        await there.settle(10)
        before = (await there.client.list("jobs.batch")).revision
        await there.settle(5000)
        assert (await there.client.list("jobs.batch")).revision == before


def test_indexes_as_text() -> None:
    assert format_indexes({1, 3, 4, 5, 8, 9}) == "1,3-5,8,9"
    assert parse_indexes("1,3-5,8,9") == {1, 3, 4, 5, 8, 9}
    assert parse_indexes("") == set()
