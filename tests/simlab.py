"""Worlds for simulated machines that need no sockets: a clock of their own, servers that are functions of packets."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pxeserver.sim.effects import (
    Broadcast,
    Clock,
    Close,
    Fetch,
    Fetched,
    Heard,
    Listen,
    Open,
    Peer,
    Play,
    Say,
    Send,
    Sleep,
    Use,
)
from pxeserver.wire import dhcp, pxe, tftp

T = TypeVar("T")

LAN, PROXY, ADDRESS = "10.77.0.1", "10.77.0.2", "10.77.0.100"
SCRIPT = f"http://{PROXY}/boot.ipxe"
MAC = "52:54:00:00:00:01"
Answer = tuple[float, bytes, Peer]  # seconds until it arrives, payload, sender


def program(machine: int = 0x8664, size: int = 5000, sections: Iterable[str] = ()) -> bytes:
    """The beginning of an EFI program, as long as wanted."""
    names = b"".join(name.encode().ljust(40, b"\0") for name in sections)
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", machine, len(names) // 40, 0, 0, 0, 0xF0, 0)
    return (head.ljust(0x80, b"\0") + coff + bytes(0xF0) + names).ljust(size, b"\x90")


class Server(Protocol):
    def dhcp(self, packet: dhcp.Packet, port: int) -> Iterable[tuple[float, bytes, Peer]]: ...
    def udp(self, payload: bytes, to: Peer, sender: Peer) -> Iterable[tuple[float, bytes, Peer]]: ...


@dataclass
class Lan:
    """The site's DHCP server: one address, nothing about booting, and itself as siaddr, as dnsmasq says."""

    address: str = ADDRESS
    extra: tuple[tuple[int, bytes], ...] = ()
    file: bytes = b""
    broken: str = ""  # "no-ack", "nak"

    def dhcp(self, packet: dhcp.Packet, port: int) -> list[Answer]:
        message = {dhcp.DISCOVER: dhcp.OFFER, dhcp.REQUEST: dhcp.ACK}.get(packet.message)
        if port != 67 or message is None or (message == dhcp.ACK and self.broken == "no-ack"):
            return []
        if message == dhcp.ACK and self.broken == "nak":
            message = dhcp.NAK
        options = ((53, bytes([message])), (54, socket.inet_aton(LAN)), (1, b"\xff\xff\xff\0"), *self.extra)
        reply = dhcp.Packet(
            2, packet.xid, packet.chaddr, options, yiaddr=self.address, siaddr=LAN, file=self.file, flags=packet.flags
        )
        return [(0.002, reply.pack(), (LAN, 67))]

    def udp(self, payload: bytes, to: Peer, sender: Peer) -> list[Answer]:
        return []


@dataclass
class Proxy:
    """A proxyDHCP with every field switchable. `no` leaves out 60, 54, 97, siaddr, file."""

    files: Mapping[str, str] = field(
        default_factory=lambda: {"bios": "undionly.kpxe", "efi": "snponly.efi", "ipxe": SCRIPT, "http": ""}
    )
    no: frozenset[str] = frozenset()
    vendor: bytes = b""  # option 43
    vendor_arch: int | None = None  # ... to this architecture only
    opt66: bool = False
    opt67: bool = False
    sname: bool = False
    silent_4011: bool = False
    only_4011: bool = False
    delay: float = 0.0
    own: str = PROXY
    port_4011: int = 4011  # where its answers of 4011 come from
    server_id: str = ""

    def dhcp(self, packet: dhcp.Packet, port: int) -> list[Answer]:
        wanted = dhcp.DISCOVER if port == 67 else dhcp.REQUEST
        if packet.message != wanted or (port == 4011 and self.silent_4011):
            return []
        raw = self.reply(packet, port)
        return [(self.delay, raw, (self.own, 67 if port == 67 else self.port_4011))] if raw else []

    def udp(self, payload: bytes, to: Peer, sender: Peer) -> list[Answer]:
        return self.dhcp(dhcp.parse(payload), 4011) if to == (self.own, 4011) else []

    def file_for(self, packet: dhcp.Packet) -> str:
        if (packet.option(60) or b"").startswith(b"HTTPClient"):
            return self.files["http"]
        if packet.option(77):
            return self.files["ipxe"]
        arch = int.from_bytes((packet.option(93) or b"\0\0")[:2], "big")
        return self.files["bios" if arch == 0 else "efi"]

    def reply(self, packet: dhcp.Packet, port: int) -> bytes:
        file, vendor_class = self.file_for(packet), packet.option(60) or b""
        if not file:
            return b""
        hide = self.only_4011 and port == 67
        own = socket.inet_aton(self.own)
        options: list[tuple[int, bytes]] = [(53, bytes([dhcp.OFFER if port == 67 else dhcp.ACK]))]
        if "54" not in self.no:
            options.append((54, socket.inet_aton(self.server_id or self.own)))
        if "60" not in self.no:
            options.append((60, vendor_class.split(b":")[0]))
        if "97" not in self.no and packet.option(97):
            options.append((97, packet.option(97) or b""))
        if self.vendor and self.vendor_arch in (None, int.from_bytes(packet.option(93) or b"", "big")):
            options.append((43, self.vendor))
        if self.opt66 and not hide:
            options.append((66, self.own.encode()))
        if self.opt67 and not hide:
            options.append((67, file.encode()))
        reply = dhcp.Packet(
            2,
            packet.xid,
            packet.chaddr,
            tuple(options),
            flags=dhcp.BROADCAST,
            ciaddr=packet.ciaddr,
            giaddr=packet.giaddr,
            siaddr="0.0.0.0" if "siaddr" in self.no or hide else socket.inet_ntoa(own),
            sname=self.own.encode() if self.sname and not hide else b"",
            file=b"" if "file" in self.no or hide else file.encode(),
        )
        return reply.pack()


