"""Builds every reconciler over shared informers and runs them as long as the caller does."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dure.api.kind import Kinds
from dure.control.controller import Controller
from dure.controllers.deployment import DeploymentReconciler
from dure.controllers.endpoints import EndpointsReconciler
from dure.controllers.events import EventReconciler
from dure.controllers.garbage import GarbageCollector
from dure.controllers.job import JobReconciler
from dure.controllers.job_strays import StrayPodReconciler
from dure.controllers.namespace import NamespaceReconciler
from dure.controllers.node import NodeReconciler
from dure.controllers.pod_gc import FinishedPodReconciler, LostPodReconciler
from dure.controllers.protection import ProtectionReconciler
from dure.controllers.replicaset import ReplicaSetReconciler
from dure.controllers.serviceaccount import NamespaceFurnisher
from dure.controllers.shared import Context
from dure.controllers.volume import ClaimReconciler, default_storage_class
from dure.core.errors import AlreadyExists
from dure.core.json import Obj


async def run_controllers(context: Context, kinds: Kinds, *, root_certificate: str, volumes: Path) -> None:
    """Runs until cancelled. `root_certificate` is PEM; `volumes` is where local volumes are made."""
    garbage = GarbageCollector(context.client, kinds)
    controllers: list[Controller] = [
        NamespaceFurnisher(context, root_certificate).build(),
        ReplicaSetReconciler(context).build(),
        DeploymentReconciler(context).build(),
        EndpointsReconciler(context).build(),
        NamespaceReconciler(context, kinds).build(),
        NodeReconciler(context).build(),
        LostPodReconciler(context).build(),
        FinishedPodReconciler(context).build(),
        EventReconciler(context).build(),
        JobReconciler(context).build(),
        StrayPodReconciler(context).build(),
        ClaimReconciler(context, volumes).build(),
        ProtectionReconciler(context).build(),
        garbage.build(),
    ]
    definitions = context.informers.of("customresourcedefinitions.apiextensions.k8s.io")
    definitions.on_change(lambda _old, _new: garbage.kinds_changed())
    async with asyncio.TaskGroup() as group:
        group.create_task(context.informers.run())
        group.create_task(garbage.watch_everything())
        await _ensure(context, default_storage_class())
        await context.informers.wait_synced()
        for controller in controllers:
            group.create_task(controller.run())


async def _ensure(context: Context, obj: Obj) -> None:
    try:
        await context.client.create(obj)
    except AlreadyExists:
        return  # from an earlier start; the user may have changed it
