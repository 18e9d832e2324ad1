"""When an application counts as up, and what it says while it is not."""

from __future__ import annotations

from typing import Any

import pytest

from dure.apps.rollout_watch import addresses, failure_of, trouble_of, waiting_for


def deployment(**status: Any) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": "web", "generation": 2},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 2, **status},
    }


@pytest.mark.parametrize(
    ("status", "lacks"),
    [
        ({"observedGeneration": 1}, "not seen yet"),
        ({"updatedReplicas": 1}, "1/2 updated"),
        ({"updatedReplicas": 2, "replicas": 3}, "1 old still there"),
        ({"updatedReplicas": 2, "replicas": 2, "availableReplicas": 1}, "1/2 ready"),
        ({"updatedReplicas": 2, "replicas": 2, "availableReplicas": 2}, ""),
    ],
)
def test_deployment(status: dict[str, Any], lacks: str) -> None:
    assert waiting_for(deployment(**status)) == lacks


def test_deadline_of_an_older_generation_is_no_failure() -> None:
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too late"}
    assert failure_of(deployment(conditions=[late])) == "too late"
    assert failure_of(deployment(observedGeneration=1, conditions=[late])) == ""


def test_container_that_waits_says_why() -> None:
    waiting = {"reason": "ErrImageNeverPull", "message": "not here"}
    pod = {"status": {"containerStatuses": [{"name": "c", "state": {"waiting": waiting}}]}}
    assert trouble_of(pod) == ("c: ErrImageNeverPull: not here", True)


def test_container_that_crashed_says_how_it_ended() -> None:
    ended = {"exitCode": 1, "reason": "Error", "message": "trying\nno database\n"}
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s"}
    entry = {"name": "c", "state": {"waiting": waiting}, "lastState": {"terminated": ended}}
    text = "c: CrashLoopBackOff: back-off 10s; it ended with exit code 1 (Error): no database"
    assert trouble_of({"status": {"containerStatuses": [entry]}}) == (text, False)


def test_published_service_has_urls() -> None:
    service = {
        "kind": "Service",
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}, {"port": 8443, "name": "https"}, {"port": 8088}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}},
    }
    assert addresses(service) == ["http://127.0.0.1", "https://127.0.0.1:8443", "http://127.0.0.1:8088"]
    assert waiting_for(service) == ""
