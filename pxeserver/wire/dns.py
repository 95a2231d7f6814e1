"""DNS queries <-> values (RFC 1035 section 4, EDNS RFC 6891).

Queries are read here, bounds-checked; what an answer says is packed by dnslib (boot/zone.py), once for each question.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pxeserver.wire.reader import Reader, WireError

A, NS, SOA, PTR, AAAA, SRV, OPT, IXFR, AXFR, ANY = 1, 2, 6, 12, 28, 33, 41, 251, 252, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
HEADER = 12
PLAIN_MAX = 512  # bytes of an answer by UDP without EDNS
EDNS_MAX = 1232  # with it: what fits into every path without fragments
LABEL_MAX, NAME_MAX = 63, 255
QR, AA, TC, RD, RA, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
_COUNTS = struct.Struct("!HHHH")
_OPT = struct.Struct("!BHHBBHH")  # root, OPT, size, high bits of the code, version, flags, length

Labels = tuple[bytes, ...]  # lower-case, without the root


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `question` is its bytes as sent, for an answer repeats them, case and all (0x20)."""

    ident: bytes
    flags: int
    question: bytes
    labels: Labels
    qtype: int
    qclass: int
    edns: int = -1  # version, -1 without EDNS
    size: int = PLAIN_MAX  # of the largest answer by UDP

    @property
    def opcode(self) -> int:
        return self.flags >> 11 & 15


@dataclass(frozen=True, slots=True)
class Answer:
    """What follows the question: `counts` of the three sections and their bytes `tail`.

    Its names point to the question's, so that one Answer fits whatever case that was asked in.
    """

    rcode: int = NOERROR
    authoritative: bool = True
    counts: bytes = bytes(6)
    tail: bytes = b""


def parse(raw: bytes) -> Query:
    """A query. WireError for everything that is none; `formerr` can answer it if it has a whole header."""
    reader = Reader(raw, "DNS query")
    ident, flags = reader.take(2), reader.u16()
    questions, answers, authorities, additional = _COUNTS.unpack(reader.take(8))
    if flags & QR:
        raise WireError("an answer, not a query")
    if questions != 1 or (answers and flags >> 11 & 15 == 0):
        raise WireError(f"{questions} questions, {answers} answers")
    labels = _labels(reader)
    qtype, qclass = reader.u16(), reader.u16()
    question = raw[HEADER : reader.position]
    edns, size = -1, PLAIN_MAX
    for _ in range(answers + authorities + additional):
        kind, klass, version = _record(reader)
        if kind == OPT:
            if edns >= 0:
                raise WireError("two OPT records")
            edns, size = version, min(max(klass, PLAIN_MAX), EDNS_MAX)
    return Query(ident, flags, question, labels, qtype, qclass, edns, size)


def _labels(reader: Reader) -> Labels:
    """A name that is written out: a question has nothing before it to point to."""
    found: list[bytes] = []
    length = 1
    while (size := reader.u8()) != 0:
        length += size + 1
        if size > LABEL_MAX or length > NAME_MAX:
            raise WireError("a name that is too long, or a pointer in a question")
        found.append(reader.take(size).lower())
    return tuple(found)


def _record(reader: Reader) -> tuple[int, int, int]:
    """Type, class and EDNS version of the next record, which is skipped."""
    while (size := reader.u8()) != 0:
        if size >= 0xC0:
            reader.u8()
            break
        if size > LABEL_MAX:
            raise WireError("a label of no known kind")
        reader.take(size)
    kind, klass = reader.u16(), reader.u16()
    ttl = reader.take(4)
    reader.take(reader.u16())
    return kind, klass, ttl[1]


def reply(query: Query, answer: Answer, *, recursion: bool = False, limit: int = 0) -> bytes:
    """The whole answer. `limit` 0 is a stream's; one that is too long for it is cut to nothing and says so (TC)."""
    flags = QR | (query.flags & (0x7800 | RD | CD)) | (answer.rcode & 15)
    flags |= (AA if answer.authoritative else 0) | (RA if recursion else 0)
    counts, tail, opt = answer.counts, answer.tail, b""
    if query.edns >= 0:
        opt = _OPT.pack(0, OPT, EDNS_MAX, answer.rcode >> 4, 0, 0, 0)
    if limit and HEADER + len(query.question) + len(tail) + len(opt) > limit:
        flags, counts, tail = flags | TC, bytes(6), b""
    if opt:
        counts = counts[:4] + (int.from_bytes(counts[4:], "big") + 1).to_bytes(2, "big")
    return query.ident + flags.to_bytes(2, "big") + b"\0\1" + counts + query.question + tail + opt


def formerr(raw: bytes) -> bytes | None:
    """The answer to a query that makes no sense: a bare header. None for what is no query at all."""
    if len(raw) < HEADER or raw[2] & 0x80:
        return None
    return raw[:2] + bytes((0x80 | raw[2] & 0x79, FORMERR)) + bytes(8)


def packed_name(labels: Labels) -> bytes:
    """Written out, with the root."""
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
