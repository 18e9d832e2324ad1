"""The nft table of a node as a value: shares by owner, and the transaction from one state to the next; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dure.api.meta import ObjectKey
from dure.node.network.services.rules import NOTHING, TABLE, NodeView, Pieces, frame

Element = tuple[str, str]
Rules = tuple[str, ...]


class Table:
    """What the table holds. An element that several owners give has the value of the first by name."""

    def __init__(self, node: NodeView) -> None:
        self._node = node
        self._shares: dict[ObjectKey, Pieces] = {}
        self._elements: dict[Element, dict[ObjectKey, str]] = {}

    def share(self, owner: ObjectKey) -> Pieces:
        return self._shares.get(owner, NOTHING)

    def owners(self) -> Iterable[ObjectKey]:
        return self._shares.keys()

    def affinity_sets(self) -> list[str]:
        """Names of the sets that remember clients."""
        return [name for share in self._shares.values() for name in share.sets]

    def whole(self, clients: Mapping[str, Sequence[tuple[str, int]]] | None = None) -> str:
        """A script that replaces whatever is there. `clients` of affinity sets: (address, seconds left) each."""
        sets: dict[str, str] = {}
        chains: dict[str, Rules] = {}
        for share in self._shares.values():
            sets.update(share.sets)
            chains.update(share.chains)
        elements = {element: _value(owners) for element, owners in self._elements.items()}
        script = [f"add table {TABLE}", f"delete table {TABLE}", *frame(self._node)]
        script += _added_sets(sets) + _added_chains(chains) + _rules(chains) + _added_elements(elements)
        for name, remembered in (clients or {}).items():
            if name in sets:
                items = ", ".join(f"{ip} expires {seconds}s" for ip, seconds in remembered)
                script.append(f"add element {TABLE} {name} {{ {items} }}")
        return "\n".join(script)

    def update(self, changes: Mapping[ObjectKey, Pieces]) -> str:
        """Take over the owners' new shares; the script that does the same in the kernel, empty if nothing changed."""
        old_chains: dict[str, Rules] = {}
        new_chains: dict[str, Rules] = {}
        old_sets: dict[str, str] = {}
        new_sets: dict[str, str] = {}
        touched: dict[Element, str | None] = {}
        for owner, share in changes.items():
            before = self._shares.pop(owner, NOTHING)
            if share != NOTHING:
                self._shares[owner] = share
            old_chains.update(before.chains)
            new_chains.update(share.chains)
            old_sets.update(before.sets)
            new_sets.update(share.sets)
            self._move_elements(owner, before, share, touched)
        gone_chains = [name for name in old_chains if name not in new_chains]
        fresh_chains = {name: rules for name, rules in new_chains.items() if name not in old_chains}
        changed = {name: rules for name, rules in new_chains.items() if old_chains.get(name) != rules}
        # a set of another timeout is another set; the chains that name it are written anew with it
        gone_sets = [name for name, text in old_sets.items() if new_sets.get(name) != text]
        fresh_sets = {name: text for name, text in new_sets.items() if old_sets.get(name) != text}
        if any(name in new_sets for name in gone_sets):
            changed = {**changed, **{name: rules for name, rules in new_chains.items() if _names(rules, gone_sets)}}
        now = {element: _value(self._elements[element]) for element in touched if element in self._elements}
        removed = [element for element, value in touched.items() if value is not None and now.get(element) != value]
        added = {element: value for element, value in now.items() if touched[element] != value}
        emptied = [name for name in (*gone_chains, *changed) if name in old_chains]
        script = _deleted_elements(removed) + _added_chains(fresh_chains)
        script += [f"flush chain {TABLE} {name}" for name in emptied]
        script += [f"delete set {TABLE} {name}" for name in gone_sets]
        script += _added_sets(fresh_sets) + _rules(changed)
        script += [f"delete chain {TABLE} {name}" for name in gone_chains]
        script += _added_elements(added)
        return "\n".join(script)

    def _move_elements(
        self, owner: ObjectKey, before: Pieces, after: Pieces, touched: dict[Element, str | None]
    ) -> None:
        """Note the value each touched element had before anything of this update."""
        for element in {**before.elements, **after.elements}:
            owners = self._elements.setdefault(element, {})
            touched.setdefault(element, _value(owners) if owners else None)
            owners.pop(owner, None)
            if element in after.elements:
                owners[owner] = after.elements[element]
            if not owners:
                del self._elements[element]


def _value(owners: Mapping[ObjectKey, str]) -> str:
    return owners[min(owners)]


def _names(rules: tuple[str, ...], sets: list[str]) -> bool:
    return any(f"@{name} " in rule for rule in rules for name in sets)


def _added_sets(sets: Mapping[str, str]) -> list[str]:
    return [f"add set {TABLE} {name} {{ {text} }}" for name, text in sets.items()]


def _added_chains(chains: Iterable[str]) -> list[str]:
    return [f"add chain {TABLE} {name}" for name in chains]


def _rules(chains: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [f"add rule {TABLE} {name} {rule}" for name, rules in chains.items() for rule in rules]


def _added_elements(elements: Mapping[Element, str]) -> list[str]:
    return _by_set("add", ((name, f"{key} : {value}" if value else key) for (name, key), value in elements.items()))


def _deleted_elements(elements: Iterable[Element]) -> list[str]:
    return _by_set("delete", elements)


def _by_set(verb: str, items: Iterable[tuple[str, str]]) -> list[str]:
    gathered: dict[str, list[str]] = {}
    for name, text in items:
        gathered.setdefault(name, []).append(text)
    return [f"{verb} element {TABLE} {name} {{ {', '.join(texts)} }}" for name, texts in gathered.items()]
