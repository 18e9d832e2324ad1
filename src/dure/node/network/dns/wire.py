"""DNS messages as bytes (RFC 1035, EDNS0 by RFC 6891): queries read with suspicion, answers put together from parts.

Names are kept in wire form: lower case, length-prefixed labels, the root at the end.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, OPT, ANY = 1, 2, 5, 6, 12, 16, 28, 33, 41, 255
IN, CLASS_ANY = 1, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

UDP_LIMIT = 512
EDNS_LIMIT = 1232
"""The most we send in one datagram: fits an Ethernet frame with room for IPv6."""
TCP_LIMIT = 65535
NAME_LIMIT = 255

_HEADER = struct.Struct("!HHHHHH")
_RR = struct.Struct("!HHIH")
_RESPONSE, _OPCODE, _AUTHORITATIVE, _TRUNCATED, _RECURSE, _RECURSES = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080
_DNSSEC_OK = 0x8000
OWNER = b"\xc0\x0c"
"""A pointer to the name in the question."""


class Malformed(Exception):
    """A message that cannot be answered by its content; `rcode` is what to say, `None` nothing at all."""

    def __init__(self, rcode: int | None, header: bytes = b"") -> None:
        super().__init__(f"malformed DNS message (rcode {rcode})")
        self.rcode = rcode
        self.header = header


class Query(NamedTuple):
    """One question. `question` is its bytes as they came, to be echoed; `limit` what fits into a datagram back."""

    id: int
    flags: int
    name: bytes
    type: int
    question: bytes
    has_edns: bool
    limit: int
    wants_dnssec: bool = False


class Record(NamedTuple):
    """A resource record of class IN."""

    name: bytes
    type: int
    ttl: int
    data: bytes

    def encode(self) -> bytes:
        """The bytes; an empty owner becomes a pointer to the name in the question."""
        owner = self.name or OWNER
        return owner + _RR.pack(self.type, IN, self.ttl, len(self.data)) + self.data


def encode_name(text: str) -> bytes:
    """Raises ValueError for what is no name."""
    encoded = b""
    for label in text.rstrip(".").lower().split(".") if text.rstrip(".") else ():
        raw = label.encode("ascii", "strict") if label.isascii() else b""
        if not 1 <= len(raw) <= 63:
            raise ValueError(f"{text!r} is not a DNS name")
        encoded += bytes([len(raw)]) + raw
    if len(encoded) >= NAME_LIMIT:
        raise ValueError(f"{text!r} is longer than a DNS name may be")
    return encoded + b"\0"


def labels_of(name: bytes) -> list[bytes]:
    """The labels of a name in wire form, without the root."""
    found = []
    at = 0
    while name[at]:
        found.append(name[at + 1 : at + 1 + name[at]])
        at += 1 + name[at]
    return found


def parent_of(name: bytes) -> bytes:
    """The name without its first label."""
    return name[1 + name[0] :]


def address(ip: str) -> bytes:
    return socket.inet_aton(ip)


def srv(port: int, weight: int, target: bytes) -> bytes:
    return struct.pack("!HHH", 0, weight, port) + target


def text(value: str) -> bytes:
    raw = value.encode()[:255]
    return bytes([len(raw)]) + raw


def soa(server: bytes, mailbox: bytes, serial: int, negative_seconds: int) -> bytes:
    return server + mailbox + struct.pack("!IIIII", serial & 0xFFFFFFFF, 7200, 1800, 86400, negative_seconds)


def parse_query(data: bytes) -> Query:
    """Raises Malformed. Records other than EDNS0's are passed over."""
    if len(data) < 12:
        raise Malformed(None)
    id_, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise Malformed(None)
    if flags & _OPCODE:
        raise Malformed(NOTIMP, data[:12])
    if questions != 1:
        raise Malformed(FORMERR, data[:12])
    try:
        end = _skip_plain_name(data, 12)
        kind, class_ = struct.unpack_from("!HH", data, end)
        edns = _find_edns(data, end + 4, answers + authorities, additionals)
    except (IndexError, struct.error, ValueError):
        raise Malformed(FORMERR, data[:12]) from None
    if class_ not in (IN, CLASS_ANY):
        raise Malformed(REFUSED, data[:12])
    limit = UDP_LIMIT if edns is None else min(max(edns[0], UDP_LIMIT), EDNS_LIMIT)
    return Query(
        id_,
        flags,
        data[12:end].lower(),
        kind,
        data[12 : end + 4],
        edns is not None,
        limit,
        edns is not None and edns[1],
    )


def respond(
    query: Query,
    rcode: int,
    answers: Sequence[bytes] = (),
    authority: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
    *,
    limit: int,
    authoritative: bool = True,
) -> bytes:
    """The whole message in at most `limit` bytes; marked as truncated when answers had to be left out."""
    room = limit - 12 - len(query.question) - (11 if query.has_edns else 0)
    kept, used = _fitting(answers, room)
    truncated = len(kept) < len(answers)
    rest: list[Sequence[bytes]] = []
    for section in (authority, additional):
        fits, size = _fitting((), 0) if truncated else _fitting(section, room - used)
        rest.append(fits)
        used += size
    flags = _RESPONSE | _RECURSES | (query.flags & _RECURSE) | (rcode & 0xF)
    flags |= (_AUTHORITATIVE if authoritative else 0) | (_TRUNCATED if truncated else 0)
    extra = len(rest[1]) + query.has_edns
    header = _HEADER.pack(query.id, flags, 1, len(kept), len(rest[0]), extra)
    edns = _edns(EDNS_LIMIT, rcode >> 4, query.wants_dnssec) if query.has_edns else b""
    return b"".join((header, query.question, *kept, *rest[0], *rest[1], edns))


