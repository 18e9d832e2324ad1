"""What the server serves: /api, /apis and below, in the old documents and the aggregated one (v2 and v2beta1).

Documents are made anew only when the registry of kinds has changed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from dure.api.kind import Kind, Kinds, Subresource
from dure.apiserver.negotiation import JSON, parse_accept
from dure.apiserver.requestinfo import RequestInfo
from dure.core.errors import MethodNotAllowed
from dure.core.json import Obj, dumps
from dure.wire.http import Request, Response

_AGGREGATED = "APIGroupDiscoveryList"
_GROUP_ORDER = (
    "", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling", "batch",
    "certificates.k8s.io", "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "storage.k8s.io",
    "admissionregistration.k8s.io", "apiextensions.k8s.io", "scheduling.k8s.io", "coordination.k8s.io", "node.k8s.io",
    "discovery.k8s.io", "resource.k8s.io",
)  # fmt: skip
"""Upstream's order: a short name that several groups use means the first group."""

_VERB_ORDER = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


def _versions_first(version: str) -> tuple[int, int, int]:
    """Sort key: stable before beta before alpha, newer before older."""
    for stage, word in ((1, "beta"), (2, "alpha")):
        if word in version:
            major, _, minor = version[1:].partition(word)
            return stage, -_int(major), -_int(minor)
    return 0, -_int(version[1:]), 0


