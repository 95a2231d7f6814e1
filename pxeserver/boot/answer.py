"""The bytes of an answer. Never an address: yiaddr is 0 in everything that leaves here. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pxeserver.boot import uki
from pxeserver.boot.decide import Decision
from pxeserver.boot.request import BootRequest
from pxeserver.boot.styles import STYLES
from pxeserver.wire import dhcp, pxe

SCRIPT = "script.ipxe"
NOWHERE = "0.0.0.0"
EVERYONE = "255.255.255.255"
CLIENT_PORT, SERVER_PORT = 68, 67


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a packet came in. `own_ip` is our address towards the client, `peer_ip` the sender (0.0.0.0: none yet)."""

    own_ip: str
    ifindex: int
    port: int  # local: 67 or 4011
    peer_ip: str = NOWHERE
    peer_port: int = CLIENT_PORT


@dataclass(frozen=True, slots=True)
class Reply:
    """Send `payload` from the local port it came to, to address:port; a broadcast goes out of the arrival interface."""

    payload: bytes
    address: str
    port: int


def url_host(address: str) -> str:
    """An address as URLs have it: IPv6 in brackets (RFC 3986)."""
    return f"[{address}]" if ":" in address else address


def boot_url(own_ip: str, http_port: int, token: str) -> str:
    """`http://ADDR:PORT/boot/TOKEN`, the root of everything that belongs to one boot (and of `pxeserver.url=`)."""
    return f"http://{url_host(own_ip)}:{http_port}/boot/{token}"


def loader_url(url: str, loader: str) -> str:
    """Where a loader is fetched from by HTTP; `url` as `boot_url` makes it."""
    return f"{url}/loader/{loader}"


def boot_file(request: BootRequest, decision: Decision, url: str) -> str:
    """What the machine is told to load: a URL, or a name on our TFTP server."""
    if decision.kind == "script":
        return f"{url}/{SCRIPT}"
    if decision.kind == "image":
        base, _, token = url.rpartition("/boot/")
        name = uki.path(decision.uki)
        return f"{base}/{name}?boot={token}" if request.http else name
    return loader_url(url, decision.loader) if request.http else decision.loader


def answer(packet: dhcp.Packet, request: BootRequest, decision: Decision, arrival: Arrival, url: str) -> Reply:
    """OFFER to a DISCOVER, ACK to anything else. `url` is the boot's `boot_url`.

    The same arguments give the same bytes. Option 54 and siaddr are both set: EDK2 wants the one, iPXE the other.
    """
    offer = packet.message == dhcp.DISCOVER
    style = STYLES[decision.style]
    name = boot_file(request, decision, url).encode("ascii")
    give_file = style.file or not offer
    in_header = give_file and len(name) <= dhcp.FILE_MAX
    options: list[tuple[int, bytes]] = [
        (dhcp.OPT_MESSAGE_TYPE, bytes((dhcp.OFFER if offer else dhcp.ACK,))),
        (dhcp.OPT_SERVER_ID, _packed(arrival.own_ip)),
        (dhcp.OPT_VENDOR_CLASS, request.vendor),
    ]
    uuid = packet.option(dhcp.OPT_UUID)
    if uuid is not None:
        options.append((dhcp.OPT_UUID, uuid))
    vendor = _vendor_options(request, style.direct, style.menu)
    if vendor:
        options.append((dhcp.OPT_VENDOR_SPECIFIC, vendor))
    if style.options:
        options.append((dhcp.OPT_TFTP_SERVER, arrival.own_ip.encode()))
    if give_file and (style.options or not in_header or request.http):
        options.append((dhcp.OPT_BOOTFILE, name))
    relay = packet.option(dhcp.OPT_RELAY)
    if relay is not None:
        options.append((dhcp.OPT_RELAY, relay))
    address, port = _destination(packet, arrival, offer)
    reply = dhcp.Packet(
        op=dhcp.BOOTREPLY,
        xid=packet.xid,
        chaddr=packet.chaddr,
        options=tuple(options),
        htype=packet.htype,
        hops=packet.hops,
        secs=packet.secs,
        # With no address to offer a relay can only broadcast, whatever the client asked for.
        flags=packet.flags | dhcp.BROADCAST if offer else packet.flags,
        ciaddr=packet.ciaddr,
        siaddr=arrival.own_ip,
        giaddr=packet.giaddr,
        file=name if in_header else b"",
    )
    return Reply(reply.pack(), address, port)


def _packed(ip: str) -> bytes:
    return bytes(map(int, ip.split(".")))


def _vendor_options(request: BootRequest, direct: bool, menu: bool) -> bytes:
    """Option 43: the echo of a chosen boot item, the Pi's menu, "take my file", or nothing."""
    if request.boot_item is not None:
        return dhcp.pack_suboptions([(pxe.BOOT_ITEM, request.boot_item)], end=True)
    if menu:
        return pxe.raspberry_menu()
    return pxe.DIRECT if direct else b""


def _destination(packet: dhcp.Packet, arrival: Arrival, offer: bool) -> tuple[str, int]:
    """Relay first; else who has an address, where it asked from (EDK2 asks 4011 from port 4011); else everybody."""
    if packet.giaddr != NOWHERE and offer:
        return packet.giaddr, SERVER_PORT
    if not offer and arrival.peer_ip != NOWHERE:
        return arrival.peer_ip, arrival.peer_port
    if packet.ciaddr != NOWHERE:
        return packet.ciaddr, CLIENT_PORT
    if packet.giaddr != NOWHERE:
        return packet.giaddr, SERVER_PORT
    return EVERYONE, CLIENT_PORT
