"""The host's interfaces and addresses, followed by netlink; which address of ours a machine should be told.

RTM_GETLINK and RTM_GETADDR dumps (rtnetlink(7)); the kernel's notices say when to dump again.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pxeserver.mac import Mac, looks_like_mac, mac_from_bytes, parse_mac

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, pid
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_ADDR = struct.Struct("=BBBBi")  # ifaddrmsg: family, prefix length, flags, scope, index
_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_GETADDR, _RTM_NEWNEIGH, _RTM_GETNEIGH = 16, 18, 20, 22, 28, 30
_NEIGH_SIZE, _NDA_DST, _NDA_LLADDR = 12, 1, 2  # ndmsg and its attributes
_GLOBAL6 = ipaddress.IPv6Network("2000::/3")
_DONE, _ERROR = 3, 2
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_IFLA_IFNAME, _IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 3, 1, 2, 8
_IFF_UP, _IFF_LOOPBACK, _IFA_F_SECONDARY = 1, 8, 1
_PERMANENT = 0x80  # somebody wrote it down, no router advertised it
_UNUSABLE6 = 0x40 | 0x08 | 0x20 | 0x01  # tentative, failed its check, deprecated, temporary (RFC 8981)
_NOTICES = 0x1 | 0x10 | 0x100  # RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface. `addresses` are its IPv4 ones, the primary first; `addresses6` the IPv6 ones that are to stay,
    first those that somebody set, then those that follow from router advertisements.
    """

    index: int
    name: str
    up: bool
    loopback: bool
    addresses: tuple[ipaddress.IPv4Interface, ...] = ()
    addresses6: tuple[ipaddress.IPv6Interface, ...] = ()
    texts: tuple[str, ...] = field(init=False, repr=False, compare=False)  # of `addresses`: every packet asks for them

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(str(address.ip) for address in self.addresses))

    @property
    def own(self) -> tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]:
        """All of them."""
        return (*self.addresses, *self.addresses6)


