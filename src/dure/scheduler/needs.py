"""What a pod asks of a node, compiled once from its spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dure.api.meta import key_of, labels_of
from dure.api.quantities import milli, whole
from dure.api.selectors import LabelSelector, Requirement, from_label_selector
from dure.core.json import Obj

CPU, MEMORY, EPHEMERAL, PODS = "cpu", "memory", "ephemeral-storage", "pods"
HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class Toleration:
    key: str
    operator: str
    value: str
    effect: str

    def tolerates(self, taint: Mapping[str, Any]) -> bool:
        """As `Toleration.ToleratesTaint`: an empty key with Exists tolerates everything."""
        if self.effect and self.effect != taint.get("effect"):
            return False
        if self.key and self.key != taint.get("key"):
            return False
        if self.operator == "Exists":
            return True
        return bool(self.key) and self.value == (taint.get("value") or "")


@dataclass(frozen=True, slots=True)
class NodeTerm:
    """One node selector term: all expressions over labels and all over fields must hold."""

    labels: tuple[Requirement, ...]
    fields: tuple[Requirement, ...]
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Pods of some namespaces that match a selector."""

    namespaces: frozenset[str] | None
    """None: every namespace."""
    selector: LabelSelector

    def covers(self, namespace: str, labels: Mapping[str, str]) -> bool:
        return (self.namespaces is None or namespace in self.namespaces) and self.selector.matches(labels)

    @property
    def anchor(self) -> tuple[str, str] | None:
        """A label every pod of the group has, if the selector names one."""
        for requirement in self.selector.requirements:
            if requirement.operator == "In" and len(requirement.values) == 1:
                return requirement.key, next(iter(requirement.values))
        return None


@dataclass(frozen=True, slots=True)
class GroupTerm:
    """A group, counted per domain of a topology key."""

    group: Group
    topology_key: str
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Spread:
    """A topology spread constraint."""

    term: GroupTerm
    max_skew: int
    hard: bool
    min_domains: int = 1


