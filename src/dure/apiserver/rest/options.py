"""The options of each verb, out of the query or a DeleteOptions body, checked as upstream checks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dure.api.fields import forbidden, invalid, invalid_error, not_supported, required
from dure.api.kind import FieldError
from dure.api.selectors import FieldSelector, LabelSelector, parse_field_selector, parse_label_selector
from dure.core.errors import BadRequest
from dure.core.json import Obj
from dure.wire.http import Request

_TRUE = frozenset({"true", "1", "t", "T", "TRUE", "True"})
_FALSE = frozenset({"", "false", "0", "f", "F", "FALSE", "False"})
_META = "meta.k8s.io"


def _flag(request: Request, name: str) -> bool:
    text = request.param(name)
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise BadRequest(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _number(request: Request, name: str) -> int | None:
    text = request.param(name)
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def parse_revision(text: str) -> int:
    """Raises BadRequest for what was never a resourceVersion."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        raise BadRequest(f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What to list or watch. `revision` is None when none was given."""

    labels: LabelSelector
    fields: FieldSelector
    revision: int | None
    match: str
    limit: int
    continue_: str
    timeout_seconds: int | None
    bookmarks: bool
    initial_events: bool | None
    include: str
    """`includeObject` of a Table."""


def read_list_options(request: Request, *, watch: bool = False) -> ListOptions:
    revision_text = request.param("resourceVersion")
    initial = request.param("sendInitialEvents")
    options = ListOptions(
        labels=parse_label_selector(request.param("labelSelector")),
        fields=parse_field_selector(request.param("fieldSelector")),
        revision=parse_revision(revision_text) if revision_text else None,
        match=request.param("resourceVersionMatch"),
        limit=max(_number(request, "limit") or 0, 0),
        continue_=request.param("continue"),
        timeout_seconds=_number(request, "timeoutSeconds"),
        bookmarks=_flag(request, "allowWatchBookmarks"),
        initial_events=_flag(request, "sendInitialEvents") if initial else None,
        include=request.param("includeObject"),
    )
    errors = _check_watch(options) if watch else _check_list(options)
    if errors:
        raise invalid_error(_META, "ListOptions", "", errors)
    return options


def _check_watch(options: ListOptions) -> list[FieldError]:
    path, errors = "resourceVersionMatch", []
    if options.match and options.initial_events is None:
        errors.append(
            forbidden(path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        )
    if options.initial_events is not None and options.match != "NotOlderThan":
        if not options.match:
            errors.append(forbidden(path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
        else:
            errors.append(not_supported(path, options.match, ["NotOlderThan"]))
    return errors


def _check_list(options: ListOptions) -> list[FieldError]:
    path, errors = "resourceVersionMatch", []
    if options.initial_events is not None:
        errors.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if not options.match:
        return errors
    if options.match not in ("Exact", "NotOlderThan"):
        errors.append(not_supported(path, options.match, ["Exact", "NotOlderThan"]))
    if options.revision is None:
        errors.append(forbidden(path, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
    if options.continue_:
        errors.append(forbidden(path, "resourceVersionMatch is forbidden when continue is provided"))
    if options.match == "Exact" and options.revision == 0:
        errors.append(forbidden(path, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    return errors


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Of create, update and patch."""

    dry_run: bool = False
    manager: str = ""
    validation: str = "Warn"
    force: bool = False


def _dry_run(values: list[str], kind: str) -> bool:
    if any(value != "All" for value in values):
        raise invalid_error(_META, kind, "", [not_supported("dryRun", values, ["All"])])
    return bool(values)


def read_write_options(request: Request, kind: str) -> WriteOptions:
    """`kind` is CreateOptions, UpdateOptions or PatchOptions."""
    manager = request.param("fieldManager")
    validation = request.param("fieldValidation") or "Warn"
    errors = []
    if len(manager) > 128:
        errors.append(invalid("fieldManager", manager, "may not be longer than 128"))
    if validation not in ("Strict", "Warn", "Ignore"):
        errors.append(not_supported("fieldValidation", validation, ["", "Ignore", "Strict", "Warn"]))
    if errors:
        raise invalid_error(_META, kind, "", errors)
    dry_run = _dry_run(list(request.query.get("dryRun", ())), kind)
    return WriteOptions(dry_run, manager or _default_manager(request), validation, _flag(request, "force"))


def _default_manager(request: Request) -> str:
    """The program's name out of the user agent; of a caller in this process, its own."""
    if request.user is not None:
        return str(request.user.name)[:128]
    return request.headers.get("user-agent", "").split("/", 1)[0][:128]


def check_apply_options(request: Request) -> None:
    """Server-side apply insists on a manager."""
    if not request.param("fieldManager"):
        raise invalid_error(_META, "PatchOptions", "", [required("fieldManager", "is required for apply patch")])


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """`grace_seconds` None means the kind's default; `propagation` empty likewise."""

    grace_seconds: int | None = None
    propagation: str = ""
    uid: str = ""
    revision: str = ""
    dry_run: bool = False


def read_delete_options(request: Request, body: Obj) -> DeleteOptions:
    """The body wins over the query, as upstream."""
    grace = body.get("gracePeriodSeconds", _number(request, "gracePeriodSeconds"))
    propagation = body.get("propagationPolicy") or request.param("propagationPolicy")
    orphan: Any = body.get("orphanDependents")
    if orphan is None and request.param("orphanDependents"):
        orphan = _flag(request, "orphanDependents")
    conditions = body.get("preconditions") or {}
    dry_run = _dry_run(list(body.get("dryRun") or request.query.get("dryRun", ())), "DeleteOptions")
    if orphan is not None and propagation:
        detail = "orphanDependents and deletionPropagation cannot be both set"
        raise invalid_error(_META, "DeleteOptions", "", [invalid("propagationPolicy", propagation, detail)])
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        choices = ["Background", "Foreground", "Orphan"]
        raise invalid_error(_META, "DeleteOptions", "", [not_supported("propagationPolicy", propagation, choices)])
    if orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    return DeleteOptions(
        grace_seconds=max(grace, 1) if isinstance(grace, int) and grace < 0 else grace,
        propagation=propagation,
        uid=conditions.get("uid") or "",
        revision=conditions.get("resourceVersion") or "",
        dry_run=dry_run,
    )
