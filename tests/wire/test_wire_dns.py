"""DNS queries as bytes: what is one, what is none, and answers around a prepared tail."""

from __future__ import annotations

import pytest
from dnslib import EDNS0, RR, DNSRecord, EDNSOption
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.wire import dns
from pxeserver.wire.dns import Answer, Query
from pxeserver.wire.reader import WireError

TAIL = bytes.fromhex("c00c00010001000000 3c0004c0000207")
ONE = Answer(counts=b"\0\1\0\0\0\0", tail=TAIL)


def asked(name: str = "Web1.Rack.Test", qtype: str = "A", **edns: object) -> bytes:
    record = DNSRecord.question(name, qtype)
    record.header.id = 0x1234
    if edns:
        record.add_ar(EDNS0(**edns))
    return bytes(record.pack())


def test_a_query() -> None:
    raw = asked()
    query = dns.parse(raw)
    assert query == Query(raw[:2], 0x0100, raw[12:], (b"web1", b"rack", b"test"), dns.A, dns.IN)
    assert (query.opcode, query.edns, query.size) == (0, -1, 512)


@pytest.mark.parametrize(("size", "counts"), [(0, 512), (400, 512), (700, 700), (4096, 1232)])
def test_edns_says_how_much_may_come(size: int, counts: int) -> None:
    query = dns.parse(asked(udp_len=size, opts=[EDNSOption(10, b"12345678")]))
    assert (query.edns, query.size) == (0, counts)
    assert dns.parse(asked(version=1, udp_len=size)).edns == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0" * 11,
        b"\0" * 12,  # no question
        asked()[:2] + b"\x81" + asked()[3:],  # an answer
        asked()[:5] + b"\2" + asked()[6:],  # two questions
        asked()[:7] + b"\1" + asked()[8:],  # an answer in a query
        asked()[:-1],
        asked()[:20],
        asked()[:12] + b"\xc0\x0c" + asked()[-4:],  # a pointer
        asked()[:12] + b"\x40" + b"x" * 64 + b"\0\0\1\0\1",
        asked()[:12] + (b"\x3f" + b"x" * 63) * 4 + b"\0\0\1\0\1",  # 257 bytes
        asked(udp_len=512)[:-1],
        asked(udp_len=512)[:11] + b"\2" + asked(udp_len=512)[12:] + asked(udp_len=512)[-11:],  # two OPT
        asked()[:11] + b"\1" + asked()[12:] + b"\x80",
    ],
    ids=range(14),
)
def test_what_is_no_query(raw: bytes) -> None:
    with pytest.raises(WireError):
        dns.parse(raw)


def test_other_records_are_passed_over() -> None:
    record = DNSRecord.question("a.test")
    record.add_ar(*RR.fromZone("b.a.test. 60 A 192.0.2.1"))
    record.add_ar(EDNS0(udp_len=1000))
    assert dns.parse(bytes(record.pack())).size == 1000


def test_an_answer_repeats_the_question_to_the_letter() -> None:
    raw = asked()
    answer = DNSRecord.parse(dns.reply(dns.parse(raw), ONE))
    assert str(answer.q.qname) == str(answer.rr[0].rname) == "Web1.Rack.Test."
    assert str(answer.rr[0].rdata) == "192.0.2.7"
    assert (answer.header.id, answer.header.aa, answer.header.rd, answer.header.ra) == (dns_id(raw), 1, 1, 0)
    assert DNSRecord.parse(dns.reply(dns.parse(raw), ONE, recursion=True)).header.ra == 1
    assert not answer.ar


def dns_id(raw: bytes) -> int:
    return int.from_bytes(raw[:2], "big")


def test_an_answer_to_edns_has_edns() -> None:
    answer = DNSRecord.parse(dns.reply(dns.parse(asked(udp_len=4096)), Answer(dns.BADVERS, False)))
    assert (answer.ar[0].rtype, answer.ar[0].edns_len, answer.ar[0].edns_rcode) == (41, dns.EDNS_MAX, 1)
    assert (answer.header.rcode, answer.header.aa) == (0, 0)


def test_what_is_too_long_is_cut_and_says_so() -> None:
    long = Answer(counts=b"\0\x28\0\0\0\0", tail=TAIL * 40)
    query = dns.parse(asked())
    cut = DNSRecord.parse(dns.reply(query, long, limit=query.size))
    assert (cut.header.tc, cut.header.a, len(cut.rr)) == (1, 0, 0)
    assert len(DNSRecord.parse(dns.reply(query, long)).rr) == 40


def test_formerr() -> None:
    raw = asked()
    answer = DNSRecord.parse(dns.formerr(raw[:20]) or b"")
    assert (answer.header.id, answer.header.qr, answer.header.rcode, answer.header.q) == (dns_id(raw), 1, 1, 0)
    assert dns.formerr(raw[:11]) is None and dns.formerr(raw[:2] + b"\x81" + raw[3:]) is None


@given(st.binary(max_size=600))
def test_no_bytes_break_it(raw: bytes) -> None:
    try:
        query = dns.parse(raw)
    except WireError:
        dns.formerr(raw)
        return
    assert dns.packed_name(query.labels) == query.question[:-4].lower()
    answer = dns.reply(query, ONE, limit=query.size)
    assert len(answer) <= query.size and answer[12:].startswith(query.question)


LABEL = st.binary(min_size=1, max_size=63)


@given(st.lists(LABEL, max_size=3), st.integers(0, 65535), st.integers(-1, 65535))
def test_what_is_packed_is_read(labels: list[bytes], qtype: int, size: int) -> None:
    question = dns.packed_name(tuple(labels)) + qtype.to_bytes(2, "big") + b"\0\1"
    raw = b"id\1\0\0\1\0\0\0\0\0\0" + question
    if size >= 0:
        raw = raw[:11] + b"\1" + raw[12:] + b"\0\0\x29" + size.to_bytes(2, "big") + bytes(6)
    query = dns.parse(raw)
    assert (query.labels, query.qtype) == (tuple(x.lower() for x in labels), qtype)
    assert query.size == (min(max(size, 512), 1232) if size >= 0 else 512)