@dataclass
class Tftp:
    """TFTP of the files given: one block at a time, no options unless `options`; the machine repeats what is lost."""

    files: Mapping[str, bytes]
    own: str = PROXY
    options: bool = True
    spoil: Callable[[bytes], bytes] = lambda raw: raw  # what becomes of each datagram
    delay: float = 0.001
    seen: list[tftp.Request] = field(default_factory=list)
    _running: dict[Peer, tuple[bytes, tftp.Terms, int]] = field(default_factory=dict)
    _ports: itertools.count[int] = field(default_factory=lambda: itertools.count(30_000))
    _port_of: dict[Peer, int] = field(default_factory=dict)

    def dhcp(self, packet: dhcp.Packet, port: int) -> list[Answer]:
        return []

    def udp(self, payload: bytes, to: Peer, sender: Peer) -> list[Answer]:
        if to[0] != self.own or (to[1] != 69 and to[1] != self._port_of.get(sender)):
            return []
        out = self._request(payload, sender) if to[1] == 69 else self._go_on(payload, sender)
        return [(self.delay, self.spoil(raw), (self.own, self._port_of[sender])) for raw in out]

    def _request(self, payload: bytes, sender: Peer) -> list[bytes]:
        request = tftp.parse(payload)
        assert isinstance(request, tftp.Request)
        self.seen.append(request)
        self._port_of.setdefault(sender, next(self._ports))
        content = self.files.get(request.path or "")
        if content is None:
            return [tftp.pack_error(tftp.NOT_FOUND, "no such file")]
        terms = tftp.negotiate(request, len(content), blksize_max=1468, windowsize_max=64)
        if not self.options:
            terms = tftp.Terms()
        self._running[sender] = content, terms, 0
        return [tftp.pack_oack(terms.oack)] if terms.oack else self._window(sender)

    def _go_on(self, payload: bytes, sender: Peer) -> list[bytes]:
        message = tftp.parse(payload)
        if isinstance(message, tftp.Ack):
            content, terms, _ = self._running[sender]
            self._running[sender] = content, terms, message.block
            return self._window(sender)
        return []

    def _window(self, sender: Peer) -> list[bytes]:
        content, terms, acked = self._running[sender]
        last = len(content) // terms.blksize + 1
        numbers = range(acked + 1, min(acked + terms.windowsize, last) + 1)
        return [tftp.pack_data(n, content[(n - 1) * terms.blksize : n * terms.blksize]) for n in numbers]


