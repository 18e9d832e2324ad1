"""Nobody hands out rights they do not have: roles and bindings are checked against what their writer may do.

Verbs `escalate` (roles) and `bind` (bindings) are the ways round, as upstream.
"""

from __future__ import annotations

from dure.api.kind import Kinds
from dure.apiserver.access import Access
from dure.apiserver.admission import Attributes
from dure.apiserver.errors import forbidden, not_found
from dure.apiserver.ports import MASTERS
from dure.apiserver.rbac import Action, Rule, read_rules
from dure.core.json import Obj

_GROUP = "rbac.authorization.k8s.io"
_ROLES = ("roles", "clusterroles")
_BINDINGS = ("rolebindings", "clusterrolebindings")


class Escalation:
    def __init__(self, access: Access, kinds: Kinds) -> None:
        self._access, self._kinds = access, kinds

    async def admit(self, attributes: Attributes) -> None:
        kind, obj = attributes.kind, attributes.obj
        if kind.group != _GROUP or obj is None or MASTERS in attributes.user.groups:
            return
        if kind.plural in _ROLES:
            self._check_role(attributes, obj)
        elif kind.plural in _BINDINGS:
            self._check_binding(attributes, obj)

    def _check_role(self, attributes: Attributes, role: Obj) -> None:
        if attributes.old is not None and attributes.old.get("rules") == role.get("rules"):
            return
        if not self._may(attributes, "escalate", attributes.kind.plural, attributes.name):
            self._require_held(attributes, read_rules(role.get("rules")))

    def _check_binding(self, attributes: Attributes, binding: Obj) -> None:
        old, names = attributes.old, ("roleRef", "subjects")
        if old is not None and all(old.get(name) == binding.get(name) for name in names):
            return
        reference = binding["roleRef"]
        plural = "clusterroles" if reference["kind"] == "ClusterRole" else "roles"
        if self._may(attributes, "bind", plural, reference["name"]):
            return
        rules = self._access.policy.rules_of(reference["kind"], attributes.namespace, reference["name"])
        if rules is None:
            raise not_found(self._kinds.resource(f"{plural}.{_GROUP}"), reference["name"])
        self._require_held(attributes, rules)

    def _may(self, attributes: Attributes, verb: str, resource: str, name: str) -> bool:
        action = Action(verb, _GROUP, resource, "", attributes.namespace, name)
        return self._access.allows(attributes.user, action)

    def _require_held(self, attributes: Attributes, rules: tuple[Rule, ...]) -> None:
        missing = self._access.policy.covers(attributes.user, attributes.namespace, rules)
        if not missing:
            return
        user = attributes.user
        groups = " ".join(f'"{group}"' for group in user.groups)
        shown = "\n".join(dict.fromkeys(_shown(rule) for rule in missing))
        who = f'user "{user.name}" (groups=[{groups}])'
        why = f"{who} is attempting to grant RBAC permissions not currently held:\n{shown}"
        raise forbidden(attributes.kind, attributes.name, why)


def _shown(rule: Rule) -> str:
    """As upstream prints a rule: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`."""
    parts = []
    for title, values in (
        ("APIGroups", rule.groups),
        ("Resources", rule.resources),
        ("ResourceNames", rule.names),
        ("NonResourceURLs", rule.paths),
        ("Verbs", rule.verbs),
    ):
        if values:
            parts.append(f"{title}:[{' '.join(chr(34) + value + chr(34) for value in sorted(values))}]")
    return "{" + ", ".join(parts) + "}"
