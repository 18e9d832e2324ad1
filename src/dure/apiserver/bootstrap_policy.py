"""The roles and bindings every cluster starts with, as upstream's bootstrap policy names them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dure.core.json import Obj

RBAC = "rbac.authorization.k8s.io"
_READ = "get list watch"
_WRITE = "create delete deletecollection patch update"
_FULL = "create delete deletecollection get list patch update watch"
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"


def rule(verbs: str, groups: str, resources: str, names: str = "") -> Obj:
    """Space-separated words; a group written `core` is the core group."""
    made: Obj = {
        "verbs": verbs.split(),
        "apiGroups": ["" if group == "core" else group for group in groups.split()],
        "resources": resources.split(),
    }
    if names:
        made["resourceNames"] = names.split()
    return made


def paths(verbs: str, urls: str) -> Obj:
    return {"verbs": verbs.split(), "nonResourceURLs": urls.split()}


_SCALES = "replicationcontrollers/scale"
_CORE_WORK = (
    "configmaps endpoints events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale "
    "secrets serviceaccounts services services/proxy"
)
_APPS = (
    "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets "
    "statefulsets/scale"
)
_APPS_VIEW = (
    "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets "
    "replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status"
)
_CORE_VIEW = (
    "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers "
    f"{_SCALES} serviceaccounts services services/status bindings events limitranges namespaces/status pods/log "
    "pods/status replicationcontrollers/status resourcequotas resourcequotas/status namespaces"
)

_VIEW = [
    rule(_READ, "core", _CORE_VIEW),
    rule(_READ, "discovery.k8s.io", "endpointslices"),
    rule(_READ, "apps", _APPS_VIEW),
    rule(_READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    rule(_READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    rule(_READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    rule(_READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    rule(_READ, "events.k8s.io", "events"),
]
_EDIT = [
    rule(_READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    rule("impersonate", "core", "serviceaccounts"),
    rule(_WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy pods/ephemeralcontainers pods/resize"),
    rule("create", "core", "pods/eviction serviceaccounts/token"),
    rule(_WRITE, "core", _CORE_WORK),
    rule(_WRITE, "apps", _APPS),
    rule(_WRITE, "autoscaling", "horizontalpodautoscalers"),
    rule(_WRITE, "batch", "cronjobs jobs"),
    rule(_WRITE, "policy", "poddisruptionbudgets"),
    rule(_WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    rule(_FULL, "coordination.k8s.io", "leases"),
]
_ADMIN = [
    rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
    rule(_FULL, RBAC, "roles rolebindings"),
    rule("get list watch update delete", "core", "namespaces"),
]
_DISCOVERY_PATHS = "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"
_PUBLIC_PATHS = "/healthz /livez /readyz /version /version/"

_NODE = [
    rule("create", "authentication.k8s.io", "tokenreviews"),
    rule("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
    rule(
        _READ,
        "core",
        "services namespaces configmaps secrets persistentvolumes persistentvolumeclaims endpoints serviceaccounts",
    ),
    rule("create get list watch patch update delete", "core", "nodes"),
    rule("patch update", "core", "nodes/status"),
    rule("create patch update", "core events.k8s.io", "events"),
    rule("get list watch create delete", "core", "pods"),
    rule("patch update", "core", "pods/status"),
    rule("create", "core", "pods/eviction serviceaccounts/token"),
    rule("create delete get patch update", "coordination.k8s.io", "leases"),
    rule(_READ, "discovery.k8s.io", "endpointslices"),
    rule(_READ, "networking.k8s.io", "networkpolicies"),
    rule(_READ, "node.k8s.io", "runtimeclasses"),
    rule("create get", "certificates.k8s.io", "certificatesigningrequests"),
    rule("create delete get patch update", "storage.k8s.io", "csinodes"),
]
_PROXIER = [
    rule("list watch", "core discovery.k8s.io", "services endpoints endpointslices"),
    rule("get", "core", "nodes"),
    rule("create patch update", "core events.k8s.io", "events"),
]
_LOAD_BALANCER = [rule("get patch update", "core", "services services/status")]
"""Publishing Services on the host, which no upstream component does under this role."""
_SCHEDULER = [
    rule("create patch update", "core events.k8s.io", "events"),
    rule("create get list update watch", "coordination.k8s.io", "leases"),
    rule(_READ, "core", "nodes namespaces replicationcontrollers services persistentvolumes persistentvolumeclaims"),
    rule("delete get list watch", "core", "pods"),
    rule("create", "core", "bindings pods/binding"),
    rule("patch update", "core", "pods/status"),
    rule(_READ, "apps", "replicasets statefulsets"),
    rule(_READ, "policy", "poddisruptionbudgets"),
    rule(_READ, "storage.k8s.io", "csinodes csidrivers csistoragecapacities storageclasses"),
]


_ISSUER = "system:service-account-issuer-discovery"
_ISSUER_PATHS = "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/"
_DNS = [
    rule("list watch", "core", "endpoints services"),
    rule("list watch", "discovery.k8s.io", "endpointslices"),
]
_DELEGATOR = [
    rule("create", "authentication.k8s.io", "tokenreviews"),
    rule("create", "authorization.k8s.io", "subjectaccessreviews"),
]


def _meta(name: str, labels: dict[str, str] | None = None) -> Obj:
    return {
        "name": name,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults", **(labels or {})},
    }


def _role(name: str, rules: list[Obj], labels: dict[str, str] | None = None) -> Obj:
    return {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": _meta(name, labels), "rules": rules}


def _aggregated(name: str, words: Iterable[str], labels: dict[str, str] | None = None) -> Obj:
    selectors = [{"matchLabels": {_AGGREGATE + word: "true"}} for word in words]
    return {**_role(name, [], labels), "aggregationRule": {"clusterRoleSelectors": selectors}}


def cluster_roles() -> Iterator[Obj]:
    """ClusterRoles; the aggregated ones come without rules, which are gathered when stored."""
    yield _role("cluster-admin", [rule("*", "*", "*"), paths("*", "*")])
    yield _role("system:discovery", [paths("get", _DISCOVERY_PATHS)])
    yield _role("system:public-info-viewer", [paths("get", _PUBLIC_PATHS)])
    yield _role("system:monitoring", [paths("get", "/healthz /healthz/* /livez /livez/* /metrics /readyz /readyz/*")])
    reviews = [
        rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
        rule("create", "authentication.k8s.io", "selfsubjectreviews"),
    ]
    yield _role("system:basic-user", reviews)
    yield _aggregated("admin", ["admin"])
    yield _aggregated("edit", ["edit"], {_AGGREGATE + "admin": "true"})
    yield _aggregated("view", ["view"], {_AGGREGATE + "edit": "true"})
    yield _role("system:aggregate-to-admin", _ADMIN, {_AGGREGATE + "admin": "true"})
    yield _role("system:aggregate-to-edit", _EDIT, {_AGGREGATE + "edit": "true"})
    yield _role("system:aggregate-to-view", _VIEW, {_AGGREGATE + "view": "true"})
    yield _role("system:node", _NODE)
    yield _role("system:node-proxier", _PROXIER)
    yield _role("system:dure-load-balancer", _LOAD_BALANCER)
    yield _role("system:kube-scheduler", _SCHEDULER)
    yield _role("system:kube-controller-manager", [rule("*", "*", "*"), paths("get", "*")])
    yield _role("system:kube-dns", _DNS)
    yield _role("system:auth-delegator", _DELEGATOR)
    yield _role(_ISSUER, [paths("get", _ISSUER_PATHS)])


_BINDINGS = (
    ("cluster-admin", "cluster-admin", ("system:masters",), ()),
    ("system:discovery", "system:discovery", ("system:authenticated",), ()),
    ("system:basic-user", "system:basic-user", ("system:authenticated",), ()),
    ("system:public-info-viewer", "system:public-info-viewer", ("system:authenticated", "system:unauthenticated"), ()),
    ("system:monitoring", "system:monitoring", ("system:monitoring",), ()),
    ("system:node", "system:node", ("system:nodes",), ()),
    ("system:node-proxier", "system:node-proxier", (), ("system:kube-proxy", "system:dure-agent")),
    ("system:dure-load-balancer", "system:dure-load-balancer", (), ("system:dure-agent",)),
    ("system:kube-scheduler", "system:kube-scheduler", (), ("system:kube-scheduler",)),
    ("system:kube-controller-manager", "system:kube-controller-manager", (), ("system:kube-controller-manager",)),
    (_ISSUER, _ISSUER, ("system:serviceaccounts",), ()),
)


def cluster_role_bindings() -> Iterator[Obj]:
    for name, role, groups, users in _BINDINGS:
        subjects = [
            *({"kind": "Group", "apiGroup": RBAC, "name": group} for group in groups),
            *({"kind": "User", "apiGroup": RBAC, "name": user} for user in users),
        ]
        yield {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": _meta(name),
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": subjects,
        }


def namespaced_roles() -> Iterator[Obj]:
    """Who may read the cluster's public CA bundle."""
    name = "extension-apiserver-authentication-reader"
    yield {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": {**_meta(name), "namespace": "kube-system"},
        "rules": [rule(_READ, "core", "configmaps", "extension-apiserver-authentication")],
    }
