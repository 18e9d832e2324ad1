"""Who may do what: certificates, tokens, RBAC, reviews, impersonation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dure.apiserver.parts import Setup
from dure.apiserver.ports import VerifiedUser
from dure.apiserver.rbac import Action, Policy, Rule, read_rules
from dure.core.clock import LoopClock
from dure.core.errors import Forbidden
from dure.core.json import thaw
from dure.identity.tokens import TokenSigner
from dure.wire.http import Request
from tests.support.cluster import api_server, client_of
from tests.support.wire import Remote, decoded

RBAC = "rbac.authorization.k8s.io"
ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot", "namespace": "default"}}


def role(name: str, *rules: dict[str, Any], namespace: str = "default") -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": meta, "rules": list(rules)}


def binding(name: str, role_name: str, *subjects: dict[str, str], kind: str = "Role") -> dict[str, Any]:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": "default"},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role_name},
        "subjects": list(subjects),
    }


PODS = {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}
ALICE = VerifiedUser("alice", ("devs",))


async def test_nobody_may_do_anything_by_default() -> None:
    async with api_server() as (server, _):
        with pytest.raises(Forbidden) as caught:
            await client_of(server, ALICE).list("pods", "default")
        assert caught.value.message == (
            'pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace "default"'
        )
        assert caught.value.details == {"kind": "pods"}
        with pytest.raises(Forbidden) as caught:
            await client_of(server, ALICE).get("deployments.apps", "web", "default", subresource="scale")
        assert caught.value.message == (
            'deployments.apps "web" is forbidden: User "alice" cannot get resource "deployments/scale" '
            'in API group "apps" in the namespace "default"'
        )
        with pytest.raises(Forbidden) as caught:
            await client_of(server, ALICE).list("nodes")
        assert caught.value.message.endswith("at the cluster scope")


async def test_a_binding_works_at_once_and_in_its_namespace_only() -> None:
    async with api_server() as (server, client):
        alice = client_of(server, ALICE)
        await client.create(role("reader", PODS))
        await client.create(binding("readers", "reader", {"kind": "Group", "name": "devs"}))
        await asyncio.sleep(0)
        assert (await alice.list("pods", "default")).items == []
        with pytest.raises(Forbidden):
            await alice.list("pods", "kube-system")
        await client.delete(f"rolebindings.{RBAC}", "readers", "default")
        await asyncio.sleep(0)
        with pytest.raises(Forbidden):
            await alice.list("pods", "default")


async def test_a_rule_for_one_name_allows_a_list_narrowed_to_it() -> None:
    async with api_server() as (server, client):
        await client.create(role("one", {**PODS, "resourceNames": ["web"]}))
        await client.create(binding("one", "one", {"kind": "User", "name": "alice"}))
        await asyncio.sleep(0)
        assert (await client_of(server, ALICE).list("pods", "default", fields="metadata.name=web")).items == []
        with pytest.raises(Forbidden):
            await client_of(server, ALICE).list("pods", "default")


@pytest.mark.parametrize(
    ("rule", "action", "allowed"),
    [
        (PODS, Action("get", "", "pods"), True),
        (PODS, Action("get", "", "pods", "log"), True),
        (PODS, Action("get", "", "pods", "exec"), False),
        (PODS, Action("get", "apps", "pods"), False),
        ({**PODS, "resources": ["*"]}, Action("get", "", "pods", "exec"), True),
        ({**PODS, "resources": ["*/log"]}, Action("get", "", "pods", "log"), True),
        ({**PODS, "resources": ["*/log"]}, Action("get", "", "pods"), False),
        ({**PODS, "resourceNames": ["a"]}, Action("get", "", "pods", name="b"), False),
        ({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, Action("get", path="/api/v1"), True),
        ({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, Action("get", path="/apis"), False),
    ],
)
def test_rules(rule: dict[str, Any], action: Action, allowed: bool) -> None:
    assert read_rules([rule])[0].allows(action) is allowed


def test_what_a_user_lacks_is_told_right_by_right() -> None:
    policy = Policy()
    policy.put({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [PODS]})
    subjects = [{"kind": "User", "name": "alice"}]
    reference = {"kind": "ClusterRole", "name": "r"}
    policy.put({"kind": "ClusterRoleBinding", "metadata": {"name": "b"}, "subjects": subjects, "roleRef": reference})
    wanted = Rule(frozenset({"get", "delete"}), frozenset({""}), frozenset({"pods"}))
    missing = policy.covers(VerifiedUser("alice"), "", [wanted])
    assert [sorted(rule.verbs) for rule in missing] == [["delete"]]


async def test_default_roles_gather_their_parts() -> None:
    async with api_server() as (_, client):
        await asyncio.sleep(0.1)
        view = await client.get(f"clusterroles.{RBAC}", "view")
        admin = await client.get(f"clusterroles.{RBAC}", "admin")
        assert any("pods" in rule["resources"] for rule in view["rules"])
        assert all(rule in admin["rules"] for rule in view["rules"])
        extra = {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "more", "labels": {f"{RBAC}/aggregate-to-view": "true"}},
            "rules": [{"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["widgets"]}],
        }
        await client.create(extra)
        await asyncio.sleep(0.1)
        for name in ("view", "edit", "admin"):
            assert extra["rules"][0] in (await client.get(f"clusterroles.{RBAC}", name))["rules"]


async def test_without_credentials_only_health_and_version_answer() -> None:
    async with api_server() as (server, _):
        nobody = Remote(server.handle, "")
        assert (await nobody.ask("GET", "/readyz")).status == 200
        assert (await nobody.ask("GET", "/version")).status == 200
        refused = await nobody.ask("GET", "/api/v1/pods")
        assert (refused.status, decoded(refused)["message"]) == (401, "Unauthorized")
        assert (await nobody.ask("GET", "/api/v1/pods", authorization="Bearer nonsense")).status == 401


async def test_a_certificate_names_user_and_groups() -> None:
    async with api_server() as (server, _):
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        made = await Remote(server.handle, "alice", "devs", "ops").value("POST", path, review)
        assert made["status"]["userInfo"] == {"username": "alice", "groups": ["devs", "ops", "system:authenticated"]}


async def test_a_token_is_good_as_long_as_its_account_is_there(tmp_path: Path) -> None:
    setup = Setup(clock=LoopClock(), tokens=TokenSigner(tmp_path / "key"))
    async with api_server(setup=setup) as (server, client):
        await client.create(thaw(ACCOUNT))
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        made = await client.create_at("serviceaccounts", "robot", "default", "token", request)
        token = made["status"]["token"]
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}}
        review["spec"] = {"token": token}
        status = (await client.create(review))["status"]
        assert status["authenticated"] is True
        assert status["user"]["username"] == "system:serviceaccount:default:robot"
        assert status["user"]["groups"] == [
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated",
        ]
        nobody = Remote(server.handle, "")
        assert (await nobody.ask("GET", "/api", authorization=f"Bearer {token}")).status == 200
        await client.delete("serviceaccounts", "robot", "default")
        assert (await nobody.ask("GET", "/api", authorization=f"Bearer {token}")).status == 401


async def test_reviews_answer_for_oneself_and_for_others() -> None:
    async with api_server() as (server, client):
        await client.create(role("reader", PODS))
        await client.create(binding("readers", "reader", {"kind": "User", "name": "alice"}))
        await asyncio.sleep(0)
        attributes = {"verb": "get", "resource": "pods", "namespace": "default"}
        own = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "metadata": {},
            "spec": {"resourceAttributes": attributes},
        }
        alice = client_of(server, ALICE)
        assert (await alice.create(own))["status"] == {
            "allowed": True,
            "reason": 'RBAC: allowed by RoleBinding "readers/default" of Role "reader" to User "alice"',
        }
        other = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {"resourceAttributes": attributes, "user": "bob"},
        }
        assert (await client.create(other))["status"] == {"allowed": False}
        with pytest.raises(Forbidden):
            await alice.create(other)


async def test_impersonation_must_be_allowed() -> None:
    async with api_server() as (server, _):
        headers = {"impersonate_user": "alice", "impersonate_group": "devs"}
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        made = await Remote(server.handle).value("POST", path, review, **headers)
        assert made["status"]["userInfo"]["username"] == "alice"
        refused = await Remote(server.handle, "bob", "devs").ask("POST", path, review, **headers)
        assert refused.status == 403
        assert 'cannot impersonate resource "users"' in decoded(refused)["message"]


async def test_a_request_from_the_wire_cannot_name_its_user() -> None:
    async with api_server() as (server, _):
        request = Request("GET", "/api/v1/pods", user={"name": "root", "groups": ["system:masters"]})
        assert (await server.handle(request)).status == 401
