"""How a booted system whose command line names no server finds it. Pure; see docs/adr for why it is done so.

The system has an address by then. It broadcasts a DHCPINFORM of the vendor class `pxeserver` (RFC 2131, section 3.4),
which relays pass on like every DHCP message; whoever else answers it does so in another class. The `file` of our ACK is
the URL of its boot, as `pxeserver.url=` would say it.
"""

from __future__ import annotations

from pxeserver.boot.answer import CLIENT_PORT, EVERYONE, NOWHERE, SERVER_PORT, Arrival, Reply
from pxeserver.wire import dhcp

CLASS = b"pxeserver"


def asks(packet: dhcp.Packet) -> bool:
    """True for the question of a booted system."""
    return packet.message == dhcp.INFORM and packet.option(dhcp.OPT_VENDOR_CLASS) == CLASS


def tell(packet: dhcp.Packet, arrival: Arrival, url: str) -> Reply:
    """The ACK, without an address: through the relay that it came by, else to the system's own (RFC 2131, 4.3.5)."""
    relay = packet.option(dhcp.OPT_RELAY)
    reply = dhcp.Packet(
        op=dhcp.BOOTREPLY,
        xid=packet.xid,
        chaddr=packet.chaddr,
        options=(
            (dhcp.OPT_MESSAGE_TYPE, bytes((dhcp.ACK,))),
            (dhcp.OPT_SERVER_ID, bytes(map(int, arrival.own_ip.split(".")))),
            (dhcp.OPT_VENDOR_CLASS, CLASS),
            *([(dhcp.OPT_RELAY, relay)] if relay is not None else []),
        ),
        htype=packet.htype,
        hops=packet.hops,
        secs=packet.secs,
        flags=packet.flags | dhcp.BROADCAST,  # a relay that is given no address can do nothing else
        ciaddr=packet.ciaddr,
        siaddr=arrival.own_ip,
        giaddr=packet.giaddr,
        file=url.encode("ascii"),
    )
    if packet.giaddr != NOWHERE:
        return Reply(reply.pack(), packet.giaddr, SERVER_PORT)
    return Reply(reply.pack(), EVERYONE if packet.ciaddr == NOWHERE else packet.ciaddr, CLIENT_PORT)
