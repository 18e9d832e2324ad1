"""Role, ClusterRole, RoleBinding, ClusterRoleBinding."""

from __future__ import annotations

from dure.api.fields import invalid, not_supported, required
from dure.api.kind import FieldError
from dure.api.kinds.rules import check_name
from dure.api.kinds.strategy import StandardStrategy
from dure.api.names import dns1123_subdomain, path_segment
from dure.core.json import Obj

GROUP = "rbac.authorization.k8s.io"


class RoleStrategy(StandardStrategy):
    name_rule = staticmethod(path_segment)

    def check(self, obj: Obj) -> list[FieldError]:
        return [
            error
            for index, rule in enumerate(obj.get("rules") or [])
            for error in _rule(rule, f"rules[{index}]", self.namespaced)
        ]


def _rule(rule: Obj, path: str, namespaced: bool) -> list[FieldError]:
    errors = []
    if not rule.get("verbs"):
        errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    urls = rule.get("nonResourceURLs") or []
    if urls:
        if namespaced:
            detail = "namespaced rules cannot apply to non-resource URLs"
            errors.append(invalid(f"{path}.nonResourceURLs", urls, detail))
        if any(rule.get(name) for name in ("apiGroups", "resources", "resourceNames")):
            detail = "rules cannot apply to both regular resources and non-resource URLs"
            errors.append(invalid(f"{path}.nonResourceURLs", urls, detail))
        return errors
    if not rule.get("apiGroups"):
        errors.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        errors.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
    return errors


class RoleBindingStrategy(StandardStrategy):
    name_rule = staticmethod(path_segment)

    def default(self, obj: Obj) -> None:
        reference = obj.get("roleRef")
        if isinstance(reference, dict) and not reference.get("apiGroup"):
            reference["apiGroup"] = GROUP
        for subject in obj.get("subjects") or []:
            if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
                subject["apiGroup"] = GROUP

    def check(self, obj: Obj) -> list[FieldError]:
        reference = obj.get("roleRef") or {}
        errors = []
        if reference.get("apiGroup") != GROUP:
            errors.append(not_supported("roleRef.apiGroup", reference.get("apiGroup") or "", [GROUP]))
        kinds = ("Role", "ClusterRole") if self.namespaced else ("ClusterRole",)
        if reference.get("kind") not in kinds:
            errors.append(not_supported("roleRef.kind", reference.get("kind") or "", kinds))
        errors += check_name("roleRef.name", reference.get("name"), path_segment)
        for index, subject in enumerate(obj.get("subjects") or []):
            errors += self._subject(subject, f"subjects[{index}]")
        return errors

    def _subject(self, subject: Obj, path: str) -> list[FieldError]:
        kind, name = subject.get("kind") or "", subject.get("name") or ""
        if not name:
            return [required(f"{path}.name")]
        group = subject.get("apiGroup") or ""
        if kind == "ServiceAccount":
            errors = [invalid(f"{path}.name", name, message) for message in dns1123_subdomain(name)]
            if group:
                errors.append(not_supported(f"{path}.apiGroup", group, [""]))
            if not self.namespaced and not subject.get("namespace"):
                errors.append(required(f"{path}.namespace"))
            return errors
        if kind in ("User", "Group"):
            return [] if group == GROUP else [not_supported(f"{path}.apiGroup", group, [GROUP])]
        return [not_supported(f"{path}.kind", kind, ("ServiceAccount", "User", "Group"))]

    def check_update(self, obj: Obj, old: Obj, subresource: str) -> list[FieldError]:
        if obj.get("roleRef") == old.get("roleRef"):
            return []
        return [invalid("roleRef", obj.get("roleRef"), "cannot change roleRef")]
