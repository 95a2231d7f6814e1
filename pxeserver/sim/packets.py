"""The DHCP packets that a firmware sends, made of its data. Pure."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from pxeserver.mac import Mac, mac_to_bytes
from pxeserver.sim.firmware import Firmware
from pxeserver.sim.offers import NOWHERE
from pxeserver.wire import dhcp, pxe

REQUESTED_ADDRESS, PARAMETERS = 50, 55
_SPACE = uuid.UUID("8a7c5ad0-6d3e-4f5e-9c57-2d0f6a1b7e11")
_EDK2_REQUEST_SIZE = 65280  # EDK2's DHCP driver swaps the bytes of 255 in its REQUEST


@dataclass(frozen=True, slots=True)
class Card:
    """A network card and the machine that it sits in."""

    mac: Mac
    uuid: uuid.UUID

    @classmethod
    def of(cls, mac: Mac) -> Card:
        """The machine's UUID follows from the MAC, so that it is the same one next time."""
        return cls(mac, uuid.uuid5(_SPACE, mac))

    @property
    def serial(self) -> str:
        return mac_to_bytes(self.mac).hex()[4:]


def _values(firmware: Firmware, card: Card, message: int) -> dict[int, bytes]:
    return {
        dhcp.OPT_MESSAGE_TYPE: bytes((message,)),
        dhcp.OPT_MAX_SIZE: firmware.max_size.to_bytes(2, "big"),
        dhcp.OPT_ARCH: pxe.pack_archs((firmware.arch,)),
        dhcp.OPT_UNDI: firmware.undi,
        dhcp.OPT_VENDOR_CLASS: firmware.vendor,
        dhcp.OPT_USER_CLASS: firmware.user_class,
        PARAMETERS: firmware.asks,
        dhcp.OPT_IPXE: firmware.features,
        dhcp.OPT_CLIENT_ID: b"\1" + mac_to_bytes(card.mac),
        dhcp.OPT_UUID: b"\0" + card.uuid.bytes_le,
    }


def _packed(
    firmware: Firmware,
    card: Card,
    xid: bytes,
    options: Sequence[tuple[int, bytes]],
    *,
    secs: int = 0,
    ciaddr: str = NOWHERE,
    flags: int | None = None,
) -> bytes:
    broadcast = dhcp.BROADCAST if firmware.broadcast else 0
    return dhcp.Packet(
        op=dhcp.BOOTREQUEST,
        xid=xid,
        chaddr=mac_to_bytes(card.mac),
        options=tuple(options),
        secs=secs,
        flags=broadcast if flags is None else flags,
        ciaddr=ciaddr,
    ).pack()


def discover(firmware: Firmware, card: Card, xid: bytes) -> bytes:
    values = _values(firmware, card, dhcp.DISCOVER)
    options = [(code, values[code]) for code in firmware.order]
    return _packed(firmware, card, xid, options, secs=firmware.secs[0])


def request(firmware: Firmware, card: Card, xid: bytes, address: str, server: str) -> bytes:
    """The REQUEST of an offered address, broadcast to everybody. `server` is its option 54."""
    values = _values(firmware, card, dhcp.REQUEST)
    taken = [(dhcp.OPT_SERVER_ID, socket.inet_aton(server)), (REQUESTED_ADDRESS, socket.inet_aton(address))]
    if firmware.ask_port == 4011:
        values[dhcp.OPT_MAX_SIZE] = _EDK2_REQUEST_SIZE.to_bytes(2, "big")
        rest = [(code, values[code]) for code in firmware.order if code != dhcp.OPT_MESSAGE_TYPE]
        options = [(dhcp.OPT_MESSAGE_TYPE, values[dhcp.OPT_MESSAGE_TYPE]), *taken, *rest]
    else:
        options = [*((code, values[code]) for code in firmware.order), *taken]
    return _packed(firmware, card, xid, options, secs=firmware.secs[1])


def ask(firmware: Firmware, card: Card, xid: bytes, address: str, server: str, item: bytes = b"") -> bytes:
    """The REQUEST to port 4011 for a file: iPXE's has option 54 in it, and anybody's 43.71 for a menu's item."""
    values = _values(firmware, card, dhcp.REQUEST)
    if firmware.ask_port == 4011:
        options = [(code, values[code]) for code in sorted(firmware.order)]
        options.sort(key=lambda option: option[0] != dhcp.OPT_MESSAGE_TYPE)
    else:
        options = [(code, values[code]) for code in firmware.order]
        if not item:
            options.append((dhcp.OPT_SERVER_ID, socket.inet_aton(server)))
    if item:
        chosen = dhcp.pack_suboptions([(pxe.BOOT_ITEM, item + b"\0\0")], end=True)
        options.append((dhcp.OPT_VENDOR_SPECIFIC, chosen))
    flags = 0 if firmware.ask_port == 4011 else dhcp.BROADCAST
    return _packed(firmware, card, xid, options, secs=firmware.secs[0], ciaddr=address, flags=flags)


def release(card: Card, xid: bytes, address: str, server: str) -> bytes:
    """Gives a lease back."""
    options = (
        (dhcp.OPT_MESSAGE_TYPE, bytes((dhcp.RELEASE,))),
        (dhcp.OPT_SERVER_ID, socket.inet_aton(server)),
        (dhcp.OPT_CLIENT_ID, b"\1" + mac_to_bytes(card.mac)),
    )
    return dhcp.Packet(dhcp.BOOTREQUEST, xid, mac_to_bytes(card.mac), options, ciaddr=address).pack()
