"""The columns of what makes pods: deployments and their kin, jobs, autoscalers, disruption budgets."""

from __future__ import annotations

from typing import Any

from dure.api.columns.cells import (
    AGE,
    NAME,
    NONE,
    at,
    column,
    containers_of,
    count,
    labels_text,
    text,
    yes_no,
)
from dure.api.durations import human_duration, since
from dure.api.meta import condition, controller_of
from dure.api.selectors import format_label_selector
from dure.core.clock import parse_rfc3339
from dure.core.json import Obj

_TEMPLATE = containers_of("spec", "template", "spec")
_SELECTOR = column(
    "Selector",
    lambda obj, now: format_label_selector(at(obj, "spec", "selector")),
    wide=True,
    text="Which pods it owns.",
)


def _ready_of_wanted(obj: Obj, now: float) -> str:
    wanted = at(obj, "spec", "replicas")
    return f"{at(obj, 'status', 'readyReplicas') or 0}/{1 if wanted is None else wanted}"


DEPLOYMENTS = (
    NAME,
    column("Ready", _ready_of_wanted, text="Number of the pod with ready state"),
    column("Up-to-date", count("status", "updatedReplicas"), "integer"),
    column("Available", count("status", "availableReplicas"), "integer"),
    AGE,
    *_TEMPLATE,
    _SELECTOR,
)
REPLICA_SETS = (
    NAME,
    column("Desired", count("spec", "replicas"), "integer"),
    column("Current", count("status", "replicas"), "integer"),
    column("Ready", count("status", "readyReplicas"), "integer"),
    AGE,
    *_TEMPLATE,
    _SELECTOR,
)
REPLICATION_CONTROLLERS = (
    *REPLICA_SETS[:-1],
    column("Selector", lambda obj, now: labels_text(at(obj, "spec", "selector")), wide=True),
)
STATEFUL_SETS = (NAME, column("Ready", _ready_of_wanted), AGE, *_TEMPLATE)
DAEMON_SETS = (
    NAME,
    column("Desired", count("status", "desiredNumberScheduled"), "integer"),
    column("Current", count("status", "currentNumberScheduled"), "integer"),
    column("Ready", count("status", "numberReady"), "integer"),
    column("Up-to-date", count("status", "updatedNumberScheduled"), "integer"),
    column("Available", count("status", "numberAvailable"), "integer"),
    column("Node Selector", lambda obj, now: labels_text(at(obj, "spec", "template", "spec", "nodeSelector"))),
    AGE,
    *_TEMPLATE,
    _SELECTOR,
)


def _controller(obj: Obj, now: float) -> str:
    owner = controller_of(obj)
    if owner is None:
        return NONE
    group = owner["apiVersion"].rpartition("/")[0]
    kind = owner["kind"].lower()
    return f"{kind}.{group}/{owner['name']}" if group else f"{kind}/{owner['name']}"


CONTROLLER_REVISIONS = (NAME, column("Controller", _controller), column("Revision", count("revision")), AGE)


def _job_status(job: Obj, now: float) -> str:
    def holds(type_: str) -> bool:
        return (condition(job, type_) or {}).get("status") == "True"

    for type_ in ("Complete", "Failed"):
        if holds(type_):
            return type_
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return next((type_ for type_ in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if holds(type_)), "Running")


def _completions(job: Obj, now: float) -> str:
    done, wanted = at(job, "status", "succeeded") or 0, at(job, "spec", "completions")
    if wanted is not None:
        return f"{done}/{wanted}"
    parallel = at(job, "spec", "parallelism") or 0
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _duration(job: Obj, now: float) -> str:
    begun, ended = at(job, "status", "startTime"), at(job, "status", "completionTime")
    if not begun:
        return ""
    return human_duration((parse_rfc3339(ended) if ended else now) - parse_rfc3339(begun))


JOBS = (
    NAME,
    column("Status", _job_status, text="Status of the job."),
    column("Completions", _completions),
    column("Duration", _duration, text="Time required to complete the job."),
    AGE,
    *_TEMPLATE,
    _SELECTOR,
)


def _last_schedule(obj: Obj, now: float) -> str:
    last = at(obj, "status", "lastScheduleTime")
    return since(last, now) if last else NONE


CRON_JOBS = (
    NAME,
    column("Schedule", text("spec", "schedule")),
    column("Timezone", text("spec", "timeZone", default=NONE)),
    column("Suspend", lambda obj, now: yes_no(at(obj, "spec", "suspend"), "<unset>"), "boolean"),
    column("Active", lambda obj, now: len(at(obj, "status", "active") or ()), "integer"),
    column("Last Schedule", _last_schedule),
    AGE,
    *containers_of("spec", "jobTemplate", "spec", "template", "spec"),
    column(
        "Selector",
        lambda obj, now: format_label_selector(at(obj, "spec", "jobTemplate", "spec", "selector")),
        wide=True,
    ),
)


def _target(metric: Obj, current: Obj | None) -> str:
    kind = metric.get("type", "")
    member = kind[:1].lower() + kind[1:]
    wanted = at(metric, member, "target") or {}
    have = at(current, member, "current") or {}
    name = f"{at(metric, member, 'name')}: " if kind in ("Resource", "ContainerResource") else ""
    if wanted.get("averageUtilization") is not None:
        shown = have.get("averageUtilization")
        return f"{name}{'<unknown>' if shown is None else f'{shown}%'}/{wanted['averageUtilization']}%"
    if wanted.get("averageValue") is not None:
        average = " (avg)" if kind in ("Object", "External") else ""
        return f"{name}{have.get('averageValue') or '<unknown>'}/{wanted['averageValue']}{average}"
    return f"{name}{have.get('value') or '<unknown>'}/{wanted.get('value')}"


def _targets(obj: Obj, now: float) -> str:
    metrics, current = at(obj, "spec", "metrics") or [], at(obj, "status", "currentMetrics") or []
    if not metrics:
        percent = at(obj, "spec", "targetCPUUtilizationPercentage")
        shown = at(obj, "status", "currentCPUUtilizationPercentage")
        return f"cpu: {'<unknown>' if shown is None else f'{shown}%'}/{percent}%" if percent else NONE
    texts = [
        _target(metric, current[index] if index < len(current) else None) for index, metric in enumerate(metrics[:2])
    ]
    more = f" + {len(metrics) - 2} more..." if len(metrics) > 2 else ""
    return ", ".join(texts) + more


def _reference(obj: Obj, now: float) -> str:
    return f"{at(obj, 'spec', 'scaleTargetRef', 'kind')}/{at(obj, 'spec', 'scaleTargetRef', 'name')}"


AUTOSCALERS = (
    NAME,
    column("Reference", _reference),
    column("Targets", _targets),
    column("MinPods", text("spec", "minReplicas", default="<unset>")),
    column("MaxPods", count("spec", "maxReplicas")),
    column("Replicas", count("status", "currentReplicas")),
    AGE,
)


def _bound(name: str) -> Any:
    return text("spec", name, default="N/A")


DISRUPTION_BUDGETS = (
    NAME,
    column("Min Available", _bound("minAvailable")),
    column("Max Unavailable", _bound("maxUnavailable")),
    column("Allowed Disruptions", count("status", "disruptionsAllowed"), "integer"),
    AGE,
)
