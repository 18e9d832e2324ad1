"""DNS messages: what is read, what is written, and that no packet breaks it."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.node.network.dns import wire
from dure.node.network.dns.wire import FORMERR, NOTIMP, REFUSED, Malformed, Record, encode_name

NAME = encode_name("web.default.svc.cluster.local")
QUESTION = NAME + b"\0\1\0\1"


def rcode_of_refusal(data):
    with pytest.raises(Malformed) as caught:
        wire.parse_query(data)
    return caught.value.rcode


def test_a_question_is_read_and_echoed_as_it_came():
    mixed = b"\3WeB" + QUESTION[4:]
    query = wire.parse_query(wire.ask(7, mixed))
    assert (query.id, query.name, query.type, query.has_edns, query.limit) == (7, NAME, wire.A, False, 512)
    assert wire.respond(query, 0, limit=512)[12:] == mixed


def test_edns_sets_the_limit_within_reason():
    limits = {asked: wire.parse_query(wire.ask(1, QUESTION, edns_limit=asked)).limit for asked in (100, 900, 65535)}
    assert limits == {100: 512, 900: 900, 65535: wire.EDNS_LIMIT}
    assert wire.respond(wire.parse_query(wire.ask(1, QUESTION, edns_limit=900)), 0, limit=900)[11] == 1


def test_answers_that_do_not_fit_are_cut_between_records_and_marked():
    query = wire.parse_query(wire.ask(1, QUESTION))
    records = [Record(b"", wire.A, 5, bytes([10, 0, 0, number])).encode() for number in range(100)]
    answer = wire.respond(query, 0, records, limit=512)
    assert len(answer) <= 512 and wire.is_truncated(answer)
    assert [one.data[3] for one in wire.answers_of(answer)] == list(range(29))
    whole = wire.respond(query, 0, records, limit=wire.TCP_LIMIT)
    assert not wire.is_truncated(whole) and len(wire.answers_of(whole)) == 100


def test_additional_records_give_way_silently():
    query = wire.parse_query(wire.ask(1, QUESTION))
    extra = [Record(NAME, wire.A, 5, b"\x0a\0\0\1").encode()] * 50
    answer = wire.respond(query, 0, [], (), extra, limit=512)
    assert len(answer) <= 512 and not wire.is_truncated(answer)


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (b"", None),
        (b"\0" * 11, None),
        (struct.pack("!HHHHHH", 1, 0x8000, 1, 0, 0, 0) + QUESTION, None),
        (struct.pack("!HHHHHH", 1, 0x2800, 1, 0, 0, 0) + QUESTION, NOTIMP),
        (struct.pack("!HHHHHH", 1, 0, 2, 0, 0, 0) + QUESTION * 2, FORMERR),
        (struct.pack("!HHHHHH", 1, 0, 0, 0, 0, 0), FORMERR),
        (struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", FORMERR),
        (struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + b"\x3f" + b"a" * 10, FORMERR),
        (struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1", FORMERR),
        (struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + NAME + b"\0\1\0\3", REFUSED),
        (struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 1) + QUESTION + b"\0\0\x29\4\xd0\0\1\0\0\0\0", wire.BADVERS),
        (struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 2) + QUESTION + b"\0\0\x29\4\xd0\0\0\0\0\0\0" * 2, FORMERR),
        (struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 1) + QUESTION + b"\0\0\x29\4\xd0\0\0\0\0\0\x09", FORMERR),
    ],
)
def test_bad_messages_are_refused_each_in_its_way(data, rcode):
    assert rcode_of_refusal(data) == rcode


packets = st.binary(max_size=200) | st.builds(
    lambda head, tail: wire.ask(1, QUESTION)[:head] + tail, st.integers(0, 60), st.binary(max_size=80)
)


@given(packets)
def test_no_packet_breaks_the_reader(data):
    try:
        query = wire.parse_query(data)
    except Malformed as error:
        answer = wire.refuse(error)
        assert answer is None or len(answer) == 12
    else:
        assert len(query.name) <= 255 and len(wire.respond(query, 0, limit=query.limit)) <= query.limit
    with contextlib.suppress(Malformed):
        wire.answers_of(data)


def test_pointers_that_go_in_circles_are_refused():
    looped = struct.pack("!HHHHHH", 1, 0x8000, 0, 1, 0, 0) + b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + b"\0" * 4
    with pytest.raises(Malformed):
        wire.answers_of(looped)


def test_names_in_answers_are_spelled_out():
    target = b"\3web\xc0\x10"
    message = struct.pack("!HHHHHH", 1, 0x8000, 1, 1, 0, 0) + QUESTION
    message += wire.OWNER + struct.pack("!HHIH", wire.CNAME, 1, 5, len(target)) + target
    (record,) = wire.answers_of(message)
    assert record == Record(NAME, wire.CNAME, 5, NAME)


@given(st.lists(st.text("abcdefghij-0123", min_size=1, max_size=20), min_size=1, max_size=8))
def test_names_come_back_as_labels(labels):
    assert wire.labels_of(encode_name(".".join(labels))) == [label.encode() for label in labels]


@pytest.mark.parametrize("text", ["a..b", "a" * 64, ".".join(["a" * 60] * 5), "두레.kr"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ValueError, match="DNS name"):
        encode_name(text)
