"""The ReplicaSets of a Deployment as a numbered history: making the newest, and bringing an old one back."""

from __future__ import annotations

from collections.abc import Sequence

from dure.api.meta import annotations_of, controller_of, is_deleting, name_of, namespace_of, owner_reference, uid_of
from dure.client.client import Client
from dure.controllers.pods import template_hash
from dure.controllers.rollout import (
    DESIRED,
    HASH_LABEL,
    MAXIMUM,
    REVISION,
    bounds,
    is_recreating,
    next_revision,
    replicas,
    revision_of,
    standing,
    template_without_hash,
)
from dure.controllers.shared import write_status
from dure.core.errors import AlreadyExists
from dure.core.json import Obj, thaw

_HISTORY = "deployment.kubernetes.io/revision-history"
_NOT_INHERITED = {"kubectl.kubernetes.io/last-applied-configuration", REVISION, _HISTORY, DESIRED, MAXIMUM}


def sizes(deployment: Obj) -> dict[str, str]:
    """Annotations by which a later look can tell a change of size from a step of a rollout."""
    surge, _ = bounds(deployment)
    return {DESIRED: str(replicas(deployment)), MAXIMUM: str(replicas(deployment) + surge)}


def _inherited(deployment: Obj) -> dict[str, str]:
    return {key: value for key, value in annotations_of(deployment).items() if key not in _NOT_INHERITED}


async def create_set(client: Client, deployment: Obj, old: Sequence[Obj]) -> Obj | None:
    """The set of the present template; None when its name is a stranger's: the deployment then counts a collision."""
    body = _body(deployment, old)
    try:
        return await client.create(body)
    except AlreadyExists:
        there = await client.get("replicasets.apps", name_of(body), namespace_of(body))
    if _is_of(there, deployment):
        return there  # made a moment ago, the cache does not show it yet
    status = dict(deployment.get("status") or {})
    status["collisionCount"] = int(status.get("collisionCount") or 0) + 1
    await write_status(client, deployment, status)
    return None


def _is_of(there: Obj, deployment: Obj) -> bool:
    owner = controller_of(there)
    wanted = template_without_hash(deployment["spec"]["template"])
    is_ours = owner is not None and owner["uid"] == uid_of(deployment) and not is_deleting(there)
    return is_ours and template_without_hash(there["spec"]["template"]) == wanted


def _body(deployment: Obj, old: Sequence[Obj]) -> Obj:
    template = thaw(deployment["spec"]["template"])
    short = template_hash(template, int((deployment.get("status") or {}).get("collisionCount") or 0))
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels[HASH_LABEL] = short
    selector = thaw(deployment["spec"]["selector"])
    selector.setdefault("matchLabels", {})[HASH_LABEL] = short
    spec: Obj = {"replicas": _first_size(deployment, old), "selector": selector, "template": template}
    if deployment["spec"].get("minReadySeconds"):
        spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
    meta = {
        "name": f"{name_of(deployment)}-{short}",
        "namespace": namespace_of(deployment),
        "labels": labels,
        "annotations": {**_inherited(deployment), **sizes(deployment), REVISION: str(next_revision(old))},
        "ownerReferences": [owner_reference(deployment)],
    }
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta, "spec": spec}


def _first_size(deployment: Obj, old: Sequence[Obj]) -> int:
    wanted = replicas(deployment)
    if is_recreating(deployment):
        return wanted
    surge, _ = bounds(deployment)
    return max(0, min(wanted, wanted + surge - sum(standing(item) for item in old)))


async def refresh_set(client: Client, deployment: Obj, new: Obj, old: Sequence[Obj]) -> Obj:
    """Annotations and minReadySeconds of the present set; one that comes back becomes the newest revision."""
    changed: Obj = thaw(new)
    annotations = changed["metadata"].setdefault("annotations", {})
    annotations |= {**_inherited(deployment), **sizes(deployment)}
    revision = next_revision(old)
    if revision_of(new) < revision:
        if revision_of(new):
            before = annotations.get(_HISTORY)
            annotations[_HISTORY] = f"{before},{revision_of(new)}" if before else str(revision_of(new))
        annotations[REVISION] = str(revision)
    ready_seconds = int(deployment["spec"].get("minReadySeconds") or 0)
    if ready_seconds != int(new["spec"].get("minReadySeconds") or 0):
        changed["spec"]["minReadySeconds"] = ready_seconds
    return new if changed == new else await client.update(changed)


async def note_revision(client: Client, deployment: Obj, new: Obj) -> Obj:
    """The deployment, its annotation naming the revision of its present set."""
    revision = annotations_of(new).get(REVISION)
    if not revision or annotations_of(deployment).get(REVISION) == revision:
        return deployment
    patch = {"metadata": {"annotations": {REVISION: revision}}}
    return await client.patch("deployments.apps", name_of(deployment), namespace_of(deployment), patch)
