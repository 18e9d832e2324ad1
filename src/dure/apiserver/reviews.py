"""Questions about who one is and what one may do: the review kinds, which are answered and never stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dure.api.fields import invalid, invalid_error, required
from dure.apiserver.access import Access
from dure.apiserver.authentication import Authentication
from dure.apiserver.call import Call
from dure.apiserver.ports import MASTERS, VerifiedUser
from dure.apiserver.rbac import Action, Rule
from dure.apiserver.representation import encode_value
from dure.apiserver.rest.options import read_write_options
from dure.apiserver.rest.resources import Answer
from dure.apiserver.rest.writing import read_object
from dure.core.errors import BadRequest
from dure.core.json import Obj
from dure.wire.http import Response


def user_info(user: VerifiedUser) -> Obj:
    info: Obj = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


def _action(spec: Obj, kind: str) -> Action:
    """From resourceAttributes or nonResourceAttributes; exactly one must be there."""
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) == (path is None):
        detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise invalid_error("authorization.k8s.io", kind, "", [invalid("spec.resourceAttributes", resource, detail)])
    if path is not None:
        return Action(path.get("verb", ""), path=path.get("path", ""))
    assert resource is not None
    names = ("verb", "group", "resource", "subresource", "namespace", "name")
    return Action(*(str(resource.get(name, "")) for name in names))


class Reviews:
    """`answers` goes into the table of special resources."""

    def __init__(self, access: Access, authentication: Authentication) -> None:
        self._access, self._authentication = access, authentication

    def answers(self) -> Mapping[str, Answer]:
        return {
            "selfsubjectaccessreviews.authorization.k8s.io": self._self_access,
            "subjectaccessreviews.authorization.k8s.io": self._access_of,
            "localsubjectaccessreviews.authorization.k8s.io": self._access_of,
            "selfsubjectrulesreviews.authorization.k8s.io": self._rules,
            "selfsubjectreviews.authentication.k8s.io": self._self,
            "tokenreviews.authentication.k8s.io": self._token,
        }

    async def _self_access(self, call: Call) -> Response:
        review = _read(call)
        return _answer(call, review, self._judge(call.user, _action(review.get("spec") or {}, call.kind.kind)))

    async def _access_of(self, call: Call) -> Response:
        review = _read(call)
        spec = review.get("spec") or {}
        if not spec.get("user") and not spec.get("groups"):
            errors = [invalid("spec.user", spec.get("user", ""), "at least one of user or group must be specified")]
            raise invalid_error(call.kind.group, call.kind.kind, "", errors)
        action = _action(spec, call.kind.kind)
        if call.kind.namespaced and action.namespace != call.namespace:
            raise BadRequest(f"spec.resourceAttributes.namespace must match namespace: {action.namespace or ''}")
        user = VerifiedUser(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""))
        return _answer(call, review, self._judge(user, action))

    def _judge(self, user: VerifiedUser, action: Action) -> Obj:
        if MASTERS in user.groups:
            return {"allowed": True}
        reason = self._access.policy.reason(user, action)
        return {"allowed": True, "reason": reason} if reason else {"allowed": False}

    async def _rules(self, call: Call) -> Response:
        review = _read(call)
        namespace = (review.get("spec") or {}).get("namespace", "")
        if not namespace:
            errors = [required("spec.namespace", "namespace is required")]
            raise invalid_error(call.kind.group, call.kind.kind, "", errors)
        everything = frozenset({"*"})
        rules = list(self._access.policy.rules_for(call.user, namespace))
        if MASTERS in call.user.groups:
            rules += [Rule(everything, everything, everything), Rule(everything, paths=("*",))]
        status: Obj = {
            "resourceRules": [_resource_rule(rule) for rule in rules if not rule.paths],
            "nonResourceRules": [
                {"verbs": sorted(rule.verbs), "nonResourceURLs": list(rule.paths)} for rule in rules if rule.paths
            ],
            "incomplete": False,
        }
        return _answer(call, review, status)

    async def _self(self, call: Call) -> Response:
        return _answer(call, _read(call), {"userInfo": user_info(call.user)})

    async def _token(self, call: Call) -> Response:
        review = _read(call)
        spec = review.get("spec") or {}
        audiences = tuple(spec.get("audiences") or ())
        user = await self._authentication.user_of_token(spec.get("token", ""), audiences)
        if user is None:
            status: Obj = {"user": {}, "error": "invalid bearer token"}
        else:
            status = {"authenticated": True, "user": user_info(user)}
            if audiences:
                status["audiences"] = list(audiences)
        return _answer(call, review, status)


def _read(call: Call) -> Obj:
    return read_object(call, read_write_options(call.request, "CreateOptions"))


def _answer(call: Call, review: Obj, status: Obj) -> Response:
    meta: dict[str, Any] = {"creationTimestamp": None, **review["metadata"]}
    made = {"kind": review["kind"], "apiVersion": review["apiVersion"], "metadata": meta}
    if "spec" in review:
        made["spec"] = review["spec"]
    response = encode_value({**made, "status": status}, call.media)
    response.status = 201
    return response


def _resource_rule(rule: Rule) -> Obj:
    made: Obj = {
        "verbs": sorted(rule.verbs),
        "apiGroups": sorted(rule.groups),
        "resources": sorted(rule.resources),
    }
    if rule.names:
        made["resourceNames"] = sorted(rule.names)
    return made
