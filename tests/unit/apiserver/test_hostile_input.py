"""Whatever a client sends, the answer is its fault or a success, never a bug of the server."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dure.core.json import loads
from tests.support.cluster import api_server
from tests.support.wire import Remote, decoded

WEIRD: list[Any] = [None, [], {}, 5, -1, 1.5, True, "", "x", "../a", [None], [{}], {"a": None}, "x" * 300, {"": 1}]
CONTAINER = {"name": "c", "image": "i", "ports": [{"containerPort": 1}], "env": [{"name": "a", "value": "b"}]}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [CONTAINER]}}
VERSION = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
OBJECT: dict[str, Any] = {
    "metadata": {"name": "z", "labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["a/b"]},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"a": "b"}},
        "template": TEMPLATE,
        "containers": [CONTAINER],
        "ports": [{"port": 1}],
        "group": "a.b",
        "names": {"plural": "as", "kind": "A"},
        "versions": [VERSION],
    },
    "data": {"a": "b"},
    "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "x"},
    "subjects": [{"kind": "User", "name": "a"}],
}
QUERIES = (
    "limit=abc", "limit=-1", "timeoutSeconds=x&watch=1", "watch=banana", "resourceVersion=abc", "resourceVersion=-1",
    "labelSelector=((", "labelSelector=a in (", "fieldSelector=a", "continue=%00", "continue=eyJ2IjoxfQ",
    "resourceVersionMatch=x", "sendInitialEvents=x&watch=1", "allowWatchBookmarks=q",
)  # fmt: skip


class Mutator:
    """Breaks a little of an object, the same way for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def broken(self) -> dict[str, Any]:
        return {key: self(child) for key, child in OBJECT.items()}

    def __call__(self, value: Any) -> Any:
        if self.random.random() < 0.04:
            return self.random.choice(WEIRD)
        if isinstance(value, dict):
            return {key: self(child) for key, child in value.items() if self.random.random() > 0.05}
        return [self(child) for child in value] if isinstance(value, list) else value


@pytest.mark.parametrize("seed", range(4))
async def test_broken_objects_are_refused_politely(seed: int) -> None:
    mutate = Mutator(seed)
    async with api_server() as (server, _):
        remote, kinds = Remote(server.handle), list(server.kinds)
        for _round in range(100):
            kind = mutate.random.choice(kinds)
            typed = {"apiVersion": kind.api_version, "kind": kind.kind}
            path = kind.path("default", "z")
            made = await remote.ask("POST", kind.path("default"), {**mutate.broken(), **typed})
            answers = [made]
            if made.status == 201 and "patch" in kind.verbs:
                for media in ("merge-patch+json", "strategic-merge-patch+json", "json-patch+json"):
                    content_type = f"application/{media}"
                    answers.append(await remote.ask("PATCH", path, mutate(OBJECT), content_type=content_type))
                applied = {**mutate.broken(), **typed}
                media = "application/apply-patch+yaml"
                answers.append(await remote.ask("PATCH", f"{path}?fieldManager=a", applied, content_type=media))
                answers.append(await remote.ask("DELETE", path, {"propagationPolicy": mutate.random.choice(WEIRD)}))
            answers.append(await remote.ask("GET", f"{kind.path('default')}?{mutate.random.choice(QUERIES)}"))
            broken = [decoded(answer) for answer in answers if answer.status == 500]
            assert not broken


@pytest.mark.parametrize("media", ["", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"])
@pytest.mark.parametrize("body", [{"spec": "x"}, {"spec": [1]}, {"metadata": "x"}, {"metadata": ["x"]}])
async def test_a_broken_scale_is_a_bad_request(media: str, body: dict[str, Any]) -> None:
    """A Scale whose spec or metadata was no object ended in an internal error."""
    path = "/apis/apps/v1/namespaces/default/replicasets/r"
    labels = {"app": "r"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    made = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r", "namespace": "default"}}
    async with api_server() as (server, client):
        await client.create({**made, "spec": {"selector": {"matchLabels": labels}, "template": template}})
        target, method = f"{path}/scale?fieldManager=a", "PATCH" if media else "PUT"
        content_type = f"application/{media or 'json'}"
        answer = await Remote(server.handle).value(method, target, body, content_type=content_type)
        assert answer["code"] == 400


@pytest.mark.parametrize("media", ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"])
async def test_noise_is_a_bad_request(media: str) -> None:
    noise = random.Random(7)
    async with api_server() as (server, _):
        remote = Remote(server.handle)
        for length in range(60):
            body = b"k8s\0" * (length % 2) + bytes(noise.randrange(256) for _ in range(length))
            answer = await remote.ask("POST", "/api/v1/namespaces/default/configmaps", body, content_type=media)
            assert answer.status in (400, 415, 422), loads(bytes(answer.body))
