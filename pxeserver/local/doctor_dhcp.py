"""Which DHCP servers answer on a wire: one DISCOVER as a booting machine sends it, and the offers it brings.

Sent and received as whole IP packets (packet(7)): it works beside a DHCP client of this host, on an interface that has
no address, and our own server never hears it.
"""

from __future__ import annotations

import secrets
import socket
import time
from dataclasses import dataclass

from pxeserver.errors import Refused
from pxeserver.wire import dhcp, ip
from pxeserver.wire.reader import WireError

_ETH_P_IP = 0x0800
_EVERYONE = b"\xff" * 6
# an x86-64 UEFI client: what servers that offer boot files look for (RFC 4578)
_CLASS = b"PXEClient:Arch:00007:UNDI:003000"
_ASKED = bytes((1, 3, 6, 12, 15, 43, 54, 60, 66, 67, 97))


@dataclass(frozen=True, slots=True)
class Offer:
    """An answer to the DISCOVER: the address offered ("" in a proxy offer), and what it says to load."""

    server: str
    hands_out: str
    boot: str
    pxe: bool  # it calls itself a PXE server (option 60)
    next_server: str = ""  # the header's siaddr: where a GRUB looks for its configuration

    @property
    def says(self) -> str:
        """What it tells a machine about booting, for people; "" if nothing."""
        if self.boot:
            return f'tells machines to load "{self.boot}"'
        return "calls itself a PXE server" if self.pxe else ""


def discover(xid: bytes, mac: bytes) -> dhcp.Packet:
    """What a UEFI machine says first."""
    options = (
        (dhcp.OPT_MESSAGE_TYPE, bytes((dhcp.DISCOVER,))),
        (dhcp.OPT_MAX_SIZE, (1472).to_bytes(2, "big")),
        (55, _ASKED),
        (dhcp.OPT_UUID, b"\0" + bytes(10) + mac),
        (dhcp.OPT_UNDI, b"\x01\x03\x00"),
        (dhcp.OPT_ARCH, b"\x00\x07"),
        (dhcp.OPT_VENDOR_CLASS, _CLASS),
    )
    return dhcp.Packet(dhcp.BOOTREQUEST, xid, mac, options, secs=4, flags=dhcp.BROADCAST)


def offer_of(packet: dhcp.Packet) -> Offer:
    """The facts of an offer that matter to a booting machine."""
    server = packet.option(dhcp.OPT_SERVER_ID) or b""
    name = packet.option(dhcp.OPT_BOOTFILE) or packet.file
    return Offer(
        server=socket.inet_ntoa(server) if len(server) == 4 else packet.siaddr,
        hands_out="" if packet.yiaddr == "0.0.0.0" else packet.yiaddr,
        boot=name.decode("ascii", "replace"),
        next_server="" if packet.siaddr == "0.0.0.0" else packet.siaddr,
        pxe=(packet.option(dhcp.OPT_VENDOR_CLASS) or b"").startswith((b"PXEClient", b"HTTPClient")),
    )


def ask(interface: str, seconds: float = 3.0) -> tuple[Offer, ...]:
    """Send a DISCOVER out of `interface` and collect offers for so long. Needs root (Refused "not-root")."""
    xid = secrets.token_bytes(4)
    mac = b"\x02" + secrets.token_bytes(5)  # locally administered: no vendor's card
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
    except PermissionError:
        raise Refused("not-root", "asking for DHCP servers needs root", hint="run it with sudo") from None
    found = []
    with sock:
        sock.bind((interface, _ETH_P_IP))
        sock.sendto(
            ip.pack(discover(xid, mac).pack(), ("0.0.0.0", 68), ("255.255.255.255", 67)),
            (interface, _ETH_P_IP, 0, 0, _EVERYONE),
        )
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                raw = sock.recv(65535)
            except TimeoutError:
                break
            packet = _reply(raw)
            if packet is not None and packet.xid == xid and packet.message == dhcp.OFFER:
                found.append(offer_of(packet))
    return tuple(found)


def _reply(raw: bytes) -> dhcp.Packet | None:
    """The DHCP packet inside an IP packet to port 68; None for any other."""
    found = ip.unpack(raw)
    if found is None or found[2][1] != 68:
        return None
    try:
        return dhcp.parse(found[0])
    except WireError:
        return None
