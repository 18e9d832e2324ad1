"""What only remote clients see: negotiation, discovery, field validation, warnings, Status answers."""

from __future__ import annotations

from typing import Any

import pytest

from dure.api import protobuf
from dure.wire.http import Request
from tests.support.cluster import api_server
from tests.support.wire import Remote, certificate, decoded

MAPS = "/api/v1/namespaces/default/configmaps"
BODY = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1"}%s}'
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def test_an_unknown_path_is_not_found_in_upstreams_words() -> None:
    async with api_server() as (server, _):
        remote = Remote(server.handle)
        for path in ("/nope", "/apis/x.io/v1/foos", "/api/v1/nope", "/api/v1/namespaces/default/nope"):
            answer = await remote.value("GET", path)
            assert (answer["code"], answer["message"]) == (404, "the server could not find the requested resource")


async def test_a_method_that_is_not_offered_is_refused() -> None:
    async with api_server() as (server, _):
        answer = await Remote(server.handle).value("PUT", "/apis/authentication.k8s.io/v1/tokenreviews/x", {})
        assert (answer["code"], answer["reason"]) == (405, "MethodNotAllowed")
        assert answer["message"] == "the server does not allow this method on the requested resource"


async def test_every_answer_has_an_audit_id() -> None:
    async with api_server() as (server, _):
        answer = await Remote(server.handle).ask("GET", "/version", audit_id="mine")
        assert answer.headers["Audit-Id"] == "mine"
        assert len((await Remote(server.handle).ask("GET", "/version")).headers["Audit-Id"]) == 36


async def test_what_nobody_can_make_is_not_acceptable() -> None:
    async with api_server() as (server, _):
        answer = await Remote(server.handle).value("GET", MAPS, accept="text/html")
        assert answer["code"] == 406


async def test_yaml_comes_and_goes() -> None:
    async with api_server() as (server, _):
        body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {when: '2026-01-01', on: 'yes'}\n"
        remote = Remote(server.handle)
        made = await remote.ask("POST", MAPS, body, content_type="application/yaml", accept="application/yaml")
        assert made.status == 201
        assert b"when: '2026-01-01'" in bytes(made.body)


async def test_yaml_that_unfolds_without_end_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    async with api_server() as (server, _):
        body = "\n".join(lines).encode()
        answer = await Remote(server.handle).value("POST", MAPS, body, content_type="application/yaml")
        assert answer["code"] == 400
        assert "excessive aliasing" in answer["message"]


async def test_protobuf_comes_and_goes() -> None:
    async with api_server() as (server, _):
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}
        media = protobuf.CONTENT_TYPE
        made = await Remote(server.handle).ask("POST", MAPS, protobuf.encode(obj), content_type=media, accept=media)
        assert (made.status, made.headers["Content-Type"]) == (201, media)
        assert protobuf.decode(bytes(made.body))["data"] == {"k": "v"}
        listed = await Remote(server.handle).ask("GET", MAPS, accept=media)
        assert protobuf.decode(bytes(listed.body))["items"][0]["data"] == {"k": "v"}


async def test_an_unknown_media_type_is_unsupported() -> None:
    async with api_server() as (server, _):
        answer = await Remote(server.handle).value("POST", MAPS, b"x", content_type="text/csv")
        assert (answer["code"], answer["reason"]) == (415, "UnsupportedMediaType")


@pytest.mark.parametrize("subresource", ["", "/scale", "/status"])
async def test_a_patch_of_an_unknown_media_type_is_unsupported(subresource: str) -> None:
    """An apply by CBOR to `scale` was read as JSON and called a bad request; clients take 415 as word to fall back."""
    path = f"/apis/apps/v1/namespaces/default/deployments/web{subresource}"
    async with api_server() as (server, _):
        answer = await Remote(server.handle).value("PATCH", path, b"\xd9", content_type="application/apply-patch+cbor")
        assert (answer["code"], answer["reason"]) == (415, "UnsupportedMediaType")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"nonsense", b"\xff\xfe", b'"text"', b'{"a":' * 5000])
async def test_a_body_that_is_no_object_is_a_bad_request(body: bytes) -> None:
    async with api_server() as (server, _):
        answer = await Remote(server.handle).value("POST", MAPS, body)
        assert (answer["code"], answer["reason"]) == (400, "BadRequest")


async def test_strict_validation_names_unknown_and_repeated_fields() -> None:
    async with api_server() as (server, _):
        body = BODY.replace(b'"x":"1"', b'"x":"1","x":"2"') % b',"dta":{}'
        answer = await Remote(server.handle).value("POST", f"{MAPS}?fieldValidation=Strict", body)
        assert answer["code"] == 400
        assert answer["message"] == (
            'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
            'duplicate field "data.x", unknown field "dta"'
        )


