"""The columns of nodes, namespaces, configuration, events, storage, rights and the API's own kinds."""

from __future__ import annotations

from typing import Any

from dure.api.columns.cells import (
    AGE,
    CREATED_AT,
    NAME,
    NONE,
    at,
    column,
    count,
    joined,
    length,
    text,
    yes_no,
)
from dure.api.durations import human_duration, since
from dure.api.kind import Column
from dure.api.meta import condition
from dure.core.json import Obj

_ROLE_LABEL = "node-role.kubernetes.io/"
_SHORT_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _node_status(node: Obj, now: float) -> str:
    ready = condition(node, "Ready")
    states = ["Unknown" if ready is None else "Ready" if ready["status"] == "True" else "NotReady"]
    if at(node, "spec", "unschedulable"):
        states.append("SchedulingDisabled")
    return ",".join(states)


def _node_roles(node: Obj, now: float) -> str:
    labels = node["metadata"].get("labels") or {}
    roles = {key.removeprefix(_ROLE_LABEL) for key in labels if key.startswith(_ROLE_LABEL)} - {""}
    if labels.get("kubernetes.io/role"):
        roles.add(labels["kubernetes.io/role"])
    return joined(sorted(roles))


def _node_address(type_: str) -> Any:
    def cell(node: Obj, now: float) -> str:
        addresses = at(node, "status", "addresses") or []
        return next((item["address"] for item in addresses if item.get("type") == type_), NONE)

    return cell


def _info(name: str) -> Any:
    return text("status", "nodeInfo", name, default="<unknown>")


NODES = (
    NAME,
    column("Status", _node_status, text="The status of the node"),
    column("Roles", _node_roles, text="The roles of the node"),
    AGE,
    column("Version", text("status", "nodeInfo", "kubeletVersion")),
    column("Internal-IP", _node_address("InternalIP"), wide=True),
    column("External-IP", _node_address("ExternalIP"), wide=True),
    column("OS-Image", _info("osImage"), wide=True),
    column("Kernel-Version", _info("kernelVersion"), wide=True),
    column("Container-Runtime", _info("containerRuntimeVersion"), wide=True),
)
NAMESPACES = (NAME, column("Status", text("status", "phase"), text="The status of the namespace"), AGE)
CONFIG_MAPS = (NAME, column("Data", length("data", "binaryData")), AGE)
SECRETS = (NAME, column("Type", text("type")), column("Data", length("data")), AGE)
SERVICE_ACCOUNTS = (NAME, column("Secrets", length("secrets")), AGE)
LEASES = (NAME, column("Holder", text("spec", "holderIdentity")), AGE)
NAME_AND_CREATION = (NAME, CREATED_AT)


def _first_seen(event: Obj, now: float) -> str:
    stamp = event.get("firstTimestamp") or event.get("deprecatedFirstTimestamp") or event.get("eventTime")
    return since(stamp, now)


def _last_seen(event: Obj, now: float) -> str:
    observed = at(event, "series", "lastObservedTime")
    stamp = observed or event.get("lastTimestamp") or event.get("deprecatedLastTimestamp")
    return since(stamp, now) if stamp else _first_seen(event, now)


def _event_object(event: Obj, now: float) -> str:
    target = event.get("involvedObject") or event.get("regarding") or {}
    kind = str(target.get("kind") or "").lower()
    return f"{kind}/{target['name']}" if target.get("name") else kind


def _event_source(event: Obj, now: float) -> str:
    source = event.get("source") or event.get("deprecatedSource") or {}
    component = source.get("component") or event.get("reportingComponent") or event.get("reportingController") or ""
    host = source.get("host") or event.get("reportingInstance") or ""
    return f"{component}, {host}" if host else str(component)


def _event_count(event: Obj, now: float) -> int:
    times = at(event, "series", "count") or event.get("count") or event.get("deprecatedCount") or 1
    return int(times)


def _event_part(event: Obj, now: float) -> str:
    return str((event.get("involvedObject") or event.get("regarding") or {}).get("fieldPath") or "")


def _event_message(event: Obj, now: float) -> str:
    return str(event.get("message") or event.get("note") or "").strip()


EVENTS = (
    column("Last Seen", _last_seen, text="The most recent time this event was seen."),
    column("Type", text("type")),
    column("Reason", text("reason")),
    column("Object", _event_object),
    column("Subobject", _event_part, wide=True),
    column("Source", _event_source, wide=True),
    column("Message", _event_message),
    column("First Seen", _first_seen, wide=True),
    column("Count", _event_count, wide=True),
    Column("Name", "string", lambda obj, now: obj["metadata"].get("name", ""), "The name of the event.", "name", 1),
)


def _modes(*path: str) -> Any:
    return lambda obj, now: joined((_SHORT_MODES.get(mode, mode) for mode in at(obj, *path) or []), "")


def _phase(obj: Obj, now: float) -> str:
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else str(at(obj, "status", "phase") or "")


