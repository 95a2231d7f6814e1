"""Names of machines as DNS records: a question and what is known now -> an Answer, or None for a name not ours.

NAME.DOMAIN, NAME                     A, AAAA of a machine; also by its MAC, 52-54-00-12-34-56.DOMAIN
SERVER.DOMAIN, SERVER                 the boot server's own address on the wire that was asked from
metaldata.DOMAIN, metaldata           the same, where the metadata service runs (LinuxKit's pkg/metadata asks for it)
_SERVICE._PROTO.NAME.DOMAIN           SRV from the machine's variable `srv`; without NAME: of all machines
*.in-addr.arpa, *.ip6.arpa            PTR of these addresses
DOMAIN                                SOA, NS
A name without the domain is a zone of its own, and so is each address: who asks for others goes elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dnslib import AAAA as RdAAAA
from dnslib import NS as RdNS
from dnslib import PTR as RdPTR
from dnslib import QTYPE, RD, RR, SOA, DNSHeader, DNSLabel, DNSQuestion, DNSRecord
from dnslib import SRV as RdSRV
from dnslib import A as RdA

from pxeserver.boot.addresses import AddressBook, addresses, fixed_owners
from pxeserver.config import Config
from pxeserver.mac import looks_like_mac, parse_mac
from pxeserver.model import FleetView, Machine
from pxeserver.wire import dns
from pxeserver.wire.dns import Answer, Labels

SRV_VAR = "srv"  # "_http._tcp 80, _etcd-server._tcp 2380"
METALDATA = b"metaldata"
BOOT_SERVICE: Labels = (b"_pxeserver", b"_tcp")
_LABEL = re.compile(rb"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_REVERSE: tuple[Labels, Labels] = ((b"in-addr", b"arpa"), (b"ip6", b"arpa"))
_REFRESH, _RETRY, _EXPIRE = 3600, 600, 86400  # of the SOA; nobody copies this zone


@dataclass(frozen=True, slots=True)
class Service:
    """One line of a machine's `srv`."""

    machine: int  # 0: the server itself
    port: int


@dataclass(frozen=True, slots=True)
class Names:
    """What the fleet's view says, ready to be looked up; made anew when the view is."""

    domain: Labels
    server: bytes
    ttl: int
    metadata: bool = False
    generation: int = 0
    view: FleetView = field(default_factory=FleetView)
    machines: Mapping[Labels, int] = field(default_factory=dict)
    services: Mapping[Labels, tuple[Service, ...]] = field(default_factory=dict)
    fixed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Own:
    """Our addresses: `told` to whoever asks on this wire, `all` of them known by our name."""

    told: tuple[str, ...] = ()
    all: frozenset[str] = frozenset()


def labels_of(name: str) -> Labels:
    """'Web1.Rack' -> (b"web1", b"rack"); () for what is no host name."""
    found = tuple(part.encode("ascii", "replace").lower() for part in name.strip(".").split("."))
    return found if all(map(_LABEL.fullmatch, found)) else ()


def names(view: FleetView, config: Config, http_port: int) -> Names:
    """Names of every machine, of the services that their variables name, and of the boot server."""
    machines: dict[Labels, int] = {}
    services: dict[Labels, tuple[Service, ...]] = {BOOT_SERVICE: (Service(0, http_port),)}
    server = config.dns.name.lower().encode()
    for ident, machine in view.machines.items():
        labels = labels_of(machine.name) if machine.name else ()
        if labels and labels not in ((server,), (METALDATA,)):
            machines.setdefault(labels, ident)
        for service, port in services_of(machine):
            services[service] = (*services.get(service, ()), Service(ident, port))
    return Names(
        labels_of(config.dns.domain),
        server,
        config.dns.ttl,
        config.metadata.enabled,
        view.generation,
        view,
        machines,
        services,
        fixed_owners(view.machines),
    )


def services_of(machine: Machine) -> Iterator[tuple[Labels, int]]:
    """((b"_http", b"_tcp"), 80) for each part of `srv` that makes sense."""
    for part in machine.vars.get(SRV_VAR, "").split(","):
        service, _, port = part.strip().partition(" ")
        labels = labels_of(service)
        number = int(port) if len(port) < 8 and port.strip().isdecimal() else 0
        if len(labels) == 2 and all(x.startswith(b"_") for x in labels) and 0 < number < 65536:
            yield labels, number


@dataclass(frozen=True, slots=True)
class _Node:
    """A name of ours: its records, and the zone that it stands in. `exists` false: NXDOMAIN."""

    apex: Labels
    records: tuple[tuple[int, RD], ...] = ()
    exists: bool = True
    extra: tuple[tuple[Labels, tuple[tuple[int, RD], ...]], ...] = ()  # addresses of the names in the records


def answer(labels: Labels, qtype: int, known: Names, book: AddressBook, own: Own) -> Answer | None:
    """What there is about this name; None when it is not ours to know."""
    node = _node(labels, known, book, own)
    if node is None:
        return None
    picked = [rd for kind, rd in node.records if qtype in (kind, dns.ANY)]
    record = DNSRecord(DNSHeader(), q=DNSQuestion(DNSLabel(list(labels)), qtype))
    for rd in picked:
        record.add_answer(_rr(labels, rd, known.ttl))
    if picked:
        for name, found in node.extra:
            for _, rd in found:
                record.add_ar(_rr(name, rd, known.ttl))
    else:
        record.add_auth(_rr(node.apex, _soa(known), known.ttl))
    raw = record.pack()
    question = dns.HEADER + len(dns.packed_name(labels)) + 4
    return Answer(dns.NOERROR if node.exists else dns.NXDOMAIN, True, raw[6:12], raw[question:])