def _int(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _verbs(verbs: Iterable[str]) -> list[str]:
    return sorted(verbs, key=lambda verb: (_VERB_ORDER.index(verb) if verb in _VERB_ORDER else 99, verb))


def storage_hash(kind: Kind) -> str:
    digest = hashlib.sha256(f"{kind.group}/{kind.version}/{kind.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


class Catalogue:
    """The served kinds, by group and version, in upstream's order."""

    def __init__(self, kinds: Kinds) -> None:
        self._groups: dict[str, dict[str, list[Kind]]] = {}
        for kind in kinds:
            self._groups.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)

    def groups(self) -> list[str]:
        order = {name: index for index, name in enumerate(_GROUP_ORDER)}
        return sorted(self._groups, key=lambda name: (order.get(name, 99), name))

    def versions(self, group: str) -> list[str]:
        return sorted(self._groups.get(group, ()), key=_versions_first)

    def kinds(self, group: str, version: str) -> list[Kind]:
        return sorted(self._groups.get(group, {}).get(version, ()), key=lambda kind: kind.plural)


def _resource(kind: Kind) -> Obj:
    entry: Obj = {
        "name": kind.plural,
        "singularName": kind.singular or kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": _verbs(kind.verbs),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    if "list" in kind.verbs:
        entry["storageVersionHash"] = storage_hash(kind)
    return entry


def _subresource(kind: Kind, sub: Subresource) -> Obj:
    entry: Obj = {
        "name": f"{kind.plural}/{sub.name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": sub.kind.kind,
        "verbs": _verbs(sub.verbs),
    }
    if (sub.kind.group, sub.kind.version) != (kind.group, kind.version):
        entry["group"], entry["version"] = sub.kind.group, sub.kind.version
    return entry


def resource_list(catalogue: Catalogue, group: str, version: str) -> Obj:
    """`APIResourceList` of one group and version."""
    resources: list[Obj] = []
    for kind in catalogue.kinds(group, version):
        resources.append(_resource(kind))
        resources += [_subresource(kind, sub) for sub in sorted(kind.subresources, key=lambda sub: sub.name)]
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def _group(catalogue: Catalogue, group: str) -> Obj:
    versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in catalogue.versions(group)]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _kind_reference(group: str, version: str, kind: str) -> Obj:
    return {"group": group, "version": version, "kind": kind}


def _aggregated_resource(kind: Kind) -> Obj:
    entry: Obj = {
        "resource": kind.plural,
        "responseKind": _kind_reference(kind.group, kind.version, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular or kind.kind.lower(),
        "verbs": _verbs(kind.verbs),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    if kind.subresources:
        entry["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": _kind_reference(sub.kind.group, sub.kind.version, sub.kind.kind),
                "verbs": _verbs(sub.verbs),
            }
            for sub in sorted(kind.subresources, key=lambda sub: sub.name)
        ]
    return entry


def aggregated(catalogue: Catalogue, groups: Iterable[str], version: str) -> Obj:
    """`APIGroupDiscoveryList` in v2 or v2beta1."""
    items = []
    for group in groups:
        versions = [
            {
                "version": name,
                "resources": [_aggregated_resource(kind) for kind in catalogue.kinds(group, name)],
                "freshness": "Current",
            }
            for name in catalogue.versions(group)
        ]
        meta: Obj = {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None}
        items.append({"metadata": meta, "versions": versions})
    return {"kind": _AGGREGATED, "apiVersion": f"apidiscovery.k8s.io/{version}", "metadata": {}, "items": items}


class Discovery:
    """Answers discovery paths; documents are kept until the registry changes."""

    def __init__(self, kinds: Kinds, server_address: Callable[[], str]) -> None:
        self._kinds = kinds
        self._address = server_address
        self._generation = -1
        self._documents: dict[tuple[str, str], tuple[Any, bytes, str]] = {}
        self._catalogue = Catalogue(kinds)

    def answer(self, request: Request, info: RequestInfo) -> Response | None:
        parts = info.path.strip("/").split("/")
        if parts[0] not in ("api", "apis") or len(parts) > (2 if parts[0] == "api" else 3):
            return None
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        if self._generation != self._kinds.generation:
            self._generation = self._kinds.generation
            self._catalogue = Catalogue(self._kinds)
            self._documents.clear()
        form = _aggregated_form(request) if len(parts) == 1 else ""
        return self._document(request, "/".join(parts), form)

    def _document(self, request: Request, path: str, form: str) -> Response | None:
        made = self._documents.get((path, form))
        if made is None:
            value = self._build(path, form)
            if value is None:
                return None
            body = dumps(value)
            made = self._documents[path, form] = value, body, f'"{hashlib.sha512(body).hexdigest().upper()}"'
        value, body, tag = made
        type_ = f"{JSON};g=apidiscovery.k8s.io;v={form};as={_AGGREGATED}" if form else JSON
        headers = {"Content-Type": type_, "Cache-Control": "no-cache, private", "Vary": "Accept"}
        if form:
            headers |= {"ETag": tag, "Cache-Control": "public"}
            if request.headers.get("if-none-match") == tag:
                return Response(304, headers)
        return Response(200, headers, body, value=value)

    def _build(self, path: str, form: str) -> Obj | None:
        catalogue = self._catalogue
        match path.split("/"):
            case ["api"] if form:
                return aggregated(catalogue, [""], form)
            case ["apis"] if form:
                return aggregated(catalogue, [name for name in catalogue.groups() if name], form)
            case ["api"]:
                addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._address()}]
                return {
                    "kind": "APIVersions",
                    "versions": catalogue.versions(""),
                    "serverAddressByClientCIDRs": addresses,
                }
            case ["apis"]:
                groups = [_group(catalogue, name) for name in catalogue.groups() if name]
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
            case ["apis", group] if catalogue.versions(group):
                return {"kind": "APIGroup", "apiVersion": "v1", **_group(catalogue, group)}
            case ["api", version] if catalogue.kinds("", version):
                return resource_list(catalogue, "", version)
            case ["apis", group, version] if catalogue.kinds(group, version):
                return resource_list(catalogue, group, version)
        return None


def _aggregated_form(request: Request) -> str:
    """v2 or v2beta1 when the client prefers the aggregated document, else empty."""
    for clause in parse_accept(request.headers.get("accept", "")):
        if clause.media_type not in (JSON, "*/*"):
            continue
        if not clause.parameter("as"):
            return ""
        version = clause.parameter("v")
        wanted = clause.parameter("g") == "apidiscovery.k8s.io" and clause.parameter("as") == _AGGREGATED
        if wanted and version in ("v2", "v2beta1"):
            return version
    return ""