def _claim(volume: Obj, now: float) -> str:
    claim = at(volume, "spec", "claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


_MODE = column("VolumeMode", text("spec", "volumeMode", default="<unset>"), wide=True)
_STORAGE_CLASS = column("StorageClass", text("spec", "storageClassName"))
_ATTRIBUTES = column("VolumeAttributesClass", text("spec", "volumeAttributesClassName", default="<unset>"))
VOLUMES = (
    NAME,
    column("Capacity", text("spec", "capacity", "storage")),
    column("Access Modes", _modes("spec", "accessModes")),
    column("Reclaim Policy", text("spec", "persistentVolumeReclaimPolicy")),
    column("Status", _phase),
    column("Claim", _claim),
    _STORAGE_CLASS,
    _ATTRIBUTES,
    column("Reason", text("status", "reason")),
    AGE,
    _MODE,
)
CLAIMS = (
    NAME,
    column("Status", _phase),
    column("Volume", text("spec", "volumeName")),
    column("Capacity", text("status", "capacity", "storage")),
    column("Access Modes", _modes("status", "accessModes")),
    _STORAGE_CLASS,
    _ATTRIBUTES,
    AGE,
    _MODE,
)


def _class_name(obj: Obj, now: float) -> str:
    name = str(obj["metadata"].get("name", ""))
    notes = obj["metadata"].get("annotations") or {}
    return f"{name} (default)" if notes.get("storageclass.kubernetes.io/is-default-class") == "true" else name


STORAGE_CLASSES = (
    Column("Name", "string", _class_name, NAME.description, "name"),
    column("Provisioner", text("provisioner")),
    column("ReclaimPolicy", text("reclaimPolicy", default="Delete")),
    column("VolumeBindingMode", text("volumeBindingMode", default="<unset>")),
    column("AllowVolumeExpansion", lambda obj, now: str(bool(obj.get("allowVolumeExpansion"))).lower()),
    AGE,
)


def _quota(side: str) -> Any:
    limits = side == "limits"

    def cell(obj: Obj, now: float) -> str:
        hard, used = at(obj, "status", "hard") or {}, at(obj, "status", "used") or {}
        names = [name for name in sorted(hard) if name.startswith("limits.") is limits]
        return ", ".join(f"{name}: {used.get(name, 0)}/{hard[name]}" for name in names)

    return cell


RESOURCE_QUOTAS = (NAME, column("Request", _quota("requests")), column("Limit", _quota("limits")), AGE)


def _role(obj: Obj, now: float) -> str:
    return f"{at(obj, 'roleRef', 'kind')}/{at(obj, 'roleRef', 'name')}"


def _subjects(kind: str) -> Any:
    def cell(obj: Obj, now: float) -> str:
        found = [subject for subject in obj.get("subjects") or [] if subject.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{subject.get('namespace', '')}/{subject['name']}" for subject in found)
        return ", ".join(subject["name"] for subject in found)

    return cell


BINDINGS = (
    NAME,
    column("Role", _role),
    AGE,
    column("Users", _subjects("User"), wide=True),
    column("Groups", _subjects("Group"), wide=True),
    column("ServiceAccounts", _subjects("ServiceAccount"), wide=True),
)
PRIORITY_CLASSES = (
    NAME,
    column("Value", count("value"), "integer"),
    column("Global-Default", lambda obj, now: bool(obj.get("globalDefault")), "boolean"),
    AGE,
    column("PreemptionPolicy", text("preemptionPolicy")),
)
RUNTIME_CLASSES = (NAME, column("Handler", text("handler")), AGE)
WEBHOOKS = (NAME, column("Webhooks", length("webhooks"), "integer"), AGE)


def _available(obj: Obj, now: float) -> str:
    found = condition(obj, "Available")
    if found is None:
        return "Unknown"
    return "True" if found["status"] == "True" else f"{found['status']} ({found.get('reason', '')})"


def _api_service(obj: Obj, now: float) -> str:
    service = at(obj, "spec", "service")
    return f"{service.get('namespace')}/{service.get('name')}" if service else "Local"


API_SERVICES = (NAME, column("Service", _api_service), column("Available", _available), AGE)


def _requested(obj: Obj, now: float) -> str:
    seconds = at(obj, "spec", "expirationSeconds")
    return human_duration(seconds) if seconds is not None else NONE


def _request_state(obj: Obj, now: float) -> str:
    types = [item.get("type", "") for item in at(obj, "status", "conditions") or []]
    states = [type_ for type_ in ("Denied", "Approved", "Failed") if type_ in types] or ["Pending"]
    if at(obj, "status", "certificate"):
        states.append("Issued")
    return ",".join(states)


SIGNING_REQUESTS = (
    NAME,
    AGE,
    column("SignerName", text("spec", "signerName")),
    column("Requestor", text("spec", "username")),
    column("RequestedDuration", _requested),
    column("Condition", _request_state),
)
CSI_DRIVERS = (
    NAME,
    column("AttachRequired", lambda obj, now: yes_no(at(obj, "spec", "attachRequired"), "True").lower(), "boolean"),
    column("PodInfoOnMount", lambda obj, now: yes_no(at(obj, "spec", "podInfoOnMount")).lower(), "boolean"),
    column("StorageCapacity", lambda obj, now: yes_no(at(obj, "spec", "storageCapacity")).lower(), "boolean"),
    column("Modes", lambda obj, now: joined(at(obj, "spec", "volumeLifecycleModes") or ["Persistent"])),
    AGE,
)
