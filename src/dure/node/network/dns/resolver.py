"""From a query to its answer: the zone first, aliases followed, the rest asked upstream."""

from __future__ import annotations

import struct
from collections.abc import Awaitable

from dure.node.network.dns import wire
from dure.node.network.dns.upstream import NoAnswer, Upstream
from dure.node.network.dns.wire import NOERROR, NXDOMAIN, SERVFAIL, Malformed, Query, Record
from dure.node.network.dns.zone import Found, Zone

_MOST_ALIASES = 8


class Resolver:
    """Answers from the zone are given at once; only what must be forwarded is awaited."""

    def __init__(self, zone: Zone, upstream: Upstream) -> None:
        self._zone = zone
        self._upstream = upstream

    def answer(self, data: bytes, *, tcp: bool) -> bytes | Awaitable[bytes] | None:
        """The message to send back, now or later; None for one that deserves no answer."""
        try:
            query = wire.parse_query(data)
        except Malformed as error:
            return wire.refuse(error)
        limit = wire.TCP_LIMIT if tcp else query.limit
        found = self._zone.find(query.name, query.type)
        if found is None:
            return self._forward(query, tcp)
        if found.alias:
            return self._follow(query, found, limit, tcp)
        rcode = NOERROR if found.exists else NXDOMAIN
        return wire.respond(query, rcode, found.answers, found.authority, found.additional, limit=limit)

    async def _forward(self, query: Query, tcp: bool) -> bytes:
        try:
            answer = await self._ask(query.question, query, tcp)
        except NoAnswer:
            return wire.respond(query, SERVFAIL, limit=wire.UDP_LIMIT, authoritative=False)
        return struct.pack("!H", query.id) + answer[2:]

    async def _follow(self, query: Query, found: Found, limit: int, tcp: bool) -> bytes:
        """An alias, and what it stands for: names of the zone, or what the upstream says."""
        answers, name = [*found.answers], found.alias
        for _ in range(_MOST_ALIASES):
            step = self._zone.find(name, query.type)
            if step is None:
                return await self._follow_outside(query, answers, name, limit, tcp)
            answers += [name + record[2:] for record in step.answers]
            if not step.alias:
                rcode = NOERROR if step.exists else NXDOMAIN
                return wire.respond(query, rcode, answers, step.authority, limit=limit)
            name = step.alias
        return wire.respond(query, SERVFAIL, limit=limit)

    async def _follow_outside(self, query: Query, answers: list[bytes], name: bytes, limit: int, tcp: bool) -> bytes:
        question = name + struct.pack("!HH", query.type, wire.IN)
        try:
            reply = await self._ask(question, query, tcp)
            if wire.is_truncated(reply):
                reply = await self._ask(question, query, tcp=True)
            records: list[Record] = wire.answers_of(reply)
        except (NoAnswer, Malformed):
            return wire.respond(query, SERVFAIL, answers, limit=limit)
        answers += [record.encode() for record in records if record.type in (wire.CNAME, query.type)]
        return wire.respond(query, wire.rcode_of(reply), answers, limit=limit)

    async def _ask(self, question: bytes, query: Query, tcp: bool) -> bytes:
        size = query.limit if query.has_edns else 0
        return await self._upstream.ask(question, edns_limit=size, wants_dnssec=query.wants_dnssec, tcp=tcp)
