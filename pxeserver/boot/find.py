"""How a booted system whose command line names no server finds it. Pure; see docs/adr for why it is done so.

The system asks by DHCP as vendor class `pxeserver`, by broadcast to port 4011, where the site's own DHCP server does
not listen: DISCOVER, OFFER, REQUEST, ACK, as RFC 2131 has them but for the address, which is none. The answer's `file`
is the URL of its boot, as `pxeserver.url=` would say it.
"""

from __future__ import annotations

from pxeserver.boot.answer import EVERYONE, Arrival, Reply
from pxeserver.wire import dhcp

CLASS = b"pxeserver"


def asks(packet: dhcp.Packet) -> bool:
    """True for the question of a booted system."""
    return packet.option(dhcp.OPT_VENDOR_CLASS) == CLASS


def tell(packet: dhcp.Packet, arrival: Arrival, url: str) -> Reply | None:
    """The answer, by broadcast to the port asked from; None for a REQUEST that another server is meant by."""
    own = bytes(map(int, arrival.own_ip.split(".")))
    kinds = {dhcp.DISCOVER: dhcp.OFFER, dhcp.REQUEST: dhcp.ACK}
    meant = packet.message == dhcp.DISCOVER or packet.option(dhcp.OPT_SERVER_ID) == own
    if packet.message not in kinds or not meant:
        return None
    reply = dhcp.Packet(
        op=dhcp.BOOTREPLY,
        xid=packet.xid,
        chaddr=packet.chaddr,
        options=(
            (dhcp.OPT_MESSAGE_TYPE, bytes((kinds[packet.message],))),
            (dhcp.OPT_SERVER_ID, own),
            (dhcp.OPT_VENDOR_CLASS, CLASS),
        ),
        htype=packet.htype,
        flags=packet.flags,
        siaddr=arrival.own_ip,
        file=url.encode("ascii"),
    )
    return Reply(reply.pack(), EVERYONE, arrival.peer_port)
