"""The table as a value: each step's script leads a kernel to the same state as building it anew would."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dure.api.meta import ObjectKey
from dure.node.network.services.rules import NOTHING, TABLE, Pieces, plan
from dure.node.network.services.table import Table
from tests.unit.node.network.objects import NODE, endpoint, endpoint_slice, service


class Kernel:
    """As much of nftables as our scripts use, as strict as the real one."""

    def __init__(self) -> None:
        self.chains: dict[str, list[str]] = {}
        self.sets: dict[str, tuple[str, dict[str, str]]] = {}

    def run(self, script: str) -> None:
        for line in script.splitlines():
            verb, kind, rest = re.fullmatch(rf"(\w+) (\w+) {TABLE} ?(.*)", line).groups()
            getattr(self, f"{verb}_{'set' if kind == 'map' else kind}")(*rest.split(" ", 1) if rest else ())
        for name, rules in self.chains.items():
            for rule in rules:
                used = re.findall(r"(?:goto|jump) ([\w/.-]+)", rule)
                assert all(target in self.chains for target in used), (name, rule)
                assert all(target in self.sets for target in re.findall(r"@([\w/.-]+)", rule)), (name, rule)

    def add_table(self) -> None:
        pass

    def delete_table(self) -> None:
        self.__init__()  # type: ignore[misc]

    def add_chain(self, name: str, _: str = "") -> None:
        self.chains.setdefault(name, [])

    def flush_chain(self, name: str) -> None:
        self.chains[name].clear()

    def delete_chain(self, name: str) -> None:
        users = [
            rule for rules in self.chains.values() for rule in rules if re.search(rf"goto {name}(?![\w/.-])", rule)
        ]
        values = [value for _, items in self.sets.values() for value in items.values() if value == f"goto {name}"]
        assert not self.chains.pop(name) and not users and not values, name

    def add_rule(self, chain: str, rule: str) -> None:
        self.chains[chain].append(rule)

    def add_set(self, name: str, text: str) -> None:
        assert self.sets.setdefault(name, (text, {}))[0] == text, name

    def delete_set(self, name: str) -> None:
        users = [rule for rules in self.chains.values() for rule in rules if f"@{name} " in rule]
        assert not users, users
        del self.sets[name]

    def add_element(self, name: str, text: str) -> None:
        for item in text.strip("{} ").split(", "):
            key, _, value = item.partition(" : ")
            assert self.sets[name][1].setdefault(key, value) == value, (name, key)

    def delete_element(self, name: str, text: str) -> None:
        for key in text.strip("{} ").split(", "):
            del self.sets[name][1][key]

    def state(self) -> Any:
        return self.chains, self.sets


ips = st.sampled_from(["10.244.1.2", "10.244.1.3", "10.244.2.2"])
specs = st.fixed_dictionaries(
    {"ip": st.sampled_from(["10.96.0.50", "10.96.0.51", "None"])},
    optional={
        "sessionAffinity": st.just("ClientIP"),
        "sessionAffinityConfig": st.sampled_from([{"clientIP": {"timeoutSeconds": 5}}, {}]),
        "externalTrafficPolicy": st.just("Local"),
        "externalIPs": st.just(["192.0.2.9"]),
        "ports": st.sampled_from([[{"port": 80, "nodePort": 30080}], [{"port": 80}, {"port": 80, "protocol": "UDP"}]]),
    },
)
changes = st.tuples(st.sampled_from(["a", "b", "c"]), st.none() | specs, st.lists(ips, max_size=3))


def pieces(name: str, spec: dict[str, Any] | None, behind: list[str]) -> Pieces:
    return plan(service(name, **spec), [endpoint_slice(*map(endpoint, behind))], NODE) if spec else NOTHING


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(changes, max_size=4), max_size=8))
def test_step_by_step_is_the_same_as_at_once(rounds):
    stepwise, table = Kernel(), Table(NODE)
    stepwise.run(table.whole())
    for batch in rounds:
        stepwise.run(table.update({ObjectKey("default", name): pieces(name, *rest) for name, *rest in batch}))
        anew = Kernel()
        anew.run(table.whole())
        assert stepwise.state() == anew.state()


def test_nothing_new_is_no_script():
    table = Table(NODE)
    key, share = ObjectKey("default", "a"), pieces("a", {"ip": "10.96.0.50"}, ["10.244.1.2"])
    assert table.update({key: share}) != ""
    assert table.update({key: share}) == ""
    assert table.update({ObjectKey("default", "b"): NOTHING}) == ""


def test_one_changed_endpoint_touches_one_chain():
    table = Table(NODE)
    key = ObjectKey("default", "a")
    for ip in ("10.244.2.2", "10.244.2.3"):
        script = table.update({key: plan(service("a"), [endpoint_slice(endpoint(ip, "dure-2"))], NODE)})
    assert script.splitlines() == [
        "flush chain ip services in/default/a/80-tcp",
        'add rule ip services in/default/a/80-tcp iifname "eth0" meta mark set meta mark or 0x4000',
        "add rule ip services in/default/a/80-tcp meta l4proto tcp dnat ip to 10.244.2.3:8080",
    ]
