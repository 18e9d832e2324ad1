"""Job and CronJob: defaults, the generated selector, schedules, what may change while a job runs."""

from __future__ import annotations

import re

from dure.api.fields import immutable, invalid, not_supported, required
from dure.api.kind import FieldError
from dure.api.kinds.podrules import validate_template
from dure.api.kinds.podspec import default_template
from dure.api.kinds.rules import check_choice, check_label_selector, check_not_negative
from dure.api.kinds.strategy import StandardStrategy, field
from dure.api.meta import name_of, uid_of
from dure.api.selectors import from_label_selector
from dure.core.json import Obj

CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
_LEGACY_UID, _LEGACY_NAME = "controller-uid", "job-name"
_JOB_FIELDS = {"status.successful": field("status", "succeeded", default="0")}
_NAME_LIMIT = 52
_CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON_NAMES: tuple[dict[str, int], ...] = (
    {},
    {},
    {},
    {name: number for number, name in enumerate(_MONTHS, 1)},
    {name: number for number, name in enumerate(_DAYS)},
)
_CRON_MACROS = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})


class JobStrategy(StandardStrategy):
    has_status = True
    has_generation = True
    selectable = _JOB_FIELDS

    def default(self, obj: Obj) -> None:
        default_job_spec(obj.setdefault("spec", {}))
        labels = (obj["spec"]["template"].get("metadata") or {}).get("labels")
        if labels and not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(labels)

    def prepare_create(self, obj: Obj) -> None:
        """The selector holds the job's uid, so that no two jobs ever share pods."""
        super().prepare_create(obj)
        obj["status"] = {}
        if not obj["spec"].get("manualSelector"):
            _generate_selector(obj)

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj["spec"]
        errors = validate_job_spec(spec, "spec")
        if spec.get("completionMode") == "Indexed" and not obj["metadata"].get("name"):
            return errors
        return errors + _selector(obj)

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        if subresource:
            return []
        new, was = obj["spec"], old["spec"]
        errors = []
        if new.get("completionMode") != "Indexed" or new.get("completions") != new.get("parallelism"):
            errors += immutable("spec.completions", new.get("completions"), was.get("completions"))
        for name in ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy"):
            errors += immutable(f"spec.{name}", new.get(name), was.get(name))
        if not _may_change_template(old):
            errors += immutable("spec.template", new.get("template"), was.get("template"))
        return errors


def _may_change_template(old: Obj) -> bool:
    """Scheduling directives of a suspended job that never started may still be set."""
    return bool(old["spec"].get("suspend")) and not (old.get("status") or {}).get("startTime")


def default_job_spec(spec: Obj) -> None:
    default_template(spec)
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 2147483647 if spec.get("backoffLimitPerIndex") is not None else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    failed_only = spec.get("podFailurePolicy") is not None
    spec.setdefault("podReplacementPolicy", "Failed" if failed_only else "TerminatingOrFailed")


def _generate_selector(obj: Obj) -> None:
    spec, uid, name = obj["spec"], uid_of(obj), name_of(obj)
    meta = spec["template"].setdefault("metadata", {})
    own = {_LEGACY_UID: uid, _LEGACY_NAME: name, CONTROLLER_UID: uid, JOB_NAME: name}
    given = meta.get("labels") or {}
    meta["labels"] = {**own, **given}
    if not spec.get("selector"):
        spec["selector"] = {"matchLabels": {CONTROLLER_UID: uid}}
    else:
        spec["selector"].setdefault("matchLabels", {}).setdefault(CONTROLLER_UID, uid)
    if (obj["metadata"].get("labels") or {}) == given:
        obj["metadata"]["labels"] = dict(meta["labels"])