def _rr(name: Labels, rd: RD, ttl: int) -> RR:
    return RR(DNSLabel(list(name)), getattr(QTYPE, type(rd).__name__), ttl=ttl, rdata=rd)


def _soa(known: Names) -> SOA:
    times = (known.generation & 0xFFFFFFFF, _REFRESH, _RETRY, _EXPIRE, known.ttl)
    return SOA(DNSLabel([known.server, *known.domain]), DNSLabel([b"hostmaster", *known.domain]), times)


def _node(labels: Labels, known: Names, book: AddressBook, own: Own) -> _Node | None:
    domain = known.domain
    if labels[-len(domain) :] == domain:
        return _inside(labels[: -len(domain)], known, book, own)
    if labels[-2:] in _REVERSE:
        return _reverse(labels, known, book, own)
    found = _host(labels, known, book, own)  # as people type it
    return _Node(labels, found) if found is not None else None


def _inside(rest: Labels, known: Names, book: AddressBook, own: Own) -> _Node:
    domain = known.domain
    if not rest:
        server: Labels = (known.server, *domain)
        records = ((dns.SOA, _soa(known)), (dns.NS, RdNS(DNSLabel(list(server)))))
        return _Node(domain, records)
    found = _host(rest, known, book, own)
    if found is not None:
        return _Node(domain, found)
    if rest[0].startswith(b"_"):
        node = _service(rest, known, book, own)
        if node is not None:
            return node
    below = any(name[-len(rest) :] == rest for name in known.machines if len(name) > len(rest))
    return _Node(domain, exists=below)  # "rack1" exists where "n3.rack1" does (RFC 8020)


def _host(rest: Labels, known: Names, book: AddressBook, own: Own) -> tuple[tuple[int, RD], ...] | None:
    """Address records of a machine or of ourselves; None for no such name."""
    if rest == (known.server,) or (rest == (METALDATA,) and known.metadata):
        return _addresses(own.told)
    machine = _machine(rest, known)
    return _addresses(addresses(machine, book)) if machine is not None else None


def _machine(rest: Labels, known: Names) -> Machine | None:
    ident = known.machines.get(rest)
    if ident is None and len(rest) == 1 and rest[0].count(b"-") == 5:
        text = rest[0].decode("ascii", "replace")
        ident = known.view.by_mac.get(parse_mac(text)) if looks_like_mac(text) else None
    return known.view.machines.get(ident) if ident is not None else None


def _addresses(texts: tuple[str, ...]) -> tuple[tuple[int, RD], ...]:
    return tuple((dns.AAAA, RdAAAA(text)) if ":" in text else (dns.A, RdA(text)) for text in texts)


def _service(rest: Labels, known: Names, book: AddressBook, own: Own) -> _Node | None:
    """`_http._tcp`, `_http._tcp.NAME`, and the names between that have no records of their own."""
    under = [n for n, label in enumerate(rest) if not label.startswith(b"_")]
    service, host = (rest[: under[0]], rest[under[0] :]) if under else (rest, ())
    ident = known.machines.get(host) if host else None
    if host and ident is None:
        return None
    listed = [s for s in known.services.get(service, ()) if ident in (None, s.machine)]
    records, extra = [], []
    for one in listed:
        name, found = _target(one.machine, known, book, own)
        if name:
            records.append((dns.SRV, RdSRV(0, 0, one.port, DNSLabel(list(name)))))
            extra.append((name, found))
    if records:
        return _Node(known.domain, tuple(records), extra=tuple(extra))
    parent = [name for name, found in known.services.items() if len(service) == 1 and name[1:] == service]
    ours = any(ident in (None, s.machine) for name in parent for s in known.services[name])
    return _Node(known.domain, exists=ours)


def _target(ident: int, known: Names, book: AddressBook, own: Own) -> tuple[Labels, tuple[tuple[int, RD], ...]]:
    if ident == 0:
        return (known.server, *known.domain), _addresses(own.told)
    machine = known.view.machines.get(ident)
    if machine is None:
        return (), ()
    return host_name(machine, known), _addresses(addresses(machine, book))


def host_name(machine: Machine, known: Names) -> Labels:
    """The machine's full name; by its MAC when it has none that DNS can say."""
    labels = labels_of(machine.name) if machine.name else ()
    if not labels or known.machines.get(labels) != machine.id:
        labels = (machine.mac.replace(":", "-").encode(),)
    return (*labels, *known.domain)


def _reverse(labels: Labels, known: Names, book: AddressBook, own: Own) -> _Node | None:
    address = address_of(labels)
    if not address:
        return None
    if address in own.all:
        target: Labels = (known.server, *known.domain)
    else:
        ident = known.fixed.get(address)
        mac = book.mac_of(address)
        if ident is None and mac is not None:
            ident = known.view.by_mac.get(mac)
        machine = known.view.machines.get(ident) if ident is not None else None
        if machine is None or address not in addresses(machine, book):
            return None
        target = host_name(machine, known)
    return _Node(labels, ((dns.PTR, RdPTR(DNSLabel(list(target)))),))


def address_of(labels: Labels) -> str:
    """The address that a reverse name spells (RFC 1035 3.5, RFC 3596 2.5); "" if it spells none."""
    parts = [label.decode("ascii", "replace") for label in labels[:-2][::-1]]
    try:
        if labels[-2:] == _REVERSE[0] and len(parts) == 4:
            return str(ipaddress.IPv4Address(".".join(parts)))
        if labels[-2:] == _REVERSE[1] and len(parts) == 32 and all(len(part) == 1 for part in parts):
            return str(ipaddress.IPv6Address(int("".join(parts), 16)))
    except ValueError:
        pass
    return ""