def refuse(error: Malformed) -> bytes | None:
    """The bare header that answers a malformed message."""
    if error.rcode is None:
        return None
    id_, flags = struct.unpack_from("!HH", error.header)
    kept = flags & (_OPCODE | _RECURSE)
    return _HEADER.pack(id_, _RESPONSE | _RECURSES | kept | (error.rcode & 0xF), 0, 0, 0, 0)


def ask(id_: int, question: bytes, *, edns_limit: int = 0, wants_dnssec: bool = False) -> bytes:
    """A query of our own; `edns_limit` 0 sends no EDNS0."""
    edns = _edns(edns_limit, 0, wants_dnssec) if edns_limit else b""
    return _HEADER.pack(id_, _RECURSE, 1, 0, 0, 1 if edns else 0) + question + edns


def is_answer_to(data: bytes, id_: int, question: bytes) -> bool:
    """Whether a message really answers what we asked; case of the name does not count."""
    if len(data) < 12 + len(question):
        return False
    got, flags, questions = struct.unpack_from("!HHH", data)
    echoed = data[12 : 12 + len(question)]
    return got == id_ and bool(flags & _RESPONSE) and questions == 1 and echoed.lower() == question.lower()


def is_truncated(data: bytes) -> bool:
    return bool(data[2] & (_TRUNCATED >> 8))


def rcode_of(data: bytes) -> int:
    return data[3] & 0xF


def answers_of(data: bytes) -> list[Record]:
    """The answer section with its names spelled out. Raises Malformed."""
    try:
        _, _, questions, count, _, _ = _HEADER.unpack_from(data)
        at = 12
        for _ in range(questions):
            at = _read_name(data, at)[1] + 4
        found = []
        for _ in range(min(count, 512)):
            name, at = _read_name(data, at)
            kind, _, ttl, size = _RR.unpack_from(data, at)
            at += 10
            if at + size > len(data):
                raise ValueError("record beyond the end")
            content = _read_name(data, at)[0] if kind in (CNAME, NS, PTR) else data[at : at + size]
            found.append(Record(name, kind, ttl, content))
            at += size
    except (IndexError, struct.error, ValueError):
        raise Malformed(SERVFAIL) from None
    return found


def _fitting(records: Sequence[bytes], room: int) -> tuple[Sequence[bytes], int]:
    size = 0
    for place, record in enumerate(records):
        if size + len(record) > room:
            return records[:place], size
        size += len(record)
    return records, size


def _edns(size: int, extended_rcode: int, wants_dnssec: bool) -> bytes:
    return b"\0" + struct.pack("!HHBBHH", OPT, size, extended_rcode, 0, _DNSSEC_OK if wants_dnssec else 0, 0)


def _skip_plain_name(data: bytes, at: int) -> int:
    """The end of a name without pointers."""
    start = at
    while size := data[at]:
        if size > 63:
            raise ValueError("pointer or reserved label in a question")
        at += 1 + size
    if at + 1 - start > NAME_LIMIT:
        raise ValueError("name too long")
    return at + 1


def _find_edns(data: bytes, at: int, others: int, additionals: int) -> tuple[int, bool] | None:
    """(datagram size, DNSSEC wanted) of the OPT record. Raises Malformed for an EDNS version we do not know."""
    found: tuple[int, bool] | None = None
    for place in range(min(others + additionals, 64)):
        name, at = _read_name(data, at)
        kind, size, extended, length = _RR.unpack_from(data, at)
        at += 10 + length
        if at > len(data):
            raise ValueError("record beyond the end")
        if kind != OPT or place < others:
            continue
        if found is not None or name != b"\0":
            raise ValueError("more than one OPT record, or one with a name")
        if extended >> 16 & 0xFF:
            raise Malformed(BADVERS, data[:12])
        found = size, bool(extended & _DNSSEC_OK)
    return found


def _read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """A name, following pointers backwards only, and where the message goes on after it."""
    parts = []
    end, limit, total = -1, at, 0
    while True:
        size = data[at]
        if size >= 0xC0:
            target = (size & 0x3F) << 8 | data[at + 1]
            if end < 0:
                end = at + 2
            if target >= limit:
                raise ValueError("pointer that does not go back")
            at = limit = target
            continue
        if size > 63:
            raise ValueError("reserved label")
        total += size + 1
        if total > NAME_LIMIT or at + 1 + size > len(data):
            raise ValueError("name too long")
        parts.append(data[at : at + 1 + size].lower())
        at += 1 + size
        if size == 0:
            return b"".join(parts), end if end >= 0 else at
