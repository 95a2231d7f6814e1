"""The bytes of a DHCPv6 answer (RFC 8415, 5970). Never an address: there is no IA in anything that leaves here. Pure.

EDK2 calls an ADVERTISE without an IA a proxy offer. It takes the address from the site's server, and the boot file from
us: for HTTP boot out of the ADVERTISE, for PXE by a REQUEST to port 4011 of the address in the URL.
"""

from __future__ import annotations

from pxeserver.boot.answer import Arrival, Reply, boot_file, url_host
from pxeserver.boot.decide import Decision
from pxeserver.boot.request import BootRequest
from pxeserver.boot.request6 import PXE_ENTERPRISE, server_duid
from pxeserver.wire import dhcp6

CLIENT_PORT, SERVER_PORT = 546, 547


def boot_file6(request: BootRequest, decision: Decision, own_ip: str, url: str) -> str:
    """What the machine is told to load: always a URL, with an address in it."""
    name = boot_file(request, decision, url)
    return name if request.http or decision.kind == "script" else f"tftp://{url_host(own_ip)}/{name}"


def answer6(packet: dhcp6.Packet, request: BootRequest, decision: Decision, arrival: Arrival, url: str) -> Reply:
    """ADVERTISE to a SOLICIT, REPLY to anything else, back through the relay agents. `url` is the boot's `boot_url`.

    The same arguments give the same bytes.
    """
    client = packet.option(dhcp6.OPT_CLIENT_ID)
    name = boot_file6(request, decision, arrival.own_ip, url).encode("ascii")
    options = [
        *([(dhcp6.OPT_CLIENT_ID, client)] if client is not None else []),
        (dhcp6.OPT_SERVER_ID, server_duid(arrival.own_ip)),
        # EDK2 reads the URL up to a NUL and asks nobody where it ends: the high byte of the next code is that NUL
        (dhcp6.OPT_BOOTFILE_URL, name),
        (dhcp6.OPT_VENDOR_CLASS, dhcp6.pack_vendor_class(PXE_ENTERPRISE, request.vendor)),
    ]
    kind = dhcp6.ADVERTISE if packet.message == dhcp6.SOLICIT else dhcp6.REPLY
    reply = dhcp6.Packet(kind, packet.xid, tuple(options), packet.relays)
    if packet.relays:
        return Reply(reply.pack(), arrival.peer_ip, SERVER_PORT)
    return Reply(reply.pack(), arrival.peer_ip, CLIENT_PORT if arrival.port == SERVER_PORT else arrival.peer_port)
