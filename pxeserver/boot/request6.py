"""A DHCPv6 message seen as a boot request (RFC 5970). Pure.

The message names its sender by a DUID, which may be made of anything; the machine is known by a MAC. That is found in
what the way shows, before what the client says: a DUID stands for the whole host, not for the card that boots.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from pxeserver.boot.request import IPXE_CLASSES, OWN_CLASS, BootRequest
from pxeserver.mac import Mac
from pxeserver.wire import dhcp6, pxe
from pxeserver.wire.reader import WireError

PXE_ENTERPRISE = 343  # Intel's; EDK2 looks for its class under this number and under no other


def request_of6(packet: dhcp6.Packet, port: int, mac: Mac, own_ip: str) -> BootRequest | None:
    """None for everything that is not a machine booting from the network: that is never answered.

    Network booting is who says PXEClient or HTTPClient in option 16. `own_ip` is the address that we would answer with.
    """
    if packet.message in (dhcp6.ADVERTISE, dhcp6.REPLY, dhcp6.RECONFIGURE):
        return None
    vendor = _vendor(packet)
    if vendor is None:
        return None
    names = [name.decode("latin-1") for name in _lenient(packet.option(dhcp6.OPT_USER_CLASS))]
    arch, arch_from = _arch(packet, vendor)
    user_class = OWN_CLASS if OWN_CLASS in names else next((name for name in names if name in IPXE_CLASSES), "")
    http = vendor.kind == pxe.HTTP_CLIENT or arch.http
    server = packet.option(dhcp6.OPT_SERVER_ID)
    return BootRequest(
        mac=mac,
        port=port,
        message=packet.message,
        arch=arch,
        arch_from=arch_from,
        vendor=pxe.HTTP_CLIENT if http else pxe.PXE_CLIENT,
        user_class=user_class,
        # The firmware's bytes are in SMBIOS's order, as in option 97; iPXE turns them round.
        uuid="" if user_class else pxe.uuid_text(b"\0" + (dhcp6.uuid_of_duid(_client(packet)) or b"")),
        server_id=server.hex() if server is not None else "",
        version=6,
        names_us=server == server_duid(own_ip),
    )


def server_duid(own_ip: str) -> bytes:
    """Our identifier (option 2): a DUID-UUID made of the address that we answer with, so that it needs no record."""
    return dhcp6.pack_duid_uuid(uuid.uuid5(uuid.NAMESPACE_URL, f"pxeserver://[{own_ip}]/").bytes)


def mac_of6(
    packet: dhcp6.Packet, peer: str, neighbour: Callable[[str], Mac | None] = lambda address: None
) -> Mac | None:
    """The card that asks: by the relay agent's option 79, by the client's link-local address, by who has its address
    on the link, by its DUID; else None.

    `peer` is the sender of the datagram, `neighbour` is asked for the MAC of an address.
    """
    if packet.relays:
        nearest = packet.relays[-1]
        layer = next((value for code, value in nearest.options if code == dhcp6.OPT_CLIENT_LINK_LAYER), b"")
        raw = dhcp6.mac_of_link_layer(layer) or dhcp6.mac_of_link_local(nearest.peer)
    else:
        raw = dhcp6.mac_of_link_local(peer)
        if raw is None and (known := neighbour(peer)) is not None:
            return known
    raw = raw or dhcp6.mac_of_duid(_client(packet))
    if raw is None or raw == bytes(6) or raw[0] & 1:
        return None
    return raw.hex(":")


def _client(packet: dhcp6.Packet) -> bytes:
    return packet.option(dhcp6.OPT_CLIENT_ID) or b""


def _vendor(packet: dhcp6.Packet) -> pxe.VendorClass | None:
    """The first class of any enterprise that says PXEClient or HTTPClient."""
    for code, value in packet.options:
        if code == dhcp6.OPT_VENDOR_CLASS:
            for name in _lenient(value[4:]):
                found = pxe.vendor_class(name)
                if found is not None and found.kind != pxe.UBOOT_CLIENT:
                    return found
    return None


def _lenient(raw: bytes | None) -> tuple[bytes, ...]:
    """Classes; none where their lengths are nonsense."""
    try:
        return dhcp6.classes(raw or b"")
    except WireError:
        return ()


def _arch(packet: dhcp6.Packet, vendor: pxe.VendorClass) -> tuple[pxe.Arch, str]:
    """As for DHCPv4: the first code of option 61 that the table knows, else the text of option 16, else UEFI."""
    codes = pxe.archs(packet.option(dhcp6.OPT_ARCH) or b"")
    known = next((code for code in codes if code in pxe.ARCHES), codes[0] if codes else None)
    if known is not None:
        return pxe.arch_of(known), "option 61"
    if vendor.arch is not None:
        return pxe.arch_of(vendor.arch), "option 16"
    return pxe.ARCHES[7], "nothing: taken as x86-64 UEFI"