@dataclass
class World:
    """Plays a machine in virtual time. `web` maps (method, URL) or a URL to an answer; `lose` drops datagrams."""

    servers: tuple[Server, ...]
    web: Mapping[str, bytes | Fetched] = field(default_factory=dict)
    fates: Callable[[], tuple[float, ...]] = lambda: (0.0,)
    now: float = 0.0
    said: list[Say] = field(default_factory=list)
    fetched: list[Fetch] = field(default_factory=list)
    sent: list[dhcp.Packet] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    _coming: list[tuple[float, int, int, bytes, Peer]] = field(default_factory=list)
    _address: str = ""
    _ports: itertools.count[int] = field(default_factory=lambda: itertools.count(40_000))

    def play(self, play: Play[T]) -> T:
        answer: Any = None
        while True:
            try:
                effect = play.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            answer = self._do(effect)

    def text(self) -> str:
        return "\n".join(f"{say.stage}: {say.text}" for say in self.said)

    def _do(self, effect: object) -> Any:
        match effect:
            case Clock():
                return self.now
            case Sleep(seconds):
                self.now += seconds
            case Say():
                self.said.append(effect)
            case Open(port):
                return port or next(self._ports)
            case Close(port):
                self._coming = [one for one in self._coming if one[2] != port]
                heapq.heapify(self._coming)
            case Use(address, _):
                self._address = address
                return address
            case Broadcast(payload):
                self.sent.append(dhcp.parse(payload))
                self._through(lambda s: s.dhcp(dhcp.parse(payload), 67), 68)
            case Send(payload, to, port):
                if to[1] == 4011:
                    self.sent.append(dhcp.parse(payload))
                self._through(lambda s: s.udp(payload, to, (self._address, port)), port)
            case Listen(port, until):
                return self._listen(port, until)
            case Fetch():
                self.fetched.append(effect)
                return self._fetch(effect)
        return None

    def _through(self, ask: Callable[[Server], Iterable[Answer]], port: int) -> None:
        """The datagram there and the answers back, each with its own fate."""
        for there in self.fates():
            for server in self.servers:
                for delay, raw, peer in ask(server):
                    for back in self.fates():
                        at = self.now + there + delay + back
                        heapq.heappush(self._coming, (at, next(self._order), port, raw, peer))

    def _listen(self, port: int, until: float) -> Heard | None:
        mine = [one for one in self._coming if one[2] == port and one[0] <= until]
        if not mine:
            self.now = max(self.now, until)
            return None
        first = min(mine)
        self._coming.remove(first)
        heapq.heapify(self._coming)
        self.now = max(self.now, first[0])
        return Heard(first[3], first[4], self.now)

    def _fetch(self, wanted: Fetch) -> Fetched:
        found = self.web.get(f"{wanted.method} {wanted.url}", self.web.get(wanted.url.partition("?")[0]))
        if found is None:
            return Fetched(404)
        if isinstance(found, Fetched):
            return found
        headers = {"content-length": str(len(found)), "content-type": "application/octet-stream"}
        body = b"" if wanted.method == "HEAD" else found
        return Fetched(200, headers, len(body), hashlib.sha256(body).hexdigest(), body[: wanted.keep])


DIRECT = pxe.DIRECT
NO_4011: dict[str, Any] = {"silent_4011": True}
# What a proxy offer must contain: measured against iPXE 1.0, the same as a plain ROM, and OVMF.
# One line: what the proxy does; then whether iPXE's ROM, a plain BIOS ROM and UEFI find their file.
TABLE: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("file and siaddr, 60, 54, 97, 4011", {}, "ok", "ok", "ok"),
    ("no 60", {"no": {"60"}}, "no", "no", "no"),
    ("no 60, 43", {"no": {"60"}, "vendor": DIRECT, **NO_4011}, "no", "no", "no"),
    ("no 97", {"no": {"97"}}, "ok", "ok", "ok"),
    ("no 97, 43", {"no": {"97"}, "vendor": DIRECT, **NO_4011}, "ok", "ok", "ok"),
    ("no 54", {"no": {"54"}, **NO_4011}, "ok", "ok", "no"),
    ("no 54, 43", {"no": {"54"}, "vendor": DIRECT, **NO_4011}, "ok", "ok", "no"),
    ("siaddr 0", {"no": {"siaddr"}, **NO_4011}, "no", "no", "no"),
    ("siaddr 0, 43", {"no": {"siaddr"}, "vendor": DIRECT, **NO_4011}, "no", "no", "ok"),
    ("siaddr 0, 66, 43", {"no": {"siaddr"}, "opt66": True, "vendor": DIRECT, **NO_4011}, "no", "no", "ok"),
    ("siaddr 0, sname, 43", {"no": {"siaddr"}, "sname": True, "vendor": DIRECT, **NO_4011}, "no", "no", "ok"),
    ("67 instead of file", {"no": {"file"}, "opt67": True, **NO_4011}, "ok", "ok", "no"),
    ("67 instead of file, 43", {"no": {"file"}, "opt67": True, "vendor": DIRECT, **NO_4011}, "ok", "ok", "ok"),
    ("66 and 67 only", {"no": {"siaddr", "file"}, "opt66": True, "opt67": True, **NO_4011}, "no", "no", "no"),
    (
        "66 and 67 only, 43",
        {"no": {"siaddr", "file"}, "opt66": True, "opt67": True, "vendor": DIRECT, **NO_4011},
        *("no", "no", "ok"),
    ),
    ("file in the offer, nothing on 4011, no 43", NO_4011, "ok", "ok", "no"),
    ("file in the offer, 43", {"vendor": DIRECT, **NO_4011}, "ok", "ok", "ok"),
    ("empty offer, file on 4011", {"only_4011": True}, "ok", "ok", "ok"),
    ("2 s late, 43", {"delay": 2.0, "vendor": DIRECT, **NO_4011}, "ok", "ok", "ok"),
    ("5 s late, 43", {"delay": 5.0, "vendor": DIRECT, **NO_4011}, "no", "no", "on retry"),
]