def _selector(obj: Obj) -> list[FieldError]:
    spec = obj["spec"]
    selector = spec.get("selector")
    if selector is None:
        return [required("spec.selector")]
    errors = check_label_selector(selector, "spec.selector")
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    if not spec.get("manualSelector"):
        for key, value in ((CONTROLLER_UID, uid_of(obj)), (JOB_NAME, name_of(obj))):
            if labels.get(key) != value:
                errors.append(
                    invalid(f"spec.template.metadata.labels[{key}]", labels.get(key, ""), f"must be '{value}'")
                )
    parsed = from_label_selector(selector)
    if not errors and parsed is not None and not parsed.matches(labels):
        errors.append(invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    return errors


def validate_job_spec(spec: Obj, path: str) -> list[FieldError]:
    errors = []
    for name in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ):
        errors += check_not_negative(f"{path}.{name}", spec.get(name))
    errors += check_choice(f"{path}.completionMode", spec.get("completionMode"), ("NonIndexed", "Indexed"))
    if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        errors.append(required(f"{path}.completions", "when completion mode is Indexed"))
    policies = ("TerminatingOrFailed", "Failed")
    errors += check_choice(f"{path}.podReplacementPolicy", spec.get("podReplacementPolicy"), policies)
    errors += validate_template(spec["template"], f"{path}.template")
    restart = (spec["template"].get("spec") or {}).get("restartPolicy")
    if restart == "Always":
        here = f"{path}.template.spec.restartPolicy"
        errors.append(not_supported(here, restart, ("OnFailure", "Never")))
    return errors


class CronJobStrategy(StandardStrategy):
    has_status = True
    has_generation = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        for name, value in (
            ("concurrencyPolicy", "Allow"),
            ("suspend", False),
            ("successfulJobsHistoryLimit", 3),
            ("failedJobsHistoryLimit", 1),
        ):
            if spec.get(name) in (None, ""):
                spec[name] = value
        default_cron_template(spec.setdefault("jobTemplate", {}).setdefault("spec", {}))

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        obj["status"] = {}

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj["spec"]
        name = obj["metadata"].get("name") or ""
        errors = []
        if len(name) > _NAME_LIMIT:
            errors.append(invalid("metadata.name", name, f"must be no more than {_NAME_LIMIT} characters"))
        errors += _schedule(spec.get("schedule") or "")
        policies = ("Allow", "Forbid", "Replace")
        errors += check_choice("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), policies)
        for field_name in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
            errors += check_not_negative(f"spec.{field_name}", spec.get(field_name))
        if "timeZone" in spec:
            errors += _time_zone(spec["timeZone"])
        return errors + validate_job_template(spec["jobTemplate"], "spec.jobTemplate")


def default_cron_template(spec: Obj) -> None:
    """A template of jobs gets the pod's defaults only; the job's own come when it is made."""
    default_template(spec)


def validate_job_template(template: Obj, path: str) -> list[FieldError]:
    filled = {"completionMode": "NonIndexed", "podReplacementPolicy": "TerminatingOrFailed", **template["spec"]}
    errors = validate_job_spec(filled, f"{path}.spec")
    if template["spec"].get("manualSelector"):
        errors.append(not_supported(f"{path}.spec.manualSelector", True, ("nil", "false")))
    return errors


def _time_zone(zone: str | None) -> list[FieldError]:
    if zone is None:
        return []
    if not zone:
        return [invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")]
    if zone.lower() == "local":
        detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [invalid("spec.timeZone", zone, detail)]
    if not re.fullmatch(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*", zone):
        return [invalid("spec.timeZone", zone, f"unknown time zone {zone}")]
    return []


def _schedule(text: str) -> list[FieldError]:
    if not text:
        return [required("spec.schedule")]
    if "TZ" in text:
        return [invalid("spec.schedule", text, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")]
    fault = _cron_fault(text)
    return [invalid("spec.schedule", text, fault)] if fault else []


def _cron_fault(text: str) -> str:
    """What is wrong with a five-field schedule or a macro, empty when nothing."""
    if text.startswith("@"):
        known = text in _CRON_MACROS or text.startswith("@every ")
        return "" if known else f"unrecognized descriptor: {text}"
    fields = text.split()
    if len(fields) != 5:
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for part, (low, high), names in zip(fields, _CRON_RANGES, _CRON_NAMES, strict=True):
        for item in part.split(","):
            if fault := _cron_item(item.lower(), low, high, names):
                return fault
    return ""


def _cron_item(item: str, low: int, high: int, names: dict[str, int]) -> str:
    span, _, step = item.partition("/")
    if step and not (step.isdigit() and int(step) > 0):
        return f"failed to parse int from {step}: step of range should be a positive number: {item}"
    if span in ("*", "?"):
        return ""
    for edge in span.split("-"):
        number = names.get(edge, int(edge) if edge.isdigit() else -1)
        if number < 0:
            return f"failed to parse int from {edge}: {item}"
        if number < low:
            return f"beginning of range ({number}) below minimum ({low}): {item}"
        if number > high:
            return f"end of range ({number}) above maximum ({high}): {item}"
    return ""
