"""A DHCP answer as a booting machine reads it: its fields under the names that the rules use. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from pxeserver.wire import dhcp, pxe
from pxeserver.wire.reader import WireError

NOWHERE = "0.0.0.0"


@dataclass(frozen=True)
class Offer:
    """An answer to this machine; `at` in seconds since its first DISCOVER, `port` is the sender's."""

    packet: dhcp.Packet
    sender: str
    port: int
    at: float

    @property
    def address(self) -> str:
        """What it offers to the machine, "" for a proxy's."""
        return self.packet.yiaddr if self.packet.yiaddr != NOWHERE else ""

    @property
    def siaddr(self) -> str:
        return self.packet.siaddr if self.packet.siaddr != NOWHERE else ""

    @property
    def server_id(self) -> str:
        """Option 54, "" if it is missing."""
        raw = self.packet.option(dhcp.OPT_SERVER_ID)
        return ".".join(map(str, raw)) if raw is not None and len(raw) == 4 and any(raw) else ""

    @property
    def pxe(self) -> bool:
        return self._class.startswith(pxe.PXE_CLIENT)

    @property
    def http(self) -> bool:
        return self._class.startswith(pxe.HTTP_CLIENT)

    @property
    def _class(self) -> bytes:
        return self.packet.option(dhcp.OPT_VENDOR_CLASS) or b""

    @property
    def header_file(self) -> str:
        """The header's file field, and nothing else."""
        return self.packet.file.decode("latin-1")

    @property
    def file(self) -> str:
        """Option 67, else the header."""
        option = self.packet.option(dhcp.OPT_BOOTFILE)
        return option.decode("latin-1") if option else self.header_file

    @cached_property
    def vendor(self) -> Mapping[int, bytes]:
        """The sub-options of option 43."""
        return dict(dhcp.suboptions(self.packet.option(dhcp.OPT_VENDOR_SPECIFIC) or b""))

    @property
    def control(self) -> int:
        """43.6, PXE's discovery control: 1 no broadcast, 2 no multicast, 4 listed servers only, 8 take the file."""
        value = self.vendor.get(pxe.DISCOVERY_CONTROL, b"")
        return value[0] if value else 0

    @property
    def first_item(self) -> bytes:
        """The type of the first entry of PXE's menu (43.9), b"" without a menu."""
        return self.vendor.get(pxe.BOOT_MENU, b"")[:2]

    def servers_of(self, item: bytes) -> tuple[str, ...]:
        """The addresses that 43.8 lists for a type of boot server."""
        found: list[str] = []
        raw = self.vendor.get(pxe.BOOT_SERVERS, b"")
        while len(raw) >= 3:
            end = 3 + 4 * raw[2]
            if raw[:2] == item:
                found += [".".join(map(str, raw[i : i + 4])) for i in range(3, min(end, len(raw) - 3), 4)]
            raw = raw[end:]
        return tuple(found)


def read(payload: bytes, peer: tuple[str, int], at: float, *, xid: bytes, chaddr: bytes) -> Offer | None:
    """None for everything that is no DHCP answer to this very transaction of this machine."""
    try:
        packet = dhcp.parse(payload)
    except WireError:
        return None
    if packet.op != dhcp.BOOTREPLY or packet.xid != xid or packet.chaddr != chaddr:
        return None
    return Offer(packet, peer[0], peer[1], at)
