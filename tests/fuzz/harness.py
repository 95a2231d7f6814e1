"""What must hold for any bytes at all, one function per parser: they return, or raise what shows a bug.

Run by atheris (`make fuzz SECONDS=600`), by hypothesis in test_fuzz.py, and on seeds; each takes bytes alone.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

from dnslib import EDNS0, DNSRecord, EDNSOption

from pxeserver.boot import answer as answers
from pxeserver.boot import facts, zone
from pxeserver.boot.addresses import AddressBook
from pxeserver.boot.answer import Arrival, boot_url
from pxeserver.boot.answer6 import answer6
from pxeserver.boot.decide import decide
from pxeserver.boot.quirks import load_quirks
from pxeserver.boot.request import request_of
from pxeserver.boot.request6 import mac_of6, request_of6
from pxeserver.config import Boot, Config, Dhcp6, Dns, Metadata
from pxeserver.local.doctor_dhcp import offer_of
from pxeserver.model import FleetView, Machine, Pin, Recent
from pxeserver.serve import httpwire
from pxeserver.wire import dhcp, dhcp6, dns, ip, pxe, reader, tftp

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import shells  # noqa: E402 - beside this file, which is no package

CAPTURES = HERE.parent / "captures"
OWN, BLKSIZE, WINDOW = "10.77.0.1", 1468, 64
OWN6, PEER6 = "fd77::1", "fe80::5054:ff:fe77:9"
_CONFIG = Config(dhcp6=Dhcp6(mode="proxy"), boot=Boot(loaders={"arm64": "snponly-arm64.efi", "rpi": "start4.elf"}))
_QUIRKS = load_quirks()
# What the machine did before and how it is pinned: the input's length chooses.
_PASTS = (
    None,
    Recent("00" * 8, 0.0, 0.0, style="binl", discovers=3),
    Recent("00" * 8, 0.0, 0.0, style="pxe10", loader="undionly.kpxe", loader_at=1.0, loader_cycles=1),
    Recent("00" * 8, 0.0, 0.0, style="late", loader="snponly.efi", loader_at=1.0, loader_cycles=2),
)
_PINS = (Pin(), Pin(style="options"), Pin(loader="undionly.kpxe"))


def fuzz_dhcp(data: bytes) -> None:
    """A packet or a WireError; packed again it says the same; what is answered is a reply without an address."""
    try:
        packet = dhcp.parse(data)
    except reader.WireError:
        assert len(data) < 240 or data[236:240] != dhcp.MAGIC or data[0] not in (1, 2) or data[2] > 16, "a packet"
        return
    assert data[2] <= 16 and packet.chaddr == data[28 : 28 + data[2]], "the hardware address"
    _reads_all(packet, data)
    again = None
    try:
        again = dhcp.parse(packet.pack())
    except reader.WireError:  # a field that is full to its last byte has no place for its NUL
        assert len(packet.file) > dhcp.FILE_MAX or len(packet.sname) > dhcp.SNAME_MAX
    if again is not None:
        assert dict(again.options) == dict(packet.options), "options survive"
        assert (again.file, again.sname, again.chaddr) == (packet.file, packet.sname, packet.chaddr)
        assert (again.xid, again.flags, again.giaddr) == (packet.xid, packet.flags, packet.giaddr)
    for port in (67, 4011):
        _answered(packet, port, _PASTS[len(data) % len(_PASTS)], _PINS[len(data) % len(_PINS)])


def _reads_all(packet: dhcp.Packet, data: bytes) -> None:
    """Options are those that a slow, plain reading finds."""
    want: dict[int, bytes] = {}
    _walk(data[240:], want)
    if not want.pop(dhcp.OPT_OVERLOAD, b""):
        for code, value in want.items():
            found = packet.option(code)
            assert found == (value.split(b"\0")[0] if code == dhcp.OPT_BOOTFILE else value), f"option {code}"
    for code in (dhcp.OPT_VENDOR_SPECIFIC, dhcp.OPT_IPXE, dhcp.OPT_RELAY):
        value = packet.option(code) or b""
        inner: dict[int, bytes] = {}
        _walk(value, inner)
        assert dict(dhcp.suboptions(value)) == inner, "sub-options"
    offer_of(packet)
    pxe.ipxe_features(packet.option(dhcp.OPT_IPXE) or b"")
    arch = packet.option(dhcp.OPT_ARCH) or b""
    assert pxe.pack_archs(pxe.archs(arch)) == arch[: len(arch) // 2 * 2], "every architecture"


def _walk(raw: bytes, into: dict[int, bytes]) -> None:
    while raw and raw[0] != 255:
        if raw[0] == 0:
            raw = raw[1:]
            continue
        if len(raw) < 2 or len(raw) < 2 + raw[1]:
            return
        into[raw[0]] = into.get(raw[0], b"") + raw[2 : 2 + raw[1]]
        raw = raw[2 + raw[1] :]


def _answered(packet: dhcp.Packet, port: int, past: Recent | None, pin: Pin) -> None:
    request = request_of(packet, port)
    if request is None:
        return
    assert packet.op == dhcp.BOOTREQUEST and re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", request.mac)
    view = FleetView(machines={1: Machine(1, "m", (request.mac,), pin=pin)}, by_mac={request.mac: 1})
    decision = decide(request, view, past, _CONFIG, 2.0, _QUIRKS)
    if decision.action != "answer":
        return
    arrival = Arrival(OWN, 2, port, "10.77.9.9", 4011)
    try:
        reply = answers.answer(packet, request, decision, arrival, boot_url(OWN, 8080, "T" * 62))
    except reader.WireError:
        return
    got = dhcp.parse(reply.payload)
    for code in (dhcp.OPT_RELAY, dhcp.OPT_UUID):
        assert got.option(code) == packet.option(code), f"option {code} comes back"
    assert (got.giaddr, got.chaddr, got.hops) == (packet.giaddr, packet.chaddr, packet.hops), "a relay knows its client"
    if packet.message == dhcp.DISCOVER:
        relay = packet.giaddr if packet.giaddr != "0.0.0.0" else ""
        want = (relay, 67) if relay else (packet.ciaddr, 68) if packet.ciaddr != "0.0.0.0" else ("255.255.255.255", 68)
    else:
        want = ("10.77.9.9", 4011)
    assert (reply.address, reply.port) == want, "where it goes"
    file = (got.file or got.option(dhcp.OPT_BOOTFILE) or b"").decode()
    if file:
        by_url = decision.kind == "script" or request.http
        assert file.startswith(f"http://{OWN}:8080/boot/") if by_url else file == decision.loader, "what to load"
    assert (got.op, got.yiaddr, got.xid) == (dhcp.BOOTREPLY, "0.0.0.0", packet.xid)
    assert got.option(dhcp.OPT_SERVER_ID) == bytes((10, 77, 0, 1)) and len(reply.payload) >= dhcp.MIN_PACKET


def fuzz_dhcp6(data: bytes) -> None:
    """A message or a WireError; packed again it is the same; what is answered has no address and finds its way back."""
    try:
        packet = dhcp6.parse(data)
    except reader.WireError:
        return
    if data[0] not in (dhcp6.RELAY_FORW, dhcp6.RELAY_REPL):
        assert packet.pack() == data, "every byte is kept"
        assert _plain_options6(data[4:]) == packet.options, "options are those that a plain reading finds"
    with contextlib.suppress(reader.WireError):
        dhcp6.addresses(packet)
    assert len(packet.relays) <= dhcp6.RELAYS_MAX
    if packet.relays:
        outer = packet.relays[0]
        assert (
            outer.hops,
            socket.inet_pton(socket.AF_INET6, outer.link) + socket.inet_pton(socket.AF_INET6, outer.peer),
        ) == (data[1], data[2:34])
    for port, peer in ((547, PEER6), (4011, "fe80::1")):  # the second does not tell a MAC
        mac = mac_of6(packet, peer)
        if mac is not None:
            assert re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", mac)
            _answered6(packet, mac, port)


def _plain_options6(raw: bytes) -> tuple[tuple[int, bytes], ...]:
    found = []
    while raw:
        size = raw[2] << 8 | raw[3]
        found.append((raw[0] << 8 | raw[1], raw[4 : 4 + size]))
        raw = raw[4 + size :]
    return tuple(found)


def _answered6(packet: dhcp6.Packet, mac: str, port: int) -> None:
    request = request_of6(packet, port, mac, OWN6)
    if request is None:
        return
    decision = decide(request, FleetView(), None, _CONFIG, 0.0, _QUIRKS)
    if decision.action != "answer":
        return
    reply = answer6(packet, request, decision, Arrival(OWN6, 2, port, PEER6, 546), boot_url(OWN6, 8080, "T" * 62))
    got = dhcp6.parse(reply.payload)
    assert (got.message, got.xid) == (dhcp6.ADVERTISE if packet.message == dhcp6.SOLICIT else dhcp6.REPLY, packet.xid)
    assert {code for code, _ in got.options} <= {1, 2, 16, 59}, "no address"
    assert got.relays == tuple(
        replace(r, options=tuple(o for o in r.options if o[0] == dhcp6.OPT_INTERFACE_ID)) for r in packet.relays
    ), "the way back"


def fuzz_tftp(data: bytes) -> None:
    """A message or a WireError; a name never leaves its folder; terms stay within what was asked and allowed."""
    try:
        message = tftp.parse(data)
    except reader.WireError:
        return
    if isinstance(message, tftp.Data):
        assert tftp.pack_data(message.block, message.payload) == data
    elif isinstance(message, tftp.Ack):
        assert tftp.pack_ack(message.block) == data[:4]
    elif isinstance(message, tftp.Request):
        _request(message)
        assert message.options == _plain_options(data[2:].split(b"\0")[2:], data.endswith(b"\0")), "its options"
    again = _packed(message)
    if again is not None:
        assert tftp.parse(again) == message, "a round trip"


def _plain_options(fields: list[bytes], closed: bool) -> tuple[tuple[str, str], ...]:
    """Names and values as a slow, plain reading finds them; what lacks a value is none."""
    texts = [field.decode("utf-8", "replace") for field in (fields[:-1] if closed else fields)]
    found: dict[str, str] = {}
    for name, value in zip(texts[::2], texts[1::2], strict=False):
        if not name:
            break
        found.setdefault(name.lower(), value)
    return tuple(found.items())


def _packed(message: tftp.Message) -> bytes | None:
    """The message as we would send it; None for text that is no UTF-8, which nobody packs."""
    if isinstance(message, tftp.Request):
        names = [name for name, _ in message.options]
        if "\ufffd" in message.filename + message.mode + "".join(names) or "" in names:
            return None
        options = dict(message.options)
        if len({name.lower() for name in options}) != len(options):
            return None
        return tftp.pack_request(message.filename, mode=message.mode, write=message.write, options=options)
    if isinstance(message, tftp.Oack):
        return tftp.pack_oack(message.options)
    return tftp.pack_error(message.code, message.message) if isinstance(message, tftp.Error) else None


def _request(request: tftp.Request) -> None:
    path = request.path
    if path is not None:
        parts = path.split("/")
        assert parts and not {"", ".", ".."} & set(parts), "a path of plain names"
        assert "\\" not in path and not any(ord(char) < 32 or ord(char) == 127 for char in path)
    terms = tftp.negotiate(request, 100_000, blksize_max=BLKSIZE, windowsize_max=WINDOW)
    assert 8 <= terms.blksize <= BLKSIZE and 1 <= terms.windowsize <= WINDOW
    asked = dict(request.options)
    for name, text in terms.oack:
        assert name in asked and text.isdigit(), "only what was asked is accepted"
        assert name in ("tsize", "timeout") or int(text) <= int(asked[name]), "never more than was asked"
        assert name != "timeout" or int(text) == int(asked[name])
    if not any(name == "blksize" for name, _ in terms.oack):
        assert terms.blksize == tftp.DEFAULT_BLKSIZE, "without an answer the block size is 512"


def fuzz_http(data: bytes) -> None:
    """A head or BadRequest with a 4xx or 505; its parts keep their promises; a range lies within its file."""
    try:
        head = httpwire.parse_head(data + b"\r\n\r\n")
    except httpwire.BadRequest as bad:
        assert 400 <= bad.status < 500 or bad.status == 505
        return
    assert head.path.startswith("/") and "//" not in head.path and "\0" not in head.path
    assert head.length >= 0 and len(head.target) <= httpwire.TARGET_MAX and len(head.headers) <= httpwire.HEADERS_MAX
    assert all(name == name.lower() and "\n" not in value and "\r" not in value for name, value in head.headers.items())
    parse_qsl(head.query, keep_blank_values=True)
    told = facts.parse(head.query)
    assert told is None or all(len(value) <= 200 for value in told.data.values())
    for size in (0, 1, 1000):
        _range(head.headers.get("range", head.query), size)
    raw = httpwire.pack_head(200, head.headers.items(), 0.0)
    assert raw.count(b"\r\n\r\n") == 1 and raw.endswith(b"\r\n\r\n"), "no header ends the head"


def _range(text: str, size: int) -> None:
    try:
        part = httpwire.parse_range(text, size)
    except httpwire.BadRequest as bad:
        assert bad.status == 416
        return
    if part is not None:
        assert 0 <= part.first < size and 0 < part.length <= size - part.first, "within the file"


def fuzz_ip(data: bytes) -> None:
    """A datagram or None; packed again it is found again."""
    found = ip.unpack(data)
    if found is not None:
        payload, source, target = found
        start = (data[0] & 15) * 4
        assert data[0] >> 4 == 4 and start >= 20 and data[9] == 17, "IPv4 with UDP"
        length = int.from_bytes(data[start + 4 : start + 6], "big") - 8
        assert (payload, len(payload)) == (data[start + 8 : start + 8 + length], length), "the whole datagram"
        raw = ip.pack(payload, source, target)
        assert ip.unpack(raw) == found
        pseudo = raw[12:20] + b"\0\x11" + len(raw[20:]).to_bytes(2, "big")
        assert _sums_up(raw[:20]) and _sums_up(pseudo + raw[20:]), "checksums that a card accepts"


def _sums_up(data: bytes) -> bool:
    """What is right adds up to a multiple of 65535."""
    data += b"\0" * (len(data) % 2)
    return sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)) % 0xFFFF == 0


def fuzz_dns(data: bytes) -> None:
    """A query or a WireError; the answer can be read by dnslib, fits, and repeats the question."""
    try:
        query = dns.parse(data)
    except reader.WireError:
        bare = dns.formerr(data)
        assert (bare is None) == (len(data) < 12 or data[2] >= 128), "an answer to what is a query"
        assert bare is None or (len(bare) == 12 and bare[:2] == data[:2] and bare[2] & 0x80)
        return
    assert data[2] < 128 and data[4:6] == b"\0\1" and dns.PLAIN_MAX <= query.size <= dns.EDNS_MAX
    assert query.question == data[12 : 12 + len(query.question)] and len(query.question) <= 255 + 4
    assert dns.packed_name(query.labels) + query.question[-4:] == query.question[:-4].lower() + query.question[-4:]
    assert all(0 < len(label) <= 63 for label in query.labels)
    found = zone.answer(query.labels, query.qtype, _NAMES, _BOOK, _OWN)
    if found is None:
        return
    inside = query.labels[-2:] == (b"rack", b"test")
    assert inside or found.rcode == dns.NOERROR, "beyond the domain there are only names that exist"
    end = 12 + len(query.question)
    for limit in (query.size, 0):
        raw = dns.reply(query, found, limit=limit)
        assert not limit or len(raw) <= limit, "a datagram of the size that was asked for"
        assert raw[12 : 12 + len(query.question)] == query.question and raw[:2] == query.ident
        record = DNSRecord.parse(raw[:12] + raw[12:end].translate(_SEVEN_BITS) + raw[end:])  # what dnslib reads
        assert bool(record.rr or record.header.tc) != bool(record.auth), "records, or the zone's SOA"


_SEVEN_BITS = bytes(n & 0x7F for n in range(256))
_MACHINES = {
    1: Machine(1, "web1", ("52:54:00:00:00:01",), vars={"srv": "_http._tcp 80", "address": "10.0.0.7 fd00::7"}),
    2: Machine(2, "n3.row1", ("52:54:00:00:00:02",)),
    3: Machine(3, "many", ("52:54:00:00:00:03",), vars={"address": ",".join(f"10.1.0.{n}" for n in range(1, 76))}),
}
_BOOK = AddressBook()
_BOOK.learn("52:54:00:00:00:02", "10.0.0.8", 1.0)
_OWN = zone.Own((OWN,), frozenset({OWN}))
_NAMES = zone.names(
    FleetView(1, _MACHINES, {m.mac: m.id for m in _MACHINES.values()}),
    Config(dns=Dns(enabled=True, domain="rack.test"), metadata=Metadata(enabled=True)),
    8080,
)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "dhcp": fuzz_dhcp,
    "dhcp6": fuzz_dhcp6,
    "tftp": fuzz_tftp,
    "http": fuzz_http,
    "ip": fuzz_ip,
    "tftpd": shells.fuzz_tftpd,
    "routes": shells.fuzz_routes,
    "dns": fuzz_dns,
}


def _dns_seeds() -> list[bytes]:
    asked = [("web1.rack.test", "A"), ("Many.rack.test", "A"), ("_http._tcp.rack.test", "SRV"), ("rack.test", "SOA")]
    asked += [("7.0.0.10.in-addr.arpa", "PTR"), ("52-54-00-00-00-02.rack.test", "ANY"), ("metaldata", "AAAA")]
    asked += [("n3.row1", "A"), ("x.rack.test", "A"), ("example.com", "TXT")]
    found = []
    for name, kind in asked:
        record = DNSRecord.question(name, kind)
        record.header.id = 0x1234
        found.append(bytes(record.pack()))
        record.add_ar(EDNS0(flags="do", udp_len=4096, opts=[EDNSOption(10, b"12345678")]))
        found.append(bytes(record.pack()))
    return found


def seeds(target: str) -> list[bytes]:
    """Good inputs to begin with: packets of real firmware, requests as they are sent; and what once found a bug."""
    found = [file.read_bytes() for file in sorted((HERE / "found" / target).glob("*"))]
    packets = [bytes.fromhex(file.read_text()) for file in sorted(CAPTURES.glob("*.hex"))]
    if target == "dhcp":
        return found + packets
    if target in ("tftpd", "routes"):
        return found + shells.seeds(target)
    if target == "dhcp6":
        messages = [bytes.fromhex(file.read_text()) for file in sorted((CAPTURES / "dhcp6").glob("*.hex"))]
        agent = dhcp6.Relay(1, "2001:db8::1", PEER6, ((dhcp6.OPT_INTERFACE_ID, b"eth7"), (79, b"\0\1abcdef")))
        wrapped = [replace(dhcp6.parse(message), relays=(agent,) * n) for message in messages for n in (1, 2)]
        wrapped.append(replace(wrapped[0], relays=(agent,) * (dhcp6.RELAYS_MAX + 1)))
        long = (dhcp6.OPT_CLIENT_ID, bytes.fromhex("00030001") + bytes(range(2, 10)))  # a DUID-LL that is no Ethernet's
        wrapped += [dhcp6.Packet(dhcp6.SOLICIT, b"xyz", (long,))]
        relayed = [packet.pack() for packet in wrapped]
        return found + messages + relayed
    if target == "ip":
        return found + [ip.pack(packet, ("0.0.0.0", 68), ("255.255.255.255", 67)) for packet in packets[:2]]
    if target == "dns":
        return found + _dns_seeds()
    if target == "tftp":
        options = {"tsize": "0", "blksize": "1468", "windowsize": "4", "timeout": "5"}
        return [
            *found,
            tftp.pack_request("snponly.efi", options=options),
            tftp.pack_request("\\boot\\x.0", mode="netascii", write=True),
            tftp.pack_request("../../etc/passwd"),
            tftp.pack_request("x", options={"blksize": "65464", "windowsize": "65535", "timeout": "255"}),
            tftp.pack_data(1, b"x" * 20),
            tftp.pack_ack(7),
            tftp.pack_error(8, "User aborted"),
            tftp.pack_oack({"blksize": "1432", "tsize": "9"}),
        ]
    lines = (
        "GET /boot/T/script.ipxe?mac=52:54:00:12:34:56&platform=efi&memsize=1024 HTTP/1.1\r\nHost: a:8080",
        "HEAD //b/0123/kernel?boot=x HTTP/1.0\r\nConnection: keep-alive\r\nRange: bytes=0-99",
        "POST http://a/boot/T/event HTTP/1.1\r\nContent-Length: 12\r\nExpect: 100-continue",
        "GET /%2e%2e/%00x HTTP/1.1\r\nRange: bytes=-5\r\nRange: bytes=5-",
    )
    return found + [line.encode() for line in lines]
