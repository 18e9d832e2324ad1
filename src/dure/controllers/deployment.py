"""Deployment: a history of ReplicaSets, and the way from one to the next."""

from __future__ import annotations

from collections.abc import Sequence

from dure.api.meta import (
    ObjectKey,
    annotations_of,
    condition,
    controller_of,
    is_deleting,
    key_of,
    name_of,
    namespace_of,
    owner_reference,
    uid_of,
)
from dure.api.selectors import LabelSelector, from_label_selector
from dure.control.controller import Controller, Result
from dure.controllers.adoption import claim
from dure.controllers.deployment_status import make_status, seconds_to_deadline
from dure.controllers.pods import is_finished, template_hash
from dure.controllers.rollout import (
    DESIRED,
    HASH_LABEL,
    MAXIMUM,
    REVISION,
    Scale,
    bounds,
    find_new,
    is_scaling,
    next_revision,
    plan_proportional,
    plan_rolling,
    replicas,
    revision_of,
    surplus_history,
    template_without_hash,
)
from dure.controllers.shared import Context, its_controller, itself, owned_by
from dure.core.errors import AlreadyExists, NotFound
from dure.core.json import Obj, thaw

_NOT_INHERITED = {"kubectl.kubernetes.io/last-applied-configuration", REVISION, DESIRED, MAXIMUM}


class DeploymentReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._client = context.client
        self._deployments = context.informers.of("deployments.apps")
        self._sets = context.informers.of("replicasets.apps")
        self._pods = context.informers.of("pods")

    def build(self) -> Controller:
        controller = Controller("deployment", self, workers=5)
        controller.watches(self._deployments, itself)
        controller.watches(self._sets, its_controller("Deployment"))
        controller.watches(self._pods, self._of_recreating)
        return controller

    def _of_recreating(self, pod: Obj) -> list[ObjectKey]:
        """A Recreate deployment goes on when the last old pod has gone."""
        owner = controller_of(pod)
        if owner is None or owner["kind"] != "ReplicaSet":
            return []
        parent = self._sets.get(ObjectKey(namespace_of(pod), owner["name"]))
        return its_controller("Deployment")(parent) if parent else []

    async def reconcile(self, key: ObjectKey) -> Result:
        deployment = self._deployments.get(key)
        if deployment is None:
            return Result()
        selector = from_label_selector(deployment["spec"].get("selector")) or LabelSelector()
        sets = await claim(self._client, self._sets, "replicasets.apps", deployment, selector)
        new = find_new(deployment, sets)
        if not is_deleting(deployment):
            new, sets = await self._advance(deployment, new, sets)
        await self._write_status(deployment, new, sets)
        return Result(requeue_after=seconds_to_deadline(deployment, self._context.clock.time()) or None)

    async def _advance(self, deployment: Obj, new: Obj | None, sets: list[Obj]) -> tuple[Obj | None, list[Obj]]:
        old = [item for item in sets if new is None or uid_of(item) != uid_of(new)]
        paused = bool(deployment["spec"].get("paused"))
        if paused or is_scaling(deployment, sets):
            await self._scale_only(deployment, new, old, sets)
            if paused:
                await self._clean(deployment, old)
            return new, sets
        recreate = (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"
        if recreate and await self._still_standing(deployment, old):
            return new, sets
        if new is None:
            new = await self._create_set(deployment, old)
            if new is None:
                return None, sets
            sets = [*sets, new]
        else:
            new = await self._refresh_set(deployment, new, old)
        steps = self._plan(deployment, new, old, recreate=recreate)
        for step in steps:
            await self._apply(deployment, [new, *old], step)
        if not steps:
            await self._clean(deployment, old)
        return new, sets

    def _plan(self, deployment: Obj, new: Obj, old: Sequence[Obj], *, recreate: bool) -> list[Scale]:
        if recreate:
            have, wanted = replicas(new), replicas(deployment)
            return [Scale(name_of(new), have, wanted)] if have != wanted else []
        return plan_rolling(deployment, new, old)

    async def _still_standing(self, deployment: Obj, old: Sequence[Obj]) -> bool:
        """Recreate: take the old sets down, and wait until their pods have gone."""
        for item in old:
            if replicas(item):
                await self._apply(deployment, old, Scale(name_of(item), replicas(item), 0))
        pods = [pod for item in old for pod in owned_by(self._pods, item)]
        return any(replicas(item) for item in old) or any(not is_finished(pod) for pod in pods)

    async def _scale_only(self, deployment: Obj, new: Obj | None, old: Sequence[Obj], sets: Sequence[Obj]) -> None:
        live = [item for item in sets if replicas(item)]
        wanted = replicas(deployment)
        if len(live) <= 1:
            target = live[0] if live else new or max(sets, key=revision_of, default=None)
            steps = [Scale(name_of(target), replicas(target), wanted)] if target else []
        else:
            steps = plan_proportional(deployment, sets)
        planned = {step.set_name for step in steps}
        for step in steps:
            await self._apply(deployment, sets, step)
        for item in live:  # unchanged ones take over the new wish too, or scaling would never end
            if name_of(item) not in planned:
                await self._apply(deployment, sets, Scale(name_of(item), replicas(item), replicas(item)))

    async def _apply(self, deployment: Obj, sets: Sequence[Obj], step: Scale) -> None:
        current = next(item for item in sets if name_of(item) == step.set_name)
        changed = thaw(current)
        changed["spec"]["replicas"] = step.after
        changed["metadata"].setdefault("annotations", {}).update(self._sizes(deployment))
        if changed == current:
            return
        await self._client.update(changed)
        if step.after == step.before:
            return
        direction = "up" if step.after > step.before else "down"
        await self._context.recorder.record(
            deployment,
            "Normal",
            "ScalingReplicaSet",
            f"Scaled {direction} replica set {step.set_name} from {step.before} to {step.after}",
        )

    @staticmethod
    def _sizes(deployment: Obj) -> dict[str, str]:
        surge, _ = bounds(deployment)
        return {DESIRED: str(replicas(deployment)), MAXIMUM: str(replicas(deployment) + surge)}

    def _inherited(self, deployment: Obj, revision: int) -> dict[str, str]:
        mine = {key: value for key, value in annotations_of(deployment).items() if key not in _NOT_INHERITED}
        return {**mine, **self._sizes(deployment), REVISION: str(revision)}

    async def _create_set(self, deployment: Obj, old: Sequence[Obj]) -> Obj | None:
        collisions = int((deployment.get("status") or {}).get("collisionCount") or 0)
        template = thaw(deployment["spec"]["template"])
        short = template_hash(template, collisions)
        template.setdefault("metadata", {}).setdefault("labels", {})[HASH_LABEL] = short
        selector = thaw(deployment["spec"]["selector"])
        selector.setdefault("matchLabels", {})[HASH_LABEL] = short
        spec: Obj = {"replicas": 0, "selector": selector, "template": template}
        if deployment["spec"].get("minReadySeconds"):
            spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
        spec["replicas"] = self._first_size(deployment, old)
        body: Obj = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{name_of(deployment)}-{short}",
                "namespace": namespace_of(deployment),
                "labels": template["metadata"]["labels"],
                "annotations": self._inherited(deployment, next_revision(old)),
                "ownerReferences": [owner_reference(deployment)],
            },
            "spec": spec,
        }
        try:
            made = await self._client.create(body)
        except AlreadyExists:
            return await self._resolve_collision(deployment, body["metadata"]["name"], collisions)
        if spec["replicas"]:
            await self._context.recorder.record(
                deployment,
                "Normal",
                "ScalingReplicaSet",
                f"Scaled up replica set {name_of(made)} from 0 to {spec['replicas']}",
            )
        await self._note_revision(deployment, revision_of(made))
        return made

    def _first_size(self, deployment: Obj, old: Sequence[Obj]) -> int:
        wanted = replicas(deployment)
        if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            return wanted
        surge, _ = bounds(deployment)
        return max(0, min(wanted, wanted + surge - sum(replicas(item) for item in old)))

    async def _resolve_collision(self, deployment: Obj, name: str, collisions: int) -> Obj | None:
        """Ours from a moment ago, which the cache does not show yet; or a stranger's, which gets us another name."""
        there = await self._client.get("replicasets.apps", name, namespace_of(deployment))
        owner = controller_of(there)
        same = template_without_hash(there["spec"]["template"]) == template_without_hash(deployment["spec"]["template"])
        if owner and owner["uid"] == uid_of(deployment) and same:
            return there
        await self._client.patch(
            "deployments.apps",
            name_of(deployment),
            namespace_of(deployment),
            {"status": {"collisionCount": collisions + 1}},
            subresource="status",
        )
        return None

    async def _refresh_set(self, deployment: Obj, new: Obj, old: Sequence[Obj]) -> Obj:
        """Annotations and minReadySeconds of the present set; a rolled-back one becomes the newest revision."""
        revision = max(revision_of(new), next_revision(old))
        changed = thaw(new)
        wanted = self._inherited(deployment, revision)
        changed["metadata"]["annotations"] = {**annotations_of(new), **wanted}
        ready_seconds = int(deployment["spec"].get("minReadySeconds") or 0)
        if ready_seconds != int(new["spec"].get("minReadySeconds") or 0):
            changed["spec"]["minReadySeconds"] = ready_seconds
        result = new if changed == new else await self._client.update(changed)
        await self._note_revision(deployment, revision)
        return result

    async def _note_revision(self, deployment: Obj, revision: int) -> None:
        if annotations_of(deployment).get(REVISION) == str(revision):
            return
        patch = {"metadata": {"annotations": {REVISION: str(revision)}}}
        await self._client.patch("deployments.apps", name_of(deployment), namespace_of(deployment), patch)

    async def _clean(self, deployment: Obj, old: Sequence[Obj]) -> None:
        for item in surplus_history(deployment, old):
            namespace, name = key_of(item)
            try:
                await self._client.delete("replicasets.apps", name, namespace, uid=uid_of(item))
            except NotFound:
                continue  # gone already

    async def _write_status(self, deployment: Obj, new: Obj | None, sets: Sequence[Obj]) -> None:
        failure = condition(new, "ReplicaFailure") if new else None
        text = failure["message"] if failure and failure["status"] == "True" else ""
        status = make_status(deployment, new, sets, self._context.clock.time(), self._context.now(), text)
        if status == (deployment.get("status") or {}):
            return
        latest = thaw(deployment)
        latest["status"] = status
        latest["metadata"].pop("resourceVersion", None)  # only this controller writes a deployment's status
        await self._client.update(latest, subresource="status")