def _messages(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    while True:
        raw = sock.recv(1 << 18)
        while len(raw) >= _HEADER.size:
            length, kind, _, _, _ = _HEADER.unpack_from(raw)
            if kind in (_DONE, _ERROR) or length < _HEADER.size:
                return
            yield kind, raw[_HEADER.size : length]
            raw = raw[(length + 3) & ~3 :]


def _attributes(raw: bytes) -> dict[int, bytes]:
    found = {}
    while len(raw) >= 4:
        length, kind = struct.unpack_from("=HH", raw)
        if length < 4:
            break
        found[kind] = raw[4:length]
        raw = raw[(length + 3) & ~3 :]
    return found


def _dump(kind: int, family: int = socket.AF_UNSPEC) -> list[tuple[int, bytes]]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as sock:
        sock.settimeout(2)
        sock.send(_HEADER.pack(_HEADER.size + 1, kind, _DUMP, 1, 0) + bytes([family]))
        return list(_messages(sock))


def read_interfaces() -> dict[int, Interface]:
    """Every interface of this network namespace by index, as it is now."""
    addresses: dict[int, list[tuple[bool, ipaddress.IPv4Interface]]] = {}
    addresses6: dict[int, list[tuple[bool, ipaddress.IPv6Interface]]] = {}
    for kind, body in _dump(_RTM_GETADDR):
        if kind != _RTM_NEWADDR:
            continue
        family, prefix, flags, _, index = _ADDR.unpack_from(body)
        found = _attributes(body[_ADDR.size :])
        raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
        if family == socket.AF_INET and raw is not None and len(raw) == 4:
            address = ipaddress.IPv4Interface((raw, prefix))
            addresses.setdefault(index, []).append((bool(flags & _IFA_F_SECONDARY), address))
        if family == socket.AF_INET6 and raw is not None and len(raw) == 16 and not flags & _UNUSABLE6:
            address6 = ipaddress.IPv6Interface((raw, prefix))
            addresses6.setdefault(index, []).append((not flags & _PERMANENT, address6))
    links: dict[int, Interface] = {}
    for kind, body in _dump(_RTM_GETLINK):
        if kind != _RTM_NEWLINK:
            continue
        _, _, index, flags, _ = _LINK.unpack_from(body)
        name = _attributes(body[_LINK.size :]).get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("ascii", "replace")
        own = tuple(a for _, a in sorted(addresses.get(index, ()), key=lambda pair: pair[0]))
        own6 = tuple(a for _, a in sorted(addresses6.get(index, ()), key=lambda pair: pair[0]))
        links[index] = Interface(index, name, bool(flags & _IFF_UP), bool(flags & _IFF_LOOPBACK), own, own6)
    return links


def watch() -> socket.socket:
    """A non-blocking netlink socket that becomes readable when a link or an address changes."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    sock.bind((0, _NOTICES))
    return sock


def serving(found: Mapping[int, Interface], names: Sequence[str]) -> list[Interface]:
    """The interfaces to answer on."""
    return [interface for interface in found.values() if serves(interface, names)]


def serves(interface: Interface, names: Sequence[str]) -> bool:
    """True for those named, else for every one that is up but the loopback."""
    return interface.name in names if names else interface.up and not interface.loopback


def own_address(interface: Interface, *, asked: str = "", relay: str = "", client: str = "") -> str:
    """The one in the relay's subnet, the one that was asked by unicast, the one in the client's subnet, the primary
    one; "" when there is none. `client` is the sender's address, "" or 0.0.0.0 if it has none yet."""
    own = interface.texts
    beside = _beside(interface, relay)
    if beside:
        return beside
    if asked in own:
        return asked
    return _beside(interface, client) or (own[0] if own else "")


def _beside(interface: Interface, other: str) -> str:
    """Our address in the subnet of `other`, "" if there is none."""
    if not other or other == "0.0.0.0":
        return ""
    address = ipaddress.IPv4Address(other)
    return next((str(mine.ip) for mine in interface.addresses if address in mine.network), "")


def own_address6(interface: Interface, *, asked: str = "") -> str:
    """The one that was asked by unicast, else one that a URL can name: global before unique local (RFC 4193); "" when
    there is only a link-local one."""
    own = [a.ip for a in interface.addresses6 if not a.ip.is_link_local]
    if asked in map(str, own):
        return asked
    return next((str(ip) for ip in sorted(own, key=lambda ip: ip not in _GLOBAL6)), "")


def neighbour(address: str, table: Path = Path("/proc/net/arp")) -> Mac | None:
    """The MAC that the kernel knows for an address on a local network, None behind a router or when it knows none."""
    if ":" in address:
        return _neighbour6(address)
    try:
        return _arp(address, _arp_rows(table, int(time.monotonic()))) or _arp(address, table.read_bytes())
    except OSError:
        return None


@lru_cache(maxsize=1)
def _arp_rows(table: Path, second: int) -> bytes:
    """Read once a second at most for those that are in it: a thousand machines that boot make a long table."""
    return table.read_bytes()


def _arp(address: str, rows: bytes) -> Mac | None:
    row = rows[rows.find(b"\n%s " % address.encode()) + 1 :].partition(b"\n")[0].decode("latin-1").split()
    mac = row[3] if len(row) > 3 and row[0] == address else ""
    return parse_mac(mac) if looks_like_mac(mac) and mac != "00:00:00:00:00:00" else None


def _neighbour6(address: str) -> Mac | None:
    wanted = ipaddress.IPv6Address(address).packed
    for kind, body in _dump(_RTM_GETNEIGH, socket.AF_INET6):
        if kind == _RTM_NEWNEIGH:
            found = _attributes(body[_NEIGH_SIZE:])
            if found.get(_NDA_DST) == wanted and len(found.get(_NDA_LLADDR, b"")) == 6:
                return mac_from_bytes(found[_NDA_LLADDR])
    return None
