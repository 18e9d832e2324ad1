"""Whatever the order of things: never too few available, never too many at all, and it ends."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from dure.api.meta import is_deleting
from dure.controllers.deployment import DeploymentReconciler
from dure.controllers.pods import is_ready
from dure.controllers.replicaset import ReplicaSetReconciler
from dure.controllers.rollout import bounds, plan_proportional, plan_rolling
from dure.core.json import Obj
from tests.unit.controllers.cluster import cluster, deployment

SIZES = st.integers(0, 12)
BOUNDS = st.one_of(st.integers(0, 5), st.sampled_from(["0%", "10%", "25%", "50%", "100%"]))


def rolling(replicas: int, surge: Any, away: Any) -> Obj:
    assume(not (str(surge) in ("0", "0%") and str(away) in ("0", "0%")))
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": away}}
    return deployment(replicas=replicas, strategy=strategy)


class Set:
    """A ReplicaSet whose controller may be slow: what is wanted, what there is, what was last reported."""

    def __init__(self, name: str, wanted: int, ready: int = 0) -> None:
        self.name = name
        self.wanted = self.pods = wanted
        self.ready = self.reported = ready

    def as_object(self) -> Obj:
        return {
            "metadata": {"name": self.name, "creationTimestamp": f"2026-01-01T00:00:{int(self.name):02}Z"},
            "spec": {"replicas": self.wanted},
            "status": {"availableReplicas": self.reported, "replicas": self.pods},
        }

    def follow(self) -> None:
        """Make or delete pods; what is not ready goes first."""
        self.ready = min(self.ready, self.wanted)
        self.pods = self.wanted


@settings(max_examples=200, deadline=None)
@example(6, 0, 2, [(1, 0), (2, 0), (1, 0), (2, 1), (3, 1), (3, 1), (4, 1), (1, 0), (2, 0)])  # an old report
@given(SIZES, BOUNDS, BOUNDS, st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=60))
def test_every_order_of_events_stays_within_the_bounds(
    size: int, surge: Any, away: Any, events: list[tuple[int, int]]
) -> None:
    wish = rolling(size, surge, away)
    more, fewer = bounds(wish)
    sets = [Set("0", size, size)]
    for what, which in [(0, 0), *events]:
        step(wish, sets, what, which)
        assert sum(item.pods for item in sets) <= size + more
        assert sum(item.ready for item in sets) >= size - fewer
    finish(wish, sets)
    assert [item.wanted for item in sets] == [0] * (len(sets) - 1) + [size]


def step(wish: Obj, sets: list[Set], what: int, which: int) -> None:
    item = sets[which % len(sets)]
    match what:
        case 0 if len(sets) < 4:
            sets.append(Set(str(len(sets)), 0))
        case 1:
            plan(wish, sets)
        case 2:
            item.follow()
        case 3:
            item.ready = min(item.pods, item.ready + 1)
        case 4:
            item.reported = item.ready


def plan(wish: Obj, sets: list[Set]) -> None:
    old = [item.as_object() for item in sets[:-1]]
    by_name = {item.name: item for item in sets}
    for scale in plan_rolling(wish, sets[-1].as_object(), old):
        by_name[scale.set_name].wanted = scale.after


def finish(wish: Obj, sets: list[Set]) -> None:
    for _ in range(100):
        plan(wish, sets)
        for item in sets:
            item.follow()
            item.ready = item.reported = item.pods


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=4), SIZES, BOUNDS, BOUNDS)
def test_proportional_scaling_reaches_the_size_allowed(parts: list[int], size: int, surge: Any, away: Any) -> None:
    wish = rolling(size, surge, away)
    more, _ = bounds(wish)
    sets = [Set(str(number), part).as_object() for number, part in enumerate(parts)]
    for item in sets:
        item["metadata"]["annotations"] = {"deployment.kubernetes.io/max-replicas": str(sum(parts))}
    steps = plan_proportional(wish, sets)
    assert sum(scale.after for scale in steps) == (size + more if size else 0)
    assert all(scale.after >= 0 for scale in steps)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 6), BOUNDS, BOUNDS, st.integers(0, 20), st.integers(0, 20), st.sampled_from([0.0, 3.0]))
async def test_a_real_rollout_stays_within_the_bounds(
    size: int, surge: Any, away: Any, ready_seconds: int, stop_seconds: int, lag: float
) -> None:
    wish = rolling(size, surge, away)
    more, fewer = bounds(wish)
    async with cluster(
        lambda context: DeploymentReconciler(context).build(),
        lambda context: ReplicaSetReconciler(context).build(),
        lag={"pods": lag, "replicasets.apps": lag / 2},
    ) as there:
        await there.client.create(wish)
        await there.settle(60)
        there.kubelet.ready_seconds, there.kubelet.stop_seconds = ready_seconds, stop_seconds
        broken: list[str] = []

        def watch(old: Obj | None, new: Obj | None) -> None:
            alive = [pod for pod in there.kubelet.pods.list() if not is_deleting(pod)]
            if len(alive) > size + more:
                broken.append(f"{len(alive)} pods, at most {size + more}")
            if sum(is_ready(pod) for pod in alive) < size - fewer:
                broken.append(f"{sum(is_ready(pod) for pod in alive)} ready, at least {size - fewer}")

        there.kubelet.pods.on_change(watch)
        await there.change(
            "deployments.apps", "web", lambda obj: obj["spec"]["template"]["metadata"].update(annotations={"a": "b"})
        )
        await there.settle(100 * size)
        assert broken == []
        assert all("annotations" in pod["metadata"] for pod in await there.pods())
        assert len(await there.pods()) == size