@dataclass(frozen=True, slots=True)
class Needs:
    """Everything the filters and scores look at."""

    namespace: str
    labels: Mapping[str, str]
    requests: Mapping[str, int]
    """cpu in thousandths, the rest in units; `pods` is always 1."""
    node_name: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_terms: tuple[NodeTerm, ...] | None = None
    preferred_nodes: tuple[NodeTerm, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    host_ports: frozenset[tuple[str, str, int]] = frozenset()
    affinity: tuple[GroupTerm, ...] = ()
    anti_affinity: tuple[GroupTerm, ...] = ()
    preferred_affinity: tuple[GroupTerm, ...] = ()
    spreads: tuple[Spread, ...] = ()
    priority: int = 0


def pod_requests(spec: Mapping[str, Any]) -> dict[str, int]:
    """Sum over containers, at least the largest init container, sidecars counted on, plus overhead."""
    total: dict[str, int] = {}
    for container in spec.get("containers") or []:
        _add(total, _container_requests(container))
    peak: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    for container in spec.get("initContainers") or []:
        wants = _container_requests(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, wants)
            _add(total, wants)
            wants = dict(sidecars)
        else:
            _add(wants, sidecars)
        for name, amount in wants.items():
            peak[name] = max(peak.get(name, 0), amount)
    for name, amount in peak.items():
        total[name] = max(total.get(name, 0), amount)
    _add(total, _amounts(spec.get("overhead") or {}))
    total[PODS] = 1
    return total


def _amounts(resources: Mapping[str, Any]) -> dict[str, int]:
    return {name: milli(value) if name == CPU else whole(value) for name, value in resources.items()}


def _container_requests(container: Mapping[str, Any]) -> dict[str, int]:
    resources = container.get("resources") or {}
    return _amounts({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _requirements(items: list[dict[str, Any]] | None) -> tuple[Requirement, ...]:
    return tuple(
        Requirement(item["key"], item["operator"], frozenset(item.get("values") or ())) for item in items or ()
    )


def _node_term(term: Mapping[str, Any], weight: int = 0) -> NodeTerm:
    return NodeTerm(_requirements(term.get("matchExpressions")), _requirements(term.get("matchFields")), weight)


def _group_term(term: Mapping[str, Any], namespace: str, weight: int = 0) -> GroupTerm:
    names = term.get("namespaces") or []
    selected = term.get("namespaceSelector")
    namespaces = None if selected == {} else frozenset(names or [namespace])
    selector = from_label_selector(term.get("labelSelector")) or LabelSelector((Requirement("", "Exists"),))
    return GroupTerm(Group(namespaces, selector), term["topologyKey"], weight)


def _spread(item: Mapping[str, Any], namespace: str, labels: Mapping[str, str]) -> Spread:
    selector = from_label_selector(item.get("labelSelector") or {}) or LabelSelector()
    extra = tuple(
        Requirement(key, "In", frozenset({labels[key]})) for key in item.get("matchLabelKeys") or [] if key in labels
    )
    group = Group(frozenset({namespace}), LabelSelector(selector.requirements + extra))
    term = GroupTerm(group, item["topologyKey"])
    hard = item.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"
    return Spread(term, int(item["maxSkew"]), hard, int(item.get("minDomains") or 1))


def _host_ports(spec: Mapping[str, Any]) -> frozenset[tuple[str, str, int]]:
    found = set()
    for container in spec.get("containers") or []:
        for port in container.get("ports") or []:
            number = port.get("hostPort") or 0
            if number:
                address = port.get("hostIP") or "0.0.0.0"
                found.add((address, port.get("protocol") or "TCP", number))
    return frozenset(found)


def compile_needs(pod: Obj) -> Needs:
    """From a pod as the API server keeps it."""
    spec = pod["spec"]
    namespace, labels = key_of(pod).namespace, labels_of(pod)
    affinity = spec.get("affinity") or {}
    node = affinity.get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    with_pods, against = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
    hard, soft = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
    preferred = [
        _group_term(item["podAffinityTerm"], namespace, sign * int(item["weight"]))
        for sign, side in ((1, with_pods), (-1, against))
        for item in side.get(soft) or []
    ]
    return Needs(
        namespace=namespace,
        labels=labels,
        requests=pod_requests(spec),
        node_name=_pinned(required),
        node_selector=spec.get("nodeSelector") or {},
        node_terms=None if required is None else tuple(_node_term(t) for t in required["nodeSelectorTerms"]),
        preferred_nodes=tuple(_node_term(item["preference"], int(item["weight"])) for item in node.get(soft) or []),
        tolerations=tuple(
            Toleration(t.get("key") or "", t.get("operator") or "Equal", t.get("value") or "", t.get("effect") or "")
            for t in spec.get("tolerations") or []
        ),
        host_ports=_host_ports(spec),
        affinity=tuple(_group_term(term, namespace) for term in with_pods.get(hard) or []),
        anti_affinity=tuple(_group_term(term, namespace) for term in against.get(hard) or []),
        preferred_affinity=tuple(preferred),
        spreads=tuple(_spread(item, namespace, labels) for item in spec.get("topologySpreadConstraints") or [])
        or _default_spread(pod),
        priority=int(spec.get("priority") or 0),
    )


def _pinned(required: Mapping[str, Any] | None) -> str:
    """The one node a DaemonSet's pod names by `metadata.name`, else empty."""
    terms = (required or {}).get("nodeSelectorTerms") or []
    if len(terms) != 1 or terms[0].get("matchExpressions"):
        return ""
    fields = terms[0].get("matchFields") or []
    if len(fields) == 1 and fields[0]["key"] == "metadata.name" and fields[0]["operator"] == "In":
        values = fields[0].get("values") or []
        return str(values[0]) if len(values) == 1 else ""
    return ""


def _default_spread(pod: Obj) -> tuple[Spread, ...]:
    """Upstream's default constraints: soft over hosts (skew 3) and zones (skew 5), among pods of one owner."""
    owner = next((ref for ref in pod["metadata"].get("ownerReferences") or [] if ref.get("controller")), None)
    labels = labels_of(pod)
    if owner is None or not labels:
        return ()
    selector = LabelSelector(tuple(Requirement(key, "In", frozenset({value})) for key, value in labels.items()))
    group = Group(frozenset({key_of(pod).namespace}), selector)
    return Spread(GroupTerm(group, HOSTNAME), 3, False), Spread(GroupTerm(group, ZONE), 5, False)
