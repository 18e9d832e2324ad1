"""Event in both its APIs: core/v1 is what is stored, events.k8s.io/v1 another view of it."""

from __future__ import annotations

from collections.abc import Mapping

from dure.api.fields import invalid, required
from dure.api.kind import Conversion, FieldError
from dure.api.kinds.strategy import StandardStrategy, field
from dure.api.meta import GroupVersionKind
from dure.core.json import Obj

_CORE = "involvedObject"
_NEW = "regarding"
_NAMES = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_RENAMED = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_COMMON = {"reason": field("reason"), "type": field("type")}
_CORE_FIELDS = {
    **{f"{_CORE}.{name}": field(_CORE, name) for name in _NAMES},
    **_COMMON,
    "reportingComponent": field("reportingComponent"),
    "source": lambda obj: str((obj.get("source") or {}).get("component") or obj.get("reportingComponent") or ""),
}
_NEW_FIELDS = {
    **{f"{_NEW}.{name}": field(_NEW, name) for name in _NAMES},
    **_COMMON,
    "reportingController": field("reportingController"),
}


class EventStrategy(StandardStrategy):
    selectable = _CORE_FIELDS

    def check(self, obj: Obj) -> list[FieldError]:
        """The event lives where its object does; cluster-scoped objects' events in `default`."""
        namespace = obj["metadata"].get("namespace") or ""
        involved = (obj.get(_CORE) or {}).get("namespace") or ""
        if involved and involved != namespace:
            return [invalid(f"{_CORE}.namespace", involved, "does not match event.namespace")]
        if not involved and namespace not in ("default", "kube-system"):
            return [invalid(f"{_CORE}.namespace", involved, "does not match event.namespace")]
        return []


class NewEventStrategy(EventStrategy):
    """Stricter rules for what comes by events.k8s.io/v1."""

    selectable = _NEW_FIELDS

    def check(self, obj: Obj) -> list[FieldError]:
        errors = [
            required(name)
            for name in ("eventTime", "reportingController", "reportingInstance", "action", "reason")
            if not obj.get(name) and not obj.get("deprecatedFirstTimestamp")
        ]
        if obj.get("type") not in ("Normal", "Warning") and not obj.get("deprecatedFirstTimestamp"):
            errors.append(invalid("type", obj.get("type") or "", "must be one of: Normal, Warning"))
        if len(obj.get("note") or "") > 1024:
            errors.append(invalid("message", "", "can have at most 1024 characters"))
        return errors


def _renamed(obj: Obj, names: Mapping[str, str], api_version: str) -> Obj:
    return {**{names.get(name, name): value for name, value in obj.items()}, "apiVersion": api_version}


_BACK = {old: new for new, old in _RENAMED.items()}

EVENT_VIEW = Conversion(
    stored=GroupVersionKind("", "v1", "Event"),
    group="",
    plural="events",
    to_stored=lambda obj: _renamed(obj, _RENAMED, "v1"),
    from_stored=lambda obj: _renamed(obj, _BACK, "events.k8s.io/v1"),
)
