"""Links, pods, Services, load balancers and DNS in the kernel: two nodes on this machine, pods without containers."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from dure.core.errors import ConfigError
from dure.node.network import namespaces
from dure.node.network.dns import wire
from dure.node.network.links import Machine
from dure.node.network.model import Addresses
from dure.node.network.pods import HostPortTaken
from dure.node.ports import HostPort
from tests.support.network import ADDRESSES, HOST, endpoint, host_state, say, until, world

REFUSED = "ConnectionRefusedError"


async def test_pods_reach_each_other_the_nodes_and_the_host(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        one, two = await w.pod("one", "dure-1"), await w.pod("two", "dure-2")
        first, second = w.nodes["dure-1"], w.nodes["dure-2"]
        await w.echo(HOST, "host", ADDRESSES.host, 8001)
        assert await w.ask(one.netns, two.ip, 8000) == f"two {one.ip}"
        assert await w.ask(two.netns, one.ip, 8000) == f"one {two.ip}"
        assert await w.ask(HOST, two.ip, 8000) == f"two {ADDRESSES.host}"
        assert await w.ask(first.host_netns, two.ip, 8000) == f"two {first.place.address}"
        assert await w.ask(second.host_netns, two.ip, 8000) == f"two {second.place.address}"
        assert await w.ask(one.netns, ADDRESSES.host, 8001) == f"host {one.ip}"
        assert one.ip.startswith("10.232.1.") and two.ip.startswith("10.232.2.")


async def test_the_agent_connects_as_the_node_and_into_the_pod(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        node = w.nodes["dure-1"]
        pod = await w.pod("one")
        await w.echo(Path(pod.netns), "inner", "127.0.0.1", 8002)
        reader, writer = await node.connect(pod.ip, 8000)
        assert await say(reader, writer) == f"one {node.place.address}"
        writer.close()
        reader, writer = await node.connect_inside("one", 8002)
        assert await say(reader, writer) == "inner 127.0.0.1"
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await node.connect(pod.ip, 8002)


async def test_addresses_are_kept_over_a_restart_and_come_back_late(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        async with w.agent():
            node = w.nodes["dure-1"]
            one, two = await node.attach("one"), await node.attach("two")
            assert await node.attach("one") == one
        async with w.agent():
            node = w.nodes["dure-1"]
            assert await node.attached() == {"one": one, "two": two}
            await node.detach("one")
            await node.detach("one")
            three = await node.attach("three")
            assert three.ip not in (one.ip, two.ip)
            assert set(await node.attached()) == {"two", "three"}
            assert not Path(one.netns).exists()


async def test_many_pods_at_once_have_different_addresses(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        node = w.nodes["dure-1"]
        pods = await asyncio.gather(*(node.attach(f"pod-{number}") for number in range(60)))
        assert len({pod.ip for pod in pods}) == 60
        await asyncio.gather(*(node.detach(f"pod-{number}") for number in range(60)))
        assert await node.attached() == {}


async def test_host_ports_from_everywhere(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        node = w.nodes["dure-1"]
        ports = [HostPort(9000, 8000), HostPort(9000, 8000, "UDP"), HostPort(9001, 8000, host_ip="127.0.0.1")]
        pod = await w.pod("one", host_ports=ports)
        other = await w.pod("two", "dure-2")
        address = node.place.address
        assert await w.ask(other.netns, address, 9000) == f"one {other.ip}"
        assert await w.ask(HOST, address, 9000) == f"one {ADDRESSES.host}"
        assert await w.ask(pod.netns, address, 9000) == f"one {address}"
        assert await w.ask(node.host_netns, "127.0.0.1", 9000) == f"one {address}"
        assert await w.ask(node.host_netns, "127.0.0.1", 9001) == f"one {address}"
        assert await w.ask(HOST, address, 9001) == REFUSED
        assert await w.ask_udp(other.netns, address, 9000) == f"one {other.ip}".encode()
        with pytest.raises(HostPortTaken):
            await node.attach("three", host_ports=[HostPort(9000, 1)])
        await node.detach("one")
        assert await w.ask(HOST, address, 9000) == REFUSED


async def test_cluster_addresses_and_node_ports_balance(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        one, two = await w.pod("one", "dure-1"), await w.pod("two", "dure-2")
        web = await w.service("web", type="NodePort")
        await w.endpoints("web", endpoint(one), endpoint(two, "dure-2"))
        ip, port = web["spec"]["clusterIP"], web["spec"]["ports"][0]["nodePort"]
        nodes = [node.host_netns for node in w.nodes.values()]
        await until(lambda: w.ask(two.netns, ip, 80), f"one {two.ip}")
        for place in (one.netns, two.netns, *nodes, HOST):
            answers = [await w.ask(place, ip, 80) for _ in range(30)]
            assert {answer.split()[0] for answer in answers} == {"one", "two"}
            for node in w.nodes.values():
                answers = [await w.ask(place, node.place.address, port) for _ in range(30)]
                assert {answer.split()[0] for answer in answers} == {"one", "two"}


async def test_a_pod_reaches_itself_through_its_service(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        one = await w.pod("one")
        web = await w.service("web")
        await w.endpoints("web", endpoint(one))
        await until(lambda: w.ask(one.netns, web["spec"]["clusterIP"], 80), f"one {w.nodes['dure-1'].place.address}")


async def test_what_has_no_endpoints_is_refused_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        one = await w.pod("one")
        web = await w.service("web", type="NodePort", externalIPs=["192.0.2.77"])
        ip, port = web["spec"]["clusterIP"], web["spec"]["ports"][0]["nodePort"]
        await asyncio.sleep(0.1)
        places = (one.netns, HOST, w.nodes["dure-1"].host_netns)
        began = asyncio.get_running_loop().time()
        for place in places:
            assert await w.ask(place, ip, 80) == REFUSED
            assert await w.ask(place, ip, 81) == REFUSED
            assert await w.ask(place, w.nodes["dure-1"].place.address, port) == REFUSED
        assert await w.ask(one.netns, "10.233.200.200", 80) == REFUSED
        assert await w.ask(one.netns, "192.0.2.77", 80) == REFUSED
        assert asyncio.get_running_loop().time() - began < 0.9
        await w.endpoints("web", endpoint(one))
        await until(lambda: w.ask(HOST, ip, 80), f"one {w.nodes['dure-1'].place.address}")
        assert (await w.ask(one.netns, "192.0.2.77", 80)).startswith("one")


async def test_affinity_keeps_a_client_until_its_time_is_over(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        one, two = await w.pod("one", "dure-1"), await w.pod("two", "dure-2")
        asker = await w.pod("asker")
        config = {"clientIP": {"timeoutSeconds": 1}}
        web = await w.service("web", sessionAffinity="ClientIP", sessionAffinityConfig=config)
        await w.endpoints("web", endpoint(one), endpoint(two, "dure-2"))
        ip = web["spec"]["clusterIP"]
        await until(lambda: _connects(w.ask(asker.netns, ip, 80)), True)
        assert len({await w.ask(asker.netns, ip, 80) for _ in range(30)}) == 1
        seen = Counter()
        for _ in range(12):
            await asyncio.sleep(1.1)
            seen[(await w.ask(asker.netns, ip, 80)).split()[0]] += 1
            if len(seen) == 2:
                break
        assert set(seen) == {"one", "two"}
        await w.endpoints("web", endpoint(one))
        await until(lambda: _all_answers(w, asker.netns, ip), {f"one {asker.ip}"})
        await w.client.patch("services", "web", "default", {"spec": {"sessionAffinity": "None"}})
        await w.endpoints("web", endpoint(one), endpoint(two, "dure-2"))
        await until(lambda: _all_answers(w, asker.netns, ip), {f"one {asker.ip}", f"two {asker.ip}"})


async def test_affinity_outlives_the_agent(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        async with w.agent():
            pods = [await w.pod(f"pod-{number}") for number in range(5)]
            asker = await w.pod("asker")
            web = await w.service("web", sessionAffinity="ClientIP")
            await w.endpoints("web", *map(endpoint, pods))
            ip = web["spec"]["clusterIP"]
            await until(lambda: _connects(w.ask(asker.netns, ip, 80)), True)
            before = await w.ask(asker.netns, ip, 80)
        async with w.agent():
            assert {await w.ask(asker.netns, ip, 80) for _ in range(20)} == {before}


async def test_local_policies_stay_on_the_node(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        one, two = await w.pod("one", "dure-1"), await w.pod("two", "dure-2")
        inner = await w.service("inner", internalTrafficPolicy="Local")
        outer = await w.service("outer", type="NodePort", externalTrafficPolicy="Local")
        for name in ("inner", "outer"):
            await w.endpoints(name, endpoint(two, "dure-2"))
        ip, port = inner["spec"]["clusterIP"], outer["spec"]["ports"][0]["nodePort"]
        first, second = (node.place.address for node in w.nodes.values())
        await until(lambda: w.ask(HOST, second, port), f"two {ADDRESSES.host}")
        assert await w.ask(HOST, first, port) == REFUSED
        assert await w.ask(one.netns, first, port) == f"two {first}"
        assert await w.ask(one.netns, ip, 80) == REFUSED
        assert await w.ask(two.netns, ip, 80) == f"two {second}"


async def test_draining_endpoints_serve_when_none_is_ready(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        one, two = await w.pod("one"), await w.pod("two")
        web = await w.service("web")
        leaving = endpoint(two, ready=False, serving=True, terminating=True)
        ip = web["spec"]["clusterIP"]
        await w.endpoints("web", endpoint(one, ready=False, serving=False), leaving)
        await until(lambda: _all_answers(w, HOST, ip), {f"two {w.nodes['dure-1'].place.address}"})
        await w.endpoints("web", endpoint(one), leaving)
        await until(lambda: _all_answers(w, HOST, ip), {f"one {w.nodes['dure-1'].place.address}"})


async def test_udp_leaves_a_removed_endpoint(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        one, two, asker = await w.pod("one"), await w.pod("two"), await w.pod("asker")
        ports = [{"port": 53, "targetPort": 8000, "protocol": "UDP"}]
        web = await w.service("web", ports=ports)
        ip = web["spec"]["clusterIP"]
        behind = [{"port": 8000, "protocol": "UDP"}]
        await w.endpoints("web", endpoint(one), ports=behind)
        await asyncio.sleep(0.1)
        assert await w.ask_udp(asker.netns, ip, 53, source=4000) == f"one {asker.ip}".encode()
        await w.endpoints("web", endpoint(two), ports=behind)
        await asyncio.sleep(0.1)
        assert await w.ask_udp(asker.netns, ip, 53, source=4000) == f"two {asker.ip}".encode()


async def test_a_load_balancer_is_published_on_the_loopback(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        one, two = await w.pod("one", "dure-1"), await w.pod("two", "dure-2")
        port = _free_port()
        ports = [{"port": port, "targetPort": 8000}]
        await w.service("web", type="LoadBalancer", ports=ports)
        await w.endpoints("web", endpoint(one), endpoint(two, "dure-2"))
        wanted = [{"ip": "127.0.0.1", "ipMode": "Proxy", "ports": [{"port": port, "protocol": "TCP"}]}]
        await until(lambda: _ingress(w, "web"), wanted)
        await until(lambda: _connects(w.ask(HOST, "127.0.0.1", port)), True)
        answers = {(await w.ask(HOST, "127.0.0.1", port)).split()[0] for _ in range(30)}
        assert answers == {"one", "two"}
        with pytest.raises(OSError), socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            squatter.bind(("0.0.0.0", port))
        await w.client.patch("services", "web", "default", {"spec": {"type": "ClusterIP"}})
        await until(lambda: w.ask(HOST, "127.0.0.1", port), REFUSED)
        await until(lambda: _ingress(w, "web"), [])


async def test_a_taken_port_is_refused_with_a_warning_until_it_is_free(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        one = await w.pod("one")
        with socket.socket() as squatter:
            squatter.bind(("127.0.0.1", 0))
            squatter.listen()
            port = squatter.getsockname()[1]
            await w.service("web", type="LoadBalancer", ports=[{"port": port, "targetPort": 8000}])
            await w.endpoints("web", endpoint(one))
            await until(
                lambda: _warnings(w),
                [f"127.0.0.1:{port}/TCP is taken by another program on the host; end it or change the Service's port"],
            )
            assert await _ingress(w, "web") == []
        await until(lambda: _connects(w.ask(HOST, "127.0.0.1", port)), True, within=6)
        await w.service("late", type="LoadBalancer", ports=[{"port": port, "targetPort": 8000}])
        taken = f"127.0.0.1:{port}/TCP is taken by Service default/web; change the port of one of them"
        await until(lambda: _has_warning(w, taken), True)
        await w.client.delete("services", "web", "default")
        await w.endpoints("late", endpoint(one))
        await until(lambda: _connects(w.ask(HOST, "127.0.0.1", port)), True)


async def test_dns_answers_in_every_pod(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        one, two = await w.pod("one", "dure-1"), await w.pod("two", "dure-2")
        web = await w.service("web")
        await w.service("peers", clusterIP="None")
        await w.endpoints("peers", {**endpoint(one), "hostname": "zero"}, endpoint(two, "dure-2"))
        for pod in (one, two):
            for tcp in (False, True):
                found = await w.dig(pod.netns, "web.default.svc.cluster.local", tcp=tcp)
                assert found == (wire.NOERROR, {web["spec"]["clusterIP"]})
            found = await w.dig(pod.netns, "peers.default.svc.cluster.local")
            assert found == (wire.NOERROR, {one.ip, two.ip})
            found = await w.dig(pod.netns, "zero.peers.default.svc.cluster.local")
            assert found == (wire.NOERROR, {one.ip})
            found = await w.dig(pod.netns, "nobody.default.svc.cluster.local")
            assert found == (wire.NXDOMAIN, set())
        assert await w.dig(w.nodes["dure-1"].host_netns, "kubernetes.default.svc.cluster.local") == (0, {"10.233.0.1"})
        await w.client.delete("services", "web", "default")
        await until(lambda: w.dig(one.netns, "web.default.svc.cluster.local"), (wire.NXDOMAIN, set()))


async def test_dig_understands_us(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        pod = await w.pod("one")
        await w.service("web", ports=[{"name": "http", "port": 80}])
        await w.service("far", type="ExternalName", externalName="web.default.svc.cluster.local")
        command = ["nsenter", f"--net={pod.netns}", "dig", f"@{ADDRESSES.dns}", "+time=1", "+tries=1"]

        async def dig(*words: str) -> str:
            made = await asyncio.create_subprocess_exec(*command, *words, stdout=subprocess.PIPE)
            return (await made.communicate())[0].decode()

        web = "web.default.svc.cluster.local"
        text = await dig("-t", "SRV", f"_http._tcp.{web}")
        assert "status: NOERROR" in text and f"0 100 80 {web}." in text and "ADDITIONAL: 2" in text
        text = await dig("far.default.svc.cluster.local")
        assert f"CNAME\t{web}." in text and "ANSWER: 2" in text
        text = await dig("-t", "AAAA", web)
        assert "status: NOERROR" in text and "ANSWER: 0" in text and "SOA" in text
        text = await dig("+tcp", "nothing.cluster.local")
        assert "status: NXDOMAIN" in text and "Warning" not in text
        text = await dig("-x", "10.233.0.1")
        assert "kubernetes.default.svc.cluster.local." in text
        text = await dig("-t", "TXT", "dns-version.cluster.local")
        assert '"1.1.0"' in text
        text = await dig("example.org")
        assert "status: SERVFAIL" in text


async def test_names_outside_are_asked_of_the_hosts_resolver(tmp_path: Path) -> None:
    """Also when resolv.conf names another one while we run."""
    async with world(tmp_path) as w, w.agent():
        pod = await w.pod("one")
        await w.service("far", type="ExternalName", externalName="example.org")
        assert await w.dig(pod.netns, "example.org") == (wire.SERVFAIL, set())
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(_FixedAnswer, local_addr=("127.0.0.77", 53))
        try:
            (tmp_path / "resolv.conf").write_text("search x\nnameserver 127.0.0.77\n")
            assert await w.dig(pod.netns, "example.org") == (wire.NOERROR, {"198.51.100.7"})
            rcode, found = await w.dig(pod.netns, "far.default.svc.cluster.local")
            assert (rcode, found) == (wire.NOERROR, {wire.encode_name("example.org").hex(), "198.51.100.7"})
        finally:
            transport.close()


async def test_an_agents_restart_breaks_nothing(tmp_path: Path) -> None:
    """Open connections go on, and new ones work also while no agent runs."""
    async with world(tmp_path) as w:
        async with w.agent():
            one, two = await w.pod("one", "dure-1"), await w.pod("two", "dure-2")
            port = _free_port()
            web = await w.service("web", type="LoadBalancer", ports=[{"port": port, "targetPort": 8000}])
            await w.endpoints("web", endpoint(two, "dure-2"))
            ip = web["spec"]["clusterIP"]
            await until(lambda: _connects(w.ask(HOST, "127.0.0.1", port)), True)
            open_ones = [await w.connect(place, to, port) for place, to in ((one.netns, ip), (HOST, "127.0.0.1"))]
            machine = w.machine
        machine.thread = type(machine.thread)("helper")
        machine.thread.start()
        for reader, writer in open_ones:
            assert (await say(reader, writer)).startswith("two ")
        assert (await w.ask(one.netns, ip, port)).startswith("two ")
        assert (await w.ask(HOST, "127.0.0.1", port)).startswith("two ")
        machine.thread.close()
        async with w.agent():
            for reader, writer in open_ones:
                assert (await say(reader, writer)).startswith("two ")
                writer.close()
            assert (await w.ask(HOST, "127.0.0.1", port)).startswith("two ")
            assert await w.ask(one.netns, ip, port) == f"two {one.ip}"


async def test_teardown_leaves_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        async with w.agent():
            pod = await w.pod("one", host_ports=[HostPort(9000, 8000)])
            await w.service("web", type="LoadBalancer", ports=[{"port": _free_port(), "targetPort": 8000}])
            await w.endpoints("web", endpoint(pod))
            assert len(host_state(w.instance)) > 20
        await w.close()
        await w.close()
        assert host_state(w.instance) == []
        assert [path for path in (tmp_path / "run").rglob("*") if path.name != "netns"] == []


async def test_networks_that_are_taken_are_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        other = Machine(
            "dure-zzzz", tmp_path / "other", Addresses.parse("10.231.0.0/24", "10.250.0.0/16", "10.251.0.0/16"), []
        )
        try:
            with pytest.raises(ConfigError, match=r"10\.231\.0\.0/24 overlaps"):
                await other.setup()
        finally:
            await other.teardown()
            other.close()


async def test_the_hosts_loopback_is_out_of_a_nodes_reach(tmp_path: Path) -> None:
    """The links route to it for the load balancers' sake, so a node could send packets there."""
    async with world(tmp_path) as w, w.agent():
        node, table = w.nodes["dure-1"], w.machine.table
        await w.echo(HOST, "secret", "127.0.0.1", 8003)
        for words in (
            ["rule", "add", "pref", "10", "to", "127.0.0.1", "lookup", "99"],
            ["rule", "add", "pref", "20", "lookup", "local"],
            ["rule", "delete", "pref", "0"],
            ["route", "add", "127.0.0.1", "via", ADDRESSES.host, "dev", "eth0", "onlink", "table", "99"],
        ):
            shell("nsenter", f"--net={node.host_netns}", "ip", *words)
        with pytest.raises(TimeoutError):
            await w.connect(node.host_netns, "127.0.0.1", 8003)
        await w.machine.nft.run(f"flush chain {table} guard")
        assert await w.ask(node.host_netns, "127.0.0.1", 8003) == f"secret {node.place.address}"


