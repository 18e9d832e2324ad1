"""Everything the cluster's DNS knows: Services' records gathered by owner, encoded ahead of the questions.

A name exists when it has records or a name below it has; a name that exists has no data of other types (NODATA),
any other name below the domain is NXDOMAIN.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from dure.api.meta import ObjectKey
from dure.node.network.dns import wire
from dure.node.network.dns.records import NO_RECORDS, Records
from dure.node.network.dns.wire import ANY, CNAME, NS, PTR, SOA, SRV, TXT, A, Record, encode_name

TTL_SECONDS = 5
VERSION = "1.1.0"
_REVERSE = encode_name("in-addr.arpa")


@dataclass(frozen=True, slots=True)
class Found:
    """What the zone says about a name and type: encoded records, or where to go on (`alias`)."""

    exists: bool
    answers: Sequence[bytes] = ()
    authority: Sequence[bytes] = ()
    additional: Sequence[bytes] = ()
    alias: bytes = b""


@dataclass(slots=True)
class _Entry:
    """One name: records by type with the owner written as a pointer to the question, and an alias if it is one."""

    records: dict[int, tuple[bytes, ...]] = field(default_factory=dict)
    additional: tuple[bytes, ...] = ()
    alias: bytes = b""


class Zone:
    """The cluster domain and the reverse names of `networks`; kept by `put`, read by `find`."""

    def __init__(self, domain: str, networks: Sequence[IPv4Network], dns_ip: str) -> None:
        self.domain = domain
        self._suffix = encode_name(domain)
        self._depth = len(wire.labels_of(self._suffix))
        self._server = encode_name(f"ns.dns.{domain}")
        self._mailbox = encode_name(f"hostmaster.{domain}")
        self._networks = tuple(networks)
        self._shares: dict[ObjectKey, Records] = {}
        self._entries: dict[bytes, _Entry] = {}
        self._above: Counter[bytes] = Counter()
        self._reverse: dict[str, dict[ObjectKey, tuple[bytes, ...]]] = {}
        self._serial = 1
        self._ready = asyncio.Event()
        self._add_own_names(dns_ip)

    def mark_ready(self) -> None:
        """Every Service known at the start is in."""
        self._ready.set()

    async def wait_ready(self) -> None:
        await self._ready.wait()

    def put(self, owner: ObjectKey, records: Records) -> None:
        """The Service's records are now these; NO_RECORDS removes it."""
        before = self._shares.pop(owner, NO_RECORDS)
        if records != NO_RECORDS:
            self._shares[owner] = records
        if records == before:
            return
        self._serial += 1
        for name in before.forward:
            self._remove(name)
        for ip in before.reverse:
            self._reverse[ip].pop(owner)
            if not self._reverse[ip]:
                del self._reverse[ip]
        for name, by_type in records.forward.items():
            self._add(name, _entry(by_type, records.targets))
        for ip, names in records.reverse.items():
            self._reverse.setdefault(ip, {})[owner] = names

    def find(self, name: bytes, kind: int) -> Found | None:
        """None for a name that is not ours to answer. `name` is lower case, in wire form."""
        if name.endswith(self._suffix) and self._is_below(name):
            return self._find_forward(name, kind)
        if name.endswith(_REVERSE):
            return self._find_reverse(name, kind)
        return None

    def _find_forward(self, name: bytes, kind: int) -> Found:
        entry = self._entries.get(name) or self._pod_entry(name)
        if entry is None:
            return Found(exists=self._above[name] > 0, authority=(self._soa(self._suffix),))
        if entry.alias:
            return Found(exists=True, answers=entry.records[CNAME], alias=b"" if kind in (CNAME, ANY) else entry.alias)
        if kind == SOA and name == self._suffix:
            return Found(exists=True, answers=(self._soa(self._suffix),))
        records = entry.records.get(A if kind == ANY else kind)
        if not records:
            return Found(exists=True, authority=(self._soa(self._suffix),))
        answers = random.sample(records, len(records)) if len(records) > 1 else records
        return Found(exists=True, answers=answers, additional=entry.additional if kind == SRV else ())

    def _find_reverse(self, name: bytes, kind: int) -> Found | None:
        ip = _reversed_address(name)
        if ip is None or not any(ip in network for network in self._networks):
            return None
        owners = self._reverse.get(str(ip))
        if not owners or kind not in (PTR, ANY):
            return Found(exists=bool(owners), authority=(self._soa(_REVERSE),))
        names = sorted({target for targets in owners.values() for target in targets})
        return Found(exists=True, answers=[_encoded(PTR, target) for target in names])

    def _is_below(self, name: bytes) -> bool:
        """The end matched as bytes; now as labels."""
        at = 0
        while len(name) - at > len(self._suffix):
            at += 1 + name[at]
        return len(name) - at == len(self._suffix)

    def _pod_entry(self, name: bytes) -> _Entry | None:
        """`a-b-c-d.<namespace>.pod.<domain>` stands for a.b.c.d; the namespace above it exists."""
        labels = wire.labels_of(name)
        own = labels[: len(labels) - self._depth]
        if not own or own[-1] != b"pod" or len(own) > 3:
            return None
        if len(own) < 3:
            return _Entry()
        try:
            ip = IPv4Address(own[0].decode().replace("-", "."))
        except (AddressValueError, UnicodeDecodeError):
            return None
        return _Entry({A: (_encoded(A, ip.packed),)})

    def _soa(self, owner: bytes) -> bytes:
        data = wire.soa(self._server, self._mailbox, self._serial, TTL_SECONDS)
        return Record(owner, SOA, TTL_SECONDS, data).encode()

    def _add_own_names(self, dns_ip: str) -> None:
        self._add(self._suffix, _entry({NS: (self._server,)}, {}))
        self._add(self._server, _entry({A: (wire.address(dns_ip),)}, {}))
        self._add(encode_name(f"dns-version.{self.domain}"), _entry({TXT: (wire.text(VERSION),)}, {}))
        self._above[encode_name(f"svc.{self.domain}")] += 1

    def _add(self, name: bytes, entry: _Entry) -> None:
        self._entries[name] = entry
        self._count(name, 1)

    def _remove(self, name: bytes) -> None:
        del self._entries[name]
        self._count(name, -1)

    def _count(self, name: bytes, step: int) -> None:
        while len(name) > len(self._suffix):
            name = wire.parent_of(name)
            self._above[name] += step
            if not self._above[name]:
                del self._above[name]


def _entry(by_type: Mapping[int, tuple[bytes, ...]], addresses: Mapping[bytes, tuple[bytes, ...]]) -> _Entry:
    """`addresses` of the names that SRV records may point to."""
    entry = _Entry({kind: tuple(_encoded(kind, one) for one in data) for kind, data in by_type.items()})
    if CNAME in by_type:
        entry.alias = by_type[CNAME][0]
    targets = dict.fromkeys(one[6:] for one in by_type.get(SRV, ()))
    entry.additional = tuple(
        Record(target, A, TTL_SECONDS, ip).encode() for target in targets for ip in addresses.get(target, ())
    )
    return entry


def _encoded(kind: int, data: bytes) -> bytes:
    """A record whose owner is the name in the question."""
    return Record(b"", kind, TTL_SECONDS, data).encode()


def _reversed_address(name: bytes) -> IPv4Address | None:
    labels = wire.labels_of(name)
    if len(labels) != 6:
        return None
    try:
        return IPv4Address(".".join(label.decode() for label in reversed(labels[:4])))
    except (AddressValueError, UnicodeDecodeError):
        return None