async def test_by_default_unknown_fields_are_warned_of_and_dropped() -> None:
    async with api_server() as (server, _):
        made = await Remote(server.handle).ask("POST", MAPS, BODY % b',"dta":{}')
        assert made.headers["Warning"] == '299 - "unknown field \\"dta\\""'
        assert "dta" not in decoded(made)


async def test_ignored_unknown_fields_are_silent() -> None:
    async with api_server() as (server, _):
        made = await Remote(server.handle).ask("POST", f"{MAPS}?fieldValidation=Ignore", BODY % b',"dta":{}')
        assert "Warning" not in made.headers


async def test_a_body_of_another_kind_is_refused() -> None:
    async with api_server() as (server, _):
        remote = Remote(server.handle)
        other = {"apiVersion": "apps/v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
        answer = await remote.value("POST", MAPS, other)
        assert answer["message"] == (
            "the API version in the data (apps/v1) does not match the expected API version (v1)"
        )
        elsewhere = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "other"}}
        answer = await remote.value("POST", MAPS, elsewhere)
        assert answer["message"] == (
            "the namespace of the provided object does not match the namespace sent on the request"
        )


async def test_deleting_answers_with_a_status_that_names_the_object() -> None:
    async with api_server() as (server, _):
        remote = Remote(server.handle)
        made = await remote.value("POST", MAPS, BODY % b"")
        answer = await remote.value("DELETE", f"{MAPS}/a", {"kind": "DeleteOptions", "apiVersion": "v1"})
        assert answer == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]},
        }


async def test_an_apply_patch_creates_and_then_changes() -> None:
    async with api_server() as (server, _):
        remote = Remote(server.handle)
        path = f"{MAPS}/a?fieldManager=me"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1", "y": "2"}}
        media = "application/apply-patch+yaml"
        made = await remote.ask("PATCH", path, body, content_type=media)
        assert made.status == 201
        changed = await remote.value("PATCH", path, {**body, "data": {"x": "3"}}, content_type=media)
        assert changed["data"] == {"x": "3"}
        assert [entry["manager"] for entry in changed["metadata"]["managedFields"]] == ["me"]
        theirs, yours = {**body, "data": {"x": "4"}}, f"{MAPS}/a?fieldManager=you"
        other = await remote.value("PATCH", yours, theirs, content_type=media)
        assert (other["code"], other["details"]["causes"][0]["reason"]) == (409, "FieldManagerConflict")
        forced = await remote.value("PATCH", f"{yours}&force=true", theirs, content_type=media)
        assert forced["data"]["x"] == "4"


async def test_an_apply_patch_insists_on_a_manager() -> None:
    async with api_server() as (server, _):
        answer = await Remote(server.handle).value(
            "PATCH", f"{MAPS}/a", {}, content_type="application/apply-patch+yaml"
        )
        assert answer["message"] == (
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
        )


async def test_discovery_lists_groups_and_resources() -> None:
    async with api_server() as (server, _):
        remote = Remote(server.handle)
        assert (await remote.value("GET", "/api"))["versions"] == ["v1"]
        groups = [group["name"] for group in (await remote.value("GET", "/apis"))["groups"]]
        assert groups[:2] == ["apps", "events.k8s.io"]
        pods = next(item for item in (await remote.value("GET", "/api/v1"))["resources"] if item["name"] == "pods")
        assert pods["shortNames"] == ["po"]
        assert pods["categories"] == ["all"]
        assert pods["verbs"] == ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        apps = (await remote.value("GET", "/apis/apps/v1"))["resources"]
        scale = next(item for item in apps if item["name"] == "deployments/scale")
        assert (scale["group"], scale["version"], scale["kind"]) == ("autoscaling", "v1", "Scale")
        assert (await remote.ask("GET", "/apis/nope")).status == 404


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
async def test_aggregated_discovery_repeats_its_media_type_and_is_cacheable(version: str) -> None:
    async with api_server() as (server, _):
        remote = Remote(server.handle)
        accept = f"{DISCOVERY.replace('v=v2;', f'v={version};')},application/json"
        answer = await remote.ask("GET", "/apis", accept=accept)
        assert answer.headers["Content-Type"] == accept.split(",")[0].replace("g=", "g=")
        document = decoded(answer)
        assert (document["kind"], document["apiVersion"]) == (
            "APIGroupDiscoveryList",
            f"apidiscovery.k8s.io/{version}",
        )
        again = await remote.ask("GET", "/apis", accept=accept, if_none_match=answer.headers["ETag"])
        assert again.status == 304