async def test_what_is_not_the_hosts_own_cannot_enter_by_the_links(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.agent():
        pod = await w.pod("one")
        stranger = tmp_path / "stranger"
        await w.machine.thread.call(lambda: w.machine.thread.created(stranger, lambda: None))
        try:
            for words in (
                ["ip", "link", "add", f"{w.instance}s", "type", "veth", "peer", "name", "eth0", "netns", str(stranger)],
                ["ip", "address", "add", "192.0.2.101/30", "dev", f"{w.instance}s"],
                ["ip", "link", "set", f"{w.instance}s", "up"],
                ["nsenter", f"--net={stranger}", "ip", "address", "add", "192.0.2.102/30", "dev", "eth0"],
                ["nsenter", f"--net={stranger}", "ip", "link", "set", "eth0", "up"],
                ["nsenter", f"--net={stranger}", "ip", "route", "add", "default", "via", "192.0.2.101"],
            ):
                shell(*words)
            await w.echo(stranger, "outside", "192.0.2.102", 8004)
            assert await w.ask(pod.netns, "192.0.2.102", 8004) == "outside 192.0.2.101"
            with pytest.raises(TimeoutError):
                await w.connect(stranger, pod.ip, 8000)
        finally:
            shell("ip", "link", "delete", f"{w.instance}s")
            namespaces.release(stranger)


class _FixedAnswer(asyncio.DatagramProtocol):
    """A resolver that knows one address."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        query = wire.parse_query(data)
        record = wire.Record(b"", wire.A, 60, socket.inet_aton("198.51.100.7")).encode()
        self._transport.sendto(wire.respond(query, 0, [record], limit=512), addr)  # type: ignore[attr-defined]


def shell(*words: str) -> None:
    subprocess.run(words, check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _connects(answer) -> bool:  # type: ignore[no-untyped-def]
    return not (await answer).endswith("Error")


async def _all_answers(w, netns, ip) -> set[str]:  # type: ignore[no-untyped-def]
    return {await w.ask(netns, ip, 80) for _ in range(12)}


async def _ingress(w, name) -> list:  # type: ignore[no-untyped-def,type-arg]
    service = await w.client.get("services", name, "default")
    return (service.get("status") or {}).get("loadBalancer", {}).get("ingress") or []


async def _warnings(w) -> list[str]:  # type: ignore[no-untyped-def]
    events = await w.client.list("events", "default")
    return [event["message"] for event in events.items if event["type"] == "Warning"]


async def _has_warning(w, message) -> bool:  # type: ignore[no-untyped-def]
    return message in await _warnings(w)
