"""Questions that are answered and not stored: token and access reviews; and Binding, which becomes part of a pod."""

from __future__ import annotations

from dure.api.fields import invalid, not_supported, required
from dure.api.kind import FieldError
from dure.api.kinds.strategy import StandardStrategy
from dure.core.json import Obj

_ATTRIBUTES = ("resourceAttributes", "nonResourceAttributes")


class ReviewStrategy(StandardStrategy):
    """Without a name; the answer is in `status`, which the client may not bring."""

    has_status = True

    def validate(self, obj: Obj) -> list[FieldError]:
        return self.check(obj)


class TokenReviewStrategy(ReviewStrategy):
    def check(self, obj: Obj) -> list[FieldError]:
        return [] if (obj.get("spec") or {}).get("token") else [required("spec.token")]


class AccessReviewStrategy(ReviewStrategy):
    """SelfSubjectAccessReview: exactly one kind of attributes."""

    def check(self, obj: Obj) -> list[FieldError]:
        spec = obj.get("spec") or {}
        given = [name for name in _ATTRIBUTES if spec.get(name) is not None]
        if len(given) == 2:
            detail = "cannot be specified in combination with resourceAttributes"
            return [invalid("spec.nonResourceAttributes", spec["nonResourceAttributes"], detail)]
        if not given:
            detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            return [invalid("spec.resourceAttributes", None, detail)]
        return self.check_subject(spec)

    def check_subject(self, spec: Obj) -> list[FieldError]:
        return []


class SubjectAccessReviewStrategy(AccessReviewStrategy):
    """About somebody else, who must be named."""

    def check_subject(self, spec: Obj) -> list[FieldError]:
        if spec.get("user") or spec.get("groups"):
            return []
        return [invalid("spec.user", "", "at least one of user or group must be specified")]


class LocalSubjectAccessReviewStrategy(SubjectAccessReviewStrategy):
    """About one namespace, its own."""

    def check_subject(self, spec: Obj) -> list[FieldError]:
        if spec.get("nonResourceAttributes") is not None:
            detail = "disallowed on this kind of request"
            return [invalid("spec.nonResourceAttributes", spec["nonResourceAttributes"], detail)]
        return super().check_subject(spec)


class BindingStrategy(ReviewStrategy):
    def check(self, obj: Obj) -> list[FieldError]:
        target = obj.get("target") or {}
        if target.get("kind") not in (None, "", "Node"):
            return [not_supported("target.kind", target["kind"], ["", "Node"])]
        return [] if target.get("name") else [required("target.name")]
