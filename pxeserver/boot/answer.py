"""The bytes of an answer. Never an address: yiaddr is 0 in everything that leaves here. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from pxeserver.boot import uki
from pxeserver.boot.decide import Decision
from pxeserver.boot.request import BootRequest
from pxeserver.boot.styles import STYLES
from pxeserver.wire import dhcp, pxe

SCRIPT = "script.ipxe"
NOWHERE = dhcp.NOWHERE
EVERYONE = "255.255.255.255"
CLIENT_PORT, SERVER_PORT = 68, 67


class Arrival(NamedTuple):
    """How a packet came in. `own_ip` is our address towards the client, `peer_ip` the sender (0.0.0.0: none yet)."""

    own_ip: str
    ifindex: int
    port: int  # local: 67 or 4011
    peer_ip: str = NOWHERE
    peer_port: int = CLIENT_PORT


class Reply(NamedTuple):
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


def by_url(request: BootRequest, decision: Decision) -> bool:
    """True when the machine is told to load a URL, which has the boot's token in it."""
    return decision.kind == "script" or request.http


def boot_file(request: BootRequest, decision: Decision, url: str) -> str:
    """What the machine is told to load: a URL, or a name on our TFTP server. `url` counts only if `by_url`."""
    if decision.kind == "script":
        return f"{url}/{SCRIPT}"
    if decision.kind == "image":
        base, _, token = url.rpartition("/boot/")
        name = uki.path(decision.uki)
        return f"{base}/{name}?boot={token}" if request.http else name
    return loader_url(url, decision.loader) if request.http else decision.loader


def answer(packet: dhcp.Packet, request: BootRequest, decision: Decision, arrival: Arrival, url: str) -> Reply:
    """OFFER to a DISCOVER, ACK to anything else. `url` is the boot's `boot_url`; it may be "" unless `by_url`.

    The same arguments give the same bytes. Option 54 and siaddr are both set: EDK2 wants the one, iPXE the other.
    """
    offer = packet.message == dhcp.DISCOVER
    style = STYLES[decision.style]
    name = boot_file(request, decision, url).encode("ascii")
    give_file = style.file or not offer
    in_header = give_file and len(name) <= dhcp.FILE_MAX
    options = _first(offer, arrival.own_ip, request.vendor)
    uuid = packet.option(dhcp.OPT_UUID)
    if uuid is not None:
        options += dhcp.pack_options([(dhcp.OPT_UUID, uuid)])
    options += _second(request.boot_item, decision.style, arrival.own_ip)
    # 67 and then 82 end every packet (dhcp.Packet.pack)
    if give_file and (style.options or not in_header or request.http):
        options += dhcp.pack_options([(dhcp.OPT_BOOTFILE, name)])
    relay = packet.option(dhcp.OPT_RELAY)
    if relay is not None:
        options += dhcp.pack_options([(dhcp.OPT_RELAY, relay)])
    payload = dhcp.pack(
        options,
        op=dhcp.BOOTREPLY,
        xid=packet.xid,
        chaddr=packet.chaddr,
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
    return Reply(payload, *_destination(packet, arrival, offer))


@lru_cache(maxsize=256)
def _first(offer: bool, own_ip: str, vendor: bytes) -> bytes:
    """Options 53, 54 and 60."""
    return dhcp.pack_options(
        [
            (dhcp.OPT_MESSAGE_TYPE, bytes((dhcp.OFFER if offer else dhcp.ACK,))),
            (dhcp.OPT_SERVER_ID, bytes(map(int, own_ip.split(".")))),
            (dhcp.OPT_VENDOR_CLASS, vendor),
        ]
    )


@lru_cache(maxsize=256)
def _second(boot_item: bytes | None, style: str, own_ip: str) -> bytes:
    """Options 43 and 66, as far as this style has them; 43 is the echo of a boot item that was chosen, if one was."""
    shape = STYLES[style]
    options = []
    if boot_item is not None:
        options.append((dhcp.OPT_VENDOR_SPECIFIC, dhcp.pack_suboptions([(pxe.BOOT_ITEM, boot_item)], end=True)))
    elif shape.menu or shape.direct:
        options.append((dhcp.OPT_VENDOR_SPECIFIC, pxe.raspberry_menu() if shape.menu else pxe.DIRECT))
    if shape.options:
        options.append((dhcp.OPT_TFTP_SERVER, own_ip.encode()))
    return dhcp.pack_options(options)


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
