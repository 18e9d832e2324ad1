"""Role-based access control as pure rules: what a PolicyRule allows, and which rules a set of objects gives a user.

Follows `rbac.authorization.k8s.io/v1`. Nothing is ever denied by a rule: what no rule allows is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dure.apiserver.ports import VerifiedUser
from dure.core.json import Obj

_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody wants to do; `path` alone for what is no resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def full_resource(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass(frozen=True, slots=True)
class Rule:
    """A PolicyRule; names are empty for all objects."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()

    def allows(self, action: Action) -> bool:
        if "*" not in self.verbs and action.verb not in self.verbs:
            return False
        if action.path:
            return any(_path_matches(pattern, action.path) for pattern in self.paths)
        return (
            ("*" in self.groups or action.group in self.groups)
            and self._has_resource(action)
            and (not self.names or action.name in self.names)
        )

    def _has_resource(self, action: Action) -> bool:
        resources = self.resources
        if "*" in resources or action.full_resource in resources:
            return True
        return bool(action.subresource) and f"*/{action.subresource}" in resources


def _path_matches(pattern: str, path: str) -> bool:
    if pattern in ("*", path):
        return True
    return pattern.endswith("*") and path.startswith(pattern[:-1])


def read_rules(rules: Iterable[Obj] | None) -> tuple[Rule, ...]:
    """From the `rules` of a Role or ClusterRole."""
    return tuple(
        Rule(
            frozenset(rule.get("verbs") or ()),
            frozenset(rule.get("apiGroups") or ()),
            frozenset(rule.get("resources") or ()),
            frozenset(rule.get("resourceNames") or ()),
            tuple(rule.get("nonResourceURLs") or ()),
        )
        for rule in rules or ()
    )


Subject = tuple[str, str]
"""(User|Group, name); service accounts are users."""


def subjects_of(user: VerifiedUser) -> list[Subject]:
    return [("User", user.name), *(("Group", group) for group in user.groups)]


def read_subjects(binding: Obj) -> Iterator[Subject]:
    namespace = binding["metadata"].get("namespace", "")
    for subject in binding.get("subjects") or ():
        if subject["kind"] == "ServiceAccount":
            yield "User", f"{_ACCOUNT}{subject.get('namespace') or namespace}:{subject['name']}"
        else:
            yield subject["kind"], subject["name"]


@dataclass(frozen=True, slots=True)
class Grant:
    """One binding for one subject: the role it gives and where. `namespace` is empty for everywhere."""

    namespace: str
    role_kind: str
    role: str
    binding: str

    def describe(self, subject: Subject) -> str:
        kind, name = subject
        if self.namespace:
            binding = f'RoleBinding "{self.binding}/{self.namespace}"'
        else:
            binding = f'ClusterRoleBinding "{self.binding}"'
        who = f'{kind} "{name}"'
        if kind == "User" and name.startswith(_ACCOUNT):
            namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
            who = f'ServiceAccount "{account}/{namespace}"'
        return f'RBAC: allowed by {binding} of {self.role_kind} "{self.role}" to {who}'


class Policy:
    """The RBAC objects of a cluster, indexed by subject. Change it by `put` and `remove`."""

    def __init__(self) -> None:
        self._roles: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._grants: dict[Subject, dict[str, list[Grant]]] = {}
        self._held: dict[str, list[tuple[Subject, str]]] = {}

    def put(self, obj: Obj) -> None:
        meta = obj["metadata"]
        namespace = meta.get("namespace", "")
        if obj["kind"] in ("Role", "ClusterRole"):
            self._roles[namespace, meta["name"]] = read_rules(obj.get("rules"))
        else:
            self._bind(obj, namespace)

    def remove(self, obj: Obj) -> None:
        meta = obj["metadata"]
        namespace = meta.get("namespace", "")
        if obj["kind"] in ("Role", "ClusterRole"):
            self._roles.pop((namespace, meta["name"]), None)
        else:
            self._unbind(f"{namespace}/{meta['name']}")

    def _bind(self, binding: Obj, namespace: str) -> None:
        key = f"{namespace}/{binding['metadata']['name']}"
        self._unbind(key)
        reference: Any = binding["roleRef"]
        grant = Grant(namespace, reference["kind"], reference["name"], binding["metadata"]["name"])
        held = self._held[key] = []
        for subject in read_subjects(binding):
            self._grants.setdefault(subject, {}).setdefault(key, []).append(grant)
            held.append((subject, key))

    def _unbind(self, key: str) -> None:
        for subject, held in self._held.pop(key, ()):
            grants = self._grants.get(subject)
            if grants is not None:
                grants.pop(held, None)
                if not grants:
                    del self._grants[subject]

    def rules_of(self, kind: str, namespace: str, name: str) -> tuple[Rule, ...] | None:
        """A role's rules; None when there is no such role."""
        return self._roles.get(("" if kind == "ClusterRole" else namespace, name))

    def rules_for(self, user: VerifiedUser, namespace: str) -> Iterator[Rule]:
        """Every rule that holds for the user in a namespace, or cluster-wide when it is empty."""
        for subject in subjects_of(user):
            for grants in self._grants.get(subject, {}).values():
                for grant in grants:
                    if not grant.namespace or grant.namespace == namespace:
                        yield from self.rules_of(grant.role_kind, grant.namespace, grant.role) or ()

    def allows(self, user: VerifiedUser, action: Action) -> bool:
        return any(rule.allows(action) for rule in self.rules_for(user, action.namespace))

    def reason(self, user: VerifiedUser, action: Action) -> str:
        """Which binding allows it, as upstream says; empty when none does."""
        for subject in subjects_of(user):
            for grants in self._grants.get(subject, {}).values():
                for grant in grants:
                    if grant.namespace and grant.namespace != action.namespace:
                        continue
                    rules = self.rules_of(grant.role_kind, grant.namespace, grant.role) or ()
                    if any(rule.allows(action) for rule in rules):
                        return grant.describe(subject)
        return ""

    def covers(self, user: VerifiedUser, namespace: str, wanted: Iterable[Rule]) -> list[Rule]:
        """The wanted rules, split into single rights, that the user does not hold."""
        held = list(self.rules_for(user, namespace))
        return [right for rule in wanted for right in split_rule(rule) if not any(_covers(h, right) for h in held)]


def split_rule(rule: Rule) -> Iterator[Rule]:
    """Into rules of one verb, group, resource and name each."""
    for verb in rule.verbs:
        for path in rule.paths:
            yield Rule(frozenset({verb}), paths=(path,))
        for group in rule.groups:
            for resource in rule.resources:
                for name in rule.names or ("",):
                    names = frozenset({name}) if name else frozenset[str]()
                    yield Rule(frozenset({verb}), frozenset({group}), frozenset({resource}), names)


def _covers(held: Rule, right: Rule) -> bool:
    """Whether `held` includes a single right, wildcards and all."""
    if "*" not in held.verbs and not right.verbs <= held.verbs:
        return False
    if right.paths:
        return all(any(_path_covers(pattern, path) for pattern in held.paths) for path in right.paths)
    if "*" not in held.groups and not right.groups <= held.groups:
        return False
    if held.names and not (right.names and right.names <= held.names):
        return False
    resource = next(iter(right.resources))
    _, slash, sub = resource.partition("/")
    return "*" in held.resources or resource in held.resources or (bool(slash) and f"*/{sub}" in held.resources)


def _path_covers(pattern: str, path: str) -> bool:
    if pattern in ("*", path):
        return True
    return pattern.endswith("*") and path.rstrip("*").startswith(pattern[:-1])
