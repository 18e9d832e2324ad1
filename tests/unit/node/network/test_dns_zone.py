"""What the cluster's DNS answers, by the Kubernetes DNS specification."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Network

import pytest

from dure.api.meta import ObjectKey
from dure.node.network.dns import wire
from dure.node.network.dns.records import NO_RECORDS, plan
from dure.node.network.dns.resolver import Resolver
from dure.node.network.dns.upstream import NoAnswer, servers_in
from dure.node.network.dns.wire import AAAA, CNAME, NOERROR, NXDOMAIN, PTR, SOA, SRV, TXT, A, encode_name
from dure.node.network.dns.zone import Zone
from tests.unit.node.network.objects import endpoint, endpoint_slice, service

WEB = "web.default.svc.cluster.local"
NAMED = [{"name": "http", "port": 80}]
BEHIND = [{"name": "http", "port": 8080}]


class Outside:
    """An upstream that knows one name."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    async def ask(self, question, *, edns_limit=0, wants_dnssec=False, tcp=False):
        self.asked.append(question)
        if not question.startswith(encode_name("example.org")):
            raise NoAnswer("no")
        record = wire.Record(b"", A, 60, socket.inet_aton("198.51.100.7")).encode()
        return wire.respond(wire.parse_query(wire.ask(0, question)), 0, [record], limit=512)


class Dns:
    """A zone with its resolver, asked by text."""

    def __init__(self) -> None:
        networks = (IPv4Network("10.96.0.0/16"), IPv4Network("10.244.0.0/16"))
        self.zone = Zone("cluster.local", networks, "10.96.0.10")
        self.outside = Outside()
        self.resolver = Resolver(self.zone, self.outside)  # type: ignore[arg-type]

    def put(self, made, *slices):
        meta = made["metadata"]
        self.zone.put(ObjectKey(meta["namespace"], meta["name"]), plan(made, slices, "cluster.local"))

    async def ask(self, name, kind=A):
        """(rcode, readable answers); NODATA is NOERROR and nothing."""
        message = self.resolver.answer(wire.ask(9, encode_name(name) + struct.pack("!HH", kind, 1)), tcp=False)
        data = message if isinstance(message, bytes) else await message
        return wire.rcode_of(data), sorted(map(_readable, wire.answers_of(data)))


def _readable(record):
    if record.type == A:
        return socket.inet_ntoa(record.data)
    if record.type == SRV:
        priority, weight, port = struct.unpack_from("!HHH", record.data)
        return f"{priority} {weight} {port} {_name(record.data[6:])}"
    return _name(record.data) if record.type in (CNAME, PTR) else record.data.decode("latin-1")


def _name(data):
    return ".".join(label.decode() for label in wire.labels_of(data))


async def test_a_service_by_name_and_by_port():
    dns = Dns()
    dns.put(service(ports=NAMED), endpoint_slice(endpoint("10.244.1.2"), ports=BEHIND))
    assert await dns.ask(WEB) == (NOERROR, ["10.96.0.50"])
    assert await dns.ask(WEB.upper()) == (NOERROR, ["10.96.0.50"])
    assert await dns.ask(f"_http._tcp.{WEB}", SRV) == (NOERROR, [f"0 100 80 {WEB}"])
    assert await dns.ask("50.0.96.10.in-addr.arpa", PTR) == (NOERROR, [WEB])
    assert await dns.ask("2.1.244.10.in-addr.arpa", PTR) == (NOERROR, [f"10-244-1-2.{WEB}"])


async def test_headless_names_every_ready_endpoint():
    dns = Dns()
    two = [endpoint("10.244.1.2", hostname="web-0"), endpoint("10.244.1.3"), endpoint("10.244.1.4", ready=False)]
    dns.put(service(ip="None", ports=NAMED), endpoint_slice(*two, ports=BEHIND))
    assert await dns.ask(WEB) == (NOERROR, ["10.244.1.2", "10.244.1.3"])
    assert await dns.ask(f"web-0.{WEB}") == (NOERROR, ["10.244.1.2"])
    assert await dns.ask(f"10-244-1-3.{WEB}") == (NOERROR, ["10.244.1.3"])
    assert await dns.ask(f"10-244-1-4.{WEB}") == (NXDOMAIN, [])
    expected = [f"0 50 8080 10-244-1-3.{WEB}", f"0 50 8080 web-0.{WEB}"]
    assert await dns.ask(f"_http._tcp.{WEB}", SRV) == (NOERROR, expected)
    assert await dns.ask("2.1.244.10.in-addr.arpa", PTR) == (NOERROR, [f"web-0.{WEB}"])


