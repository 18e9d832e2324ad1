"""The official Python client, unmodified."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

from tests.support.platform import Platform, eventually


@pytest.fixture
def api(platform: Platform) -> Any:
    return client.CoreV1Api(config.new_client_from_config(str(platform.kubeconfig)))


def pod(name: str) -> dict[str, Any]:
    container = {"name": "c", "image": "busybox", "command": ["sh", "-c", "echo started; sleep 1000"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"a": "b"}}, "spec": spec}


def test_create_watch_patch_exec_delete(api: Any, namespace: str) -> None:
    phases: list[tuple[str, str]] = []

    def follow() -> None:
        for event in watch.Watch().stream(api.list_namespaced_pod, namespace, timeout_seconds=60):
            phases.append((event["type"], event["object"].status.phase))
            if event["type"] == "DELETED":
                return

    follower = threading.Thread(target=follow)
    follower.start()
    time.sleep(0.3)
    made = api.create_namespaced_pod(namespace, pod("box"))
    assert made.status.phase == "Pending"
    eventually(lambda: (api.read_namespaced_pod("box", namespace).status.container_statuses or [])[0].ready, within=60)
    patched = api.patch_namespaced_pod("box", namespace, {"metadata": {"labels": {"patched": "yes"}}})
    assert patched.metadata.labels == {"a": "b", "patched": "yes"}
    assert [item.metadata.name for item in api.list_namespaced_pod(namespace, label_selector="patched=yes").items] == [
        "box"
    ]
    said = stream(
        api.connect_get_namespaced_pod_exec, "box", namespace, command=["sh", "-c", "echo out; echo err >&2"],
        stderr=True, stdin=False, stdout=True, tty=False,
    )  # fmt: skip
    assert sorted(said.split()) == ["err", "out"]
    assert api.read_namespaced_pod_log("box", namespace) == "started\n"
    api.delete_namespaced_pod("box", namespace)
    follower.join(30)
    assert phases[0] == ("ADDED", "Pending")
    assert ("MODIFIED", "Running") in phases
    assert phases[-1][0] == "DELETED"


def test_errors_carry_the_status(api: Any, namespace: str) -> None:
    with pytest.raises(ApiException) as caught:
        api.read_namespaced_pod("missing", namespace)
    assert caught.value.status == 404
    assert 'pods \\"missing\\" not found' in caught.value.body


def test_conflicting_replace_is_refused(api: Any, namespace: str) -> None:
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="c"), data={"a": "1"})
    first = api.create_namespaced_config_map(namespace, body)
    first.data = {"a": "2"}
    api.replace_namespaced_config_map("c", namespace, first)
    with pytest.raises(ApiException) as caught:
        api.replace_namespaced_config_map("c", namespace, first)
    assert caught.value.status == 409
    assert "the object has been modified" in caught.value.body