async def test_openapi_documents_are_kept_under_their_hash() -> None:
    async with api_server() as (server, _):
        remote = Remote(server.handle)
        index = await remote.value("GET", "/openapi/v3")
        url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        answer = await remote.ask("GET", url)
        assert answer.headers["Cache-Control"] == "public, immutable"
        assert "io.k8s.api.apps.v1.Deployment" in decoded(answer)["components"]["schemas"]
        assert (await remote.ask("GET", url, if_none_match=answer.headers["ETag"])).status == 304
        stale = await remote.ask("GET", "/openapi/v3/apis/apps/v1?hash=OLD")
        assert (stale.status, stale.headers["Location"]) == (301, url)


async def test_health_tells_each_check_when_asked() -> None:
    async with api_server() as (server, _):
        remote = Remote(server.handle)
        assert bytes((await remote.ask("GET", "/livez")).body) == b"ok"
        verbose = bytes((await remote.ask("GET", "/readyz?verbose")).body).decode()
        assert verbose.splitlines() == ["[+]ping ok", "[+]poststarthook/bootstrap ok", "readyz check passed"]
        assert (await remote.value("GET", "/version"))["major"] == "1"
        assert b"apiserver_request_total" in bytes((await remote.ask("GET", "/metrics")).body)


async def test_a_bug_is_answered_without_its_text() -> None:
    async with api_server() as (server, _):

        class Broken:
            def __len__(self) -> int:
                raise RuntimeError("secret")

        request = Request("POST", MAPS, body=Broken(), peer_certificate=certificate("a", "system:masters"))  # type: ignore[arg-type]
        answer = await server.handle(request)
        assert answer.status in (400, 500)
        assert "secret" not in str(decoded(answer))


def service(name: str, **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 80}], **spec}}


async def test_a_service_gets_an_address_of_its_own_and_gives_it_back() -> None:
    async with api_server() as (_, client):
        made = await client.create(service("a"))
        address = made["spec"]["clusterIP"]
        assert made["spec"]["clusterIPs"] == [address]
        assert address.startswith("10.96.")
        taken = service("b", clusterIP=address)
        with pytest.raises(Exception, match="provided IP is already allocated"):
            await client.create(taken)
        await client.delete("services", "a", "default")
        assert (await client.create(taken))["spec"]["clusterIP"] == address


async def test_the_first_address_belongs_to_the_api() -> None:
    async with api_server() as (_, client):
        assert (await client.get("services", "kubernetes", "default"))["spec"]["clusterIP"] == "10.96.0.1"
        assert (await client.get("services", "kube-dns", "kube-system"))["spec"]["clusterIP"] == "10.96.0.10"
        ends = await client.get("endpointslices.discovery.k8s.io", "kubernetes", "default")
        assert ends["endpoints"][0]["addresses"] == ["10.243.0.1"]


async def test_node_ports_are_given_kept_and_taken_back() -> None:
    async with api_server() as (_, client):
        made = await client.create(service("a", type="NodePort"))
        port = made["spec"]["ports"][0]["nodePort"]
        assert 30000 <= port <= 32767
        with pytest.raises(Exception, match="provided port is already allocated"):
            await client.create(service("b", type="NodePort", ports=[{"port": 80, "nodePort": port}]))
        with pytest.raises(Exception, match="The range of valid ports is 30000-32767"):
            await client.create(service("b", type="NodePort", ports=[{"port": 80, "nodePort": 80}]))
        kept = await client.patch("services", "a", "default", {"metadata": {"labels": {"x": "y"}}})
        assert kept["spec"]["ports"][0]["nodePort"] == port
        plain = await client.patch("services", "a", "default", {"spec": {"type": "ClusterIP"}})
        assert "nodePort" not in plain["spec"]["ports"][0]
        await client.create(service("b", type="NodePort", ports=[{"port": 80, "nodePort": port}]))


async def test_a_failed_create_gives_its_address_back() -> None:
    async with api_server() as (_, client):
        await client.create(service("a"))
        with pytest.raises(Exception, match="already exists"):
            await client.create(service("a", clusterIP="10.96.7.7"))
        assert (await client.create(service("b", clusterIP="10.96.7.7")))["spec"]["clusterIP"] == "10.96.7.7"


async def test_a_headless_service_has_no_address() -> None:
    async with api_server() as (_, client):
        made = await client.create(service("a", clusterIP="None"))
        assert (made["spec"]["clusterIP"], made["spec"]["clusterIPs"]) == ("None", ["None"])