async def test_unready_endpoints_are_named_when_the_service_says_so():
    dns = Dns()
    made = service(ip="None", publishNotReadyAddresses=True, ports=[])
    dns.put(made, endpoint_slice(endpoint("10.244.1.4", ready=False), ports=[]))
    assert await dns.ask(WEB) == (NOERROR, ["10.244.1.4"])


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        (WEB, AAAA, NOERROR),
        (WEB, TXT, NOERROR),
        (f"_tcp.{WEB}", SRV, NOERROR),
        ("default.svc.cluster.local", A, NOERROR),
        ("svc.cluster.local", A, NOERROR),
        ("cluster.local", A, NOERROR),
        ("other.svc.cluster.local", A, NXDOMAIN),
        ("nobody.default.svc.cluster.local", A, NXDOMAIN),
        (f"_smtp._tcp.{WEB}", SRV, NXDOMAIN),
        (f"x.{WEB}", A, NXDOMAIN),
        (f"{WEB}.default.svc.cluster.local", A, NXDOMAIN),
        ("google.com.svc.cluster.local", A, NXDOMAIN),
        ("default.pod.cluster.local", A, NOERROR),
        ("nonsense.default.pod.cluster.local", A, NXDOMAIN),
        ("50.0.96.10.in-addr.arpa", A, NOERROR),
        ("51.0.96.10.in-addr.arpa", PTR, NXDOMAIN),
    ],
)
async def test_a_name_without_data_is_not_a_name_that_is_not(name, kind, rcode):
    dns = Dns()
    dns.put(service(ports=NAMED))
    assert await dns.ask(name, kind) == (rcode, [])


async def test_pods_have_names_of_their_address():
    assert await Dns().ask("10-244-1-2.default.pod.cluster.local") == (NOERROR, ["10.244.1.2"])


async def test_the_zone_speaks_of_itself():
    dns = Dns()
    assert await dns.ask("dns-version.cluster.local", TXT) == (NOERROR, ["\x051.1.0"])
    assert await dns.ask("ns.dns.cluster.local") == (NOERROR, ["10.96.0.10"])
    assert (await dns.ask("cluster.local", SOA))[0] == NOERROR


async def test_negative_answers_carry_the_soa():
    answer = Dns().resolver.answer(wire.ask(9, encode_name("nobody.cluster.local") + b"\0\1\0\1"), tcp=False)
    assert isinstance(answer, bytes)
    assert struct.unpack_from("!HHHH", answer, 4) == (1, 0, 1, 0)
    assert encode_name("hostmaster.cluster.local") in answer


async def test_changes_and_removal_are_in_the_next_answer():
    dns = Dns()
    dns.put(service(ports=NAMED))
    dns.put(service(ip="10.96.0.51", ports=[]))
    assert await dns.ask(WEB) == (NOERROR, ["10.96.0.51"])
    assert await dns.ask(f"_http._tcp.{WEB}", SRV) == (NXDOMAIN, [])
    assert await dns.ask("50.0.96.10.in-addr.arpa", PTR) == (NXDOMAIN, [])
    dns.zone.put(ObjectKey("default", "web"), NO_RECORDS)
    assert await dns.ask(WEB) == (NXDOMAIN, [])
    assert await dns.ask("default.svc.cluster.local") == (NXDOMAIN, [])
    assert await dns.ask("svc.cluster.local") == (NOERROR, [])


async def test_an_external_name_is_followed_inside_and_outside():
    dns = Dns()
    dns.put(service())
    dns.put(service("near", type="ExternalName", externalName=WEB))
    dns.put(service("far", type="ExternalName", externalName="example.org"))
    dns.put(service("lost", type="ExternalName", externalName="nowhere.test"))
    assert await dns.ask("near.default.svc.cluster.local") == (NOERROR, ["10.96.0.50", WEB])
    assert await dns.ask("near.default.svc.cluster.local", CNAME) == (NOERROR, [WEB])
    assert await dns.ask("far.default.svc.cluster.local") == (NOERROR, ["198.51.100.7", "example.org"])
    assert await dns.ask("lost.default.svc.cluster.local") == (wire.SERVFAIL, ["nowhere.test"])


async def test_external_names_in_a_circle_come_to_an_end():
    dns = Dns()
    dns.put(service("a", type="ExternalName", externalName="b.default.svc.cluster.local"))
    dns.put(service("b", type="ExternalName", externalName="a.default.svc.cluster.local"))
    assert await dns.ask("a.default.svc.cluster.local") == (wire.SERVFAIL, [])


async def test_only_names_outside_are_forwarded():
    dns = Dns()
    assert await dns.ask("example.org") == (NOERROR, ["198.51.100.7"])
    assert await dns.ask("unknown.test") == (wire.SERVFAIL, [])
    await dns.ask("xcluster.local")
    await dns.ask("nobody.cluster.local")
    await dns.ask("1.0.0.127.in-addr.arpa", PTR)
    names = [_name(question[:-4]) for question in dns.outside.asked]
    assert names == ["example.org", "unknown.test", "xcluster.local", "1.0.0.127.in-addr.arpa"]


def test_resolv_conf_gives_three_servers_and_never_ourselves():
    text = "# x\nnameserver 10.96.0.10\nnameserver\nnameserver fe80::1%eth0\nnameserver x\n" + "".join(
        f"nameserver 192.0.2.{number}\n" for number in range(1, 5)
    )
    assert servers_in(text, {"10.96.0.10"}) == ["fe80::1%eth0", "192.0.2.1", "192.0.2.2"]
