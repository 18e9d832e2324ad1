"""Deployment: a history of ReplicaSets, and the way from one to the next."""

from __future__ import annotations

from collections.abc import Sequence

from dure.api.meta import (
    ObjectKey,
    controller_of,
    is_deleting,
    key_of,
    name_of,
    namespace_of,
    uid_of,
)
from dure.control.controller import Controller, Result
from dure.controllers.adoption import claim, wanted_by
from dure.controllers.deployment_status import Rollout, is_complete, make_status, seconds_to_deadline
from dure.controllers.pods import is_finished
from dure.controllers.revisions import create_set, note_revision, refresh_set, sizes
from dure.controllers.rollout import (
    Scale,
    find_new,
    is_recreating,
    is_scaling,
    plan_proportional,
    plan_rolling,
    plan_saturated,
    replicas,
    revision_of,
    surplus_history,
)
from dure.controllers.shared import Context, its_controller, itself, owned_by, write_status
from dure.core.errors import ApiError, Conflict, NotFound
from dure.core.json import Obj, thaw


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
        controller.watches(self._sets, wanted_by(self._deployments))
        controller.watches(self._pods, self._of_recreating)
        return controller

    def _of_recreating(self, pod: Obj) -> list[ObjectKey]:
        """A Recreate deployment goes on when the last old pod has gone."""
        owner = controller_of(pod)
        parent = self._sets.get(ObjectKey(namespace_of(pod), owner["name"])) if owner else None
        keys = its_controller("Deployment")(parent) if parent else []
        return [key for key in keys if (found := self._deployments.get(key)) and is_recreating(found)]

    async def reconcile(self, key: ObjectKey) -> Result:
        deployment = self._deployments.get(key)
        if deployment is None:
            return Result()
        sets = await claim(self._client, self._sets, deployment)
        new = find_new(deployment, sets)
        now = self._context.clock.time()
        if is_deleting(deployment):
            found: Rollout | None = Rollout(deployment, new, sets, now)
        else:
            found = await self._advance(deployment, new, sets, now)
        if found is not None:
            await self._write_status(found)
        return Result(requeue_after=seconds_to_deadline(deployment, now) or None)

    async def _advance(self, deployment: Obj, new: Obj | None, sets: list[Obj], now: float) -> Rollout | None:
        """One step; None when the deployment itself had to change first."""
        old = [item for item in sets if new is None or uid_of(item) != uid_of(new)]
        paused = bool(deployment["spec"].get("paused"))
        if paused or is_scaling(deployment, sets):
            await self._scale_only(deployment, new, old)
            if paused:
                await self._clean(deployment, old)
            return Rollout(deployment, new, sets, now)
        if is_recreating(deployment) and await self._still_standing(deployment, old):
            return Rollout(deployment, new, sets, now)
        if new is None:
            return await self._begin(deployment, old, now)
        new = await refresh_set(self._client, deployment, new, old)
        for step in self._plan(deployment, new, old):
            await self._apply(deployment, [new, *old], step)
        if is_complete(deployment, deployment.get("status") or {}):
            await self._clean(deployment, old)
        return Rollout(deployment, new, [new, *old], now)

    async def _begin(self, deployment: Obj, old: list[Obj], now: float) -> Rollout | None:
        """Make the set of a new template; its own event brings the next step."""
        try:
            new = await create_set(self._client, deployment, old)
        except Conflict:
            raise
        except ApiError as error:
            text = f"Failed to create new replica set: {error.message}"
            await self._context.recorder.record(deployment, "Warning", "ReplicaSetCreateError", text)
            await self._write_status(Rollout(deployment, None, old, now, failure=text))
            raise
        if new is None:
            return None
        if replicas(new):
            await self._say_scaled(deployment, Scale(name_of(new), 0, replicas(new)))
        return Rollout(deployment, new, [new, *old], now, was_created=True)

    @staticmethod
    def _plan(deployment: Obj, new: Obj, old: Sequence[Obj]) -> list[Scale]:
        if not is_recreating(deployment):
            return plan_rolling(deployment, new, old)
        have, wanted = replicas(new), replicas(deployment)
        return [Scale(name_of(new), have, wanted)] if have != wanted else []

    async def _still_standing(self, deployment: Obj, old: Sequence[Obj]) -> bool:
        """Recreate: take the old sets down, and wait until their pods have gone."""
        for item in old:
            if replicas(item):
                await self._apply(deployment, old, Scale(name_of(item), replicas(item), 0))
        pods = [pod for item in old for pod in owned_by(self._pods, uid_of(item))]
        return any(replicas(item) for item in old) or any(not is_finished(pod) for pod in pods)

    async def _scale_only(self, deployment: Obj, new: Obj | None, old: list[Obj]) -> None:
        """Every live set is written to, if only its note of the wish: else this would look like scaling for ever."""
        sets = [new, *old] if new else old
        live = [item for item in sets if replicas(item)]
        if len(live) <= 1:
            target = live[0] if live else new or max(sets, key=revision_of, default=None)
            steps = [Scale(name_of(target), replicas(target), replicas(deployment))] if target else []
        elif new and (down := plan_saturated(deployment, new, old)) is not None:
            steps = down
        else:
            steps = plan_proportional(deployment, sets)
        for step in steps:
            await self._apply(deployment, sets, step)

    async def _apply(self, deployment: Obj, sets: Sequence[Obj], step: Scale) -> None:
        current = next(item for item in sets if name_of(item) == step.set_name)
        changed = thaw(current)
        changed["spec"]["replicas"] = step.after
        changed["metadata"].setdefault("annotations", {}).update(sizes(deployment))
        if changed == current:
            return
        await self._client.update(changed)
        if step.after != step.before:
            await self._say_scaled(deployment, step)

    async def _say_scaled(self, deployment: Obj, step: Scale) -> None:
        direction = "up" if step.after > step.before else "down"
        text = f"Scaled {direction} replica set {step.set_name} from {step.before} to {step.after}"
        await self._context.recorder.record(deployment, "Normal", "ScalingReplicaSet", text)

    async def _clean(self, deployment: Obj, old: Sequence[Obj]) -> None:
        for item in surplus_history(deployment, old):
            namespace, name = key_of(item)
            try:
                await self._client.delete("replicasets.apps", name, namespace, uid=uid_of(item))
            except NotFound:
                continue  # gone already

    async def _write_status(self, rollout: Rollout) -> None:
        deployment = rollout.deployment
        status = make_status(rollout)
        if rollout.new is not None:
            deployment = await note_revision(self._client, deployment, rollout.new)
        if status != (deployment.get("status") or {}):
            await write_status(self._client, deployment, status)
