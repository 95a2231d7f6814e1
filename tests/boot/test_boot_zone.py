"""Names and addresses of a fleet as DNS answers, and who has which address."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

import pytest
from dnslib import QTYPE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.boot.addresses import AddressBook, canonical, fixed
from pxeserver.boot.zone import Own, address_of, answer, labels_of, names, services_of
from pxeserver.config import Config, Dns, Metadata
from pxeserver.model import FleetView, Machine
from pxeserver.wire import dns

A1, A2 = "52:54:00:00:00:01", "52:54:00:00:00:02"
OWN = Own(("10.0.0.1", "fd00::1"), frozenset({"10.0.0.1", "fd00::1", "10.9.0.1"}))
CONFIG = Config(dns=Dns(enabled=True, domain="rack.test"), metadata=Metadata(enabled=True))


def machine(ident: int, name: str, *macs: str, **variables: str) -> Machine:
    return Machine(ident, name, macs or (f"52:54:00:00:00:{ident:02x}",), vars=variables)


def view(*machines: Machine) -> FleetView:
    by_mac = {mac: m.id for m in machines for mac in m.macs}
    return FleetView(7, {m.id: m for m in machines}, by_mac)


def look(name: str, qtype: str = "A", *machines: Machine, book: Mapping[str, str] | None = None) -> DNSRecord | None:
    learnt = AddressBook()
    for mac, address in (book or {}).items():
        learnt.learn(mac, address, 1.0)
    query = dns.parse(bytes(DNSRecord.question(name, qtype).pack()))
    found = answer(query.labels, query.qtype, names(view(*machines), CONFIG, 8080), learnt, OWN)
    return None if found is None else DNSRecord.parse(dns.reply(query, found))


def texts(record: DNSRecord | None) -> list[str]:
    assert record is not None
    return [f"{rr.rname} {QTYPE.get(rr.rtype)} {rr.rdata}" for rr in record.rr]


def test_a_machine_by_name_and_by_mac() -> None:
    web = machine(1, "Web1", A1, A2)
    book = {A1: "10.0.0.7", A2: "fd00::7"}
    assert texts(look("wEb1.rack.TEST", "A", web, book=book)) == ["wEb1.rack.TEST. A 10.0.0.7"]
    assert texts(look("web1", "AAAA", web, book=book)) == ["web1. AAAA fd00::7"]
    for mac in (A1, A2):
        name = mac.replace(":", "-") + ".rack.test"
        assert texts(look(name, "A", web, book=book)) == [f"{name}. A 10.0.0.7"]
    assert texts(look("7.0.0.10.in-addr.arpa", "PTR", web, book=book)) == ["7.0.0.10.in-addr.arpa. PTR web1.rack.test."]


def test_one_without_a_name_is_called_by_its_mac() -> None:
    quiet = machine(1, "", A1)
    assert texts(look("7.0.0.10.in-addr.arpa", "PTR", quiet, book={A1: "10.0.0.7"})) == [
        "7.0.0.10.in-addr.arpa. PTR 52-54-00-00-00-01.rack.test."
    ]


def test_fixed_addresses_replace_learnt_ones() -> None:
    web = machine(1, "web", A1, address="10.1.0.1, fd00::2 nonsense 10.1.0.1")
    assert fixed(web) == ("10.1.0.1", "fd00::2")
    assert texts(look("web", "A", web, book={A1: "10.0.0.7"})) == ["web. A 10.1.0.1"]
    assert look("7.0.0.10.in-addr.arpa", "PTR", web, book={A1: "10.0.0.7"}) is None


def test_the_server_and_metaldata() -> None:
    impostor = machine(1, "metaldata", A1, address="10.1.0.1")
    for name in ("pxeserver", "pxeserver.rack.test", "metaldata", "metaldata.rack.test"):
        assert texts(look(name, "A", impostor)) == [f"{name}. A 10.0.0.1"]
        assert texts(look(name, "AAAA", impostor)) == [f"{name}. AAAA fd00::1"]
    assert texts(look("1.0.9.10.in-addr.arpa", "PTR")) == ["1.0.9.10.in-addr.arpa. PTR pxeserver.rack.test."]


def test_services() -> None:
    one = machine(1, "one", A1, srv="_http._tcp 80,_x._udp 5, bad, _y._tcp 0, _z._tcp 99999999999, a._tcp 1")
    two = machine(2, "two", A2, srv="_http._tcp 8080")
    assert list(services_of(one)) == [((b"_http", b"_tcp"), 80), ((b"_x", b"_udp"), 5)]
    record = look("_http._tcp.rack.test", "SRV", one, two, book={A1: "10.0.0.7"})
    assert texts(record) == [
        "_http._tcp.rack.test. SRV 0 0 80 one.rack.test.",
        "_http._tcp.rack.test. SRV 0 0 8080 two.rack.test.",
    ]
    assert record is not None and [str(rr.rdata) for rr in record.ar] == ["10.0.0.7"]
    assert texts(look("_http._tcp.two.rack.test", "SRV", one, two)) == [
        "_http._tcp.two.rack.test. SRV 0 0 8080 two.rack.test."
    ]


@pytest.mark.parametrize(
    ("name", "qtype", "rcode"),
    [
        ("web.rack.test", "MX", dns.NOERROR),
        ("web.rack.test", "AAAA", dns.NOERROR),
        ("rack.test", "A", dns.NOERROR),
        ("row1.rack.test", "A", dns.NOERROR),
        ("_tcp.web.rack.test", "SRV", dns.NOERROR),
        ("_tcp.rack.test", "SRV", dns.NOERROR),
        ("_udp.web.rack.test", "SRV", dns.NXDOMAIN),
        ("_http._tcp.nobody.rack.test", "SRV", dns.NXDOMAIN),
        ("nobody.rack.test", "A", dns.NXDOMAIN),
        ("a.web.rack.test", "A", dns.NXDOMAIN),
        ("52-54-00-00-00-99.rack.test", "A", dns.NXDOMAIN),
        ("a-b-c-d-e-f.rack.test", "A", dns.NXDOMAIN),
    ],
)
def test_nothing_comes_with_a_soa(name: str, qtype: str, rcode: int) -> None:
    fleet = (machine(1, "web", A1, srv="_http._tcp 80"), machine(2, "n1.row1", A2))
    record = look(name, qtype, *fleet)
    assert record is not None and not record.rr and record.header.rcode == rcode and record.header.aa
    (soa,) = record.auth
    assert (str(soa.rname), soa.rtype, soa.rdata.times[0]) == ("rack.test.", 6, 7)


@pytest.mark.parametrize(
    "name",
    ["example.com", "test", "nobody", "7.0.0.10.in-addr.arpa", "0.10.in-addr.arpa", "xrack.test"],
)
def test_other_people_s_names(name: str) -> None:
    assert look(name, "A", machine(1, "web", A1)) is None


def test_labels() -> None:
    assert labels_of("Web1.Rack.") == (b"web1", b"rack")
    assert labels_of("a..b") == labels_of("") == labels_of("-a") == labels_of("über") == ()
    assert labels_of("_http._tcp") == (b"_http", b"_tcp")


@given(st.ip_addresses())
def test_reverse_names(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert address_of(labels_of(address.reverse_pointer)) == str(address)


def test_last_word_wins_and_an_address_has_one_owner() -> None:
    book = AddressBook()
    assert book.learn(A1, "10.0.0.7", 10.0) and not book.learn(A1, "10.0.0.7", 11.0)
    assert not book.learn(A1, "10.0.0.8", 5.0)  # older news
    assert book.learn(A2, "10.0.0.7", 12.0)
    assert (book.of([A1]), book.of([A2]), book.mac_of("10.0.0.7")) == ((), ("10.0.0.7",), A2)
    assert not book.learn(A1, "10.0.0.7", 11.5)
    assert book.learn(A1, "10.0.0.9", 13.0) and book.learn(A1, "fd00::9", 13.0)
    assert book.of([A1]) == ("10.0.0.9", "fd00::9")
    for nothing in ("0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "::", "x", ""):
        assert not book.learn(A1, nothing, 20.0) and canonical(nothing) == ""


class Plain:
    """The same, written as a list of what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, float]] = []

    def of(self, mac: str) -> str:
        mine = [entry for entry in self.said if entry[0] == mac]
        if not mine:
            return ""
        _, address, at = mine[-1]
        taken = any(m != mac and a == address and t >= at for m, a, t in self.said[self.said.index(mine[-1]) :])
        return "" if taken else address


@given(st.lists(st.tuples(st.sampled_from([A1, A2, "52:54:00:00:00:03"]), st.integers(1, 4)), max_size=30))
def test_the_book_says_what_a_plain_list_says(words: list[tuple[str, int]]) -> None:
    book, plain = AddressBook(), Plain()
    for at, (mac, number) in enumerate(words):
        book.learn(mac, f"10.0.0.{number}", float(at))
        plain.said.append((mac, f"10.0.0.{number}", float(at)))
    for mac in {mac for mac, _ in words}:
        assert book.of([mac]) == tuple(filter(None, [plain.of(mac)]))
        assert all(book.mac_of(address) == mac for address in book.of([mac]))


def test_a_full_book_forgets_the_oldest() -> None:
    book = AddressBook(maximum=2)
    for n in range(1, 4):
        book.learn(f"52:54:00:00:00:{n:02x}", f"10.0.0.{n}", float(n))
    assert book.of(["52:54:00:00:00:01"]) == () and book.mac_of("10.0.0.1") is None
    assert book.mac_of("10.0.0.3") == "52:54:00:00:00:03"
