"""A DHCP packet seen as a boot request: who asks, with what firmware. Pure."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Literal, NamedTuple

from pxeserver.mac import Mac
from pxeserver.wire import dhcp, dhcp6, pxe

OWN_CLASS = "pxeserver"  # of an iPXE that was built for us: `set user-class pxeserver` in its embedded script
IPXE_CLASSES = frozenset({"iPXE", "gPXE", OWN_CLASS})


class BootRequest(NamedTuple):
    """What deciding needs of a packet. `vendor` is the word to echo in option 60."""

    mac: Mac
    port: int  # 67, 547 or 4011: the local port that it came to
    message: int  # dhcp.DISCOVER, dhcp6.SOLICIT, ...
    arch: pxe.Arch
    arch_from: str  # "option 93", "option 60", "nothing: taken as BIOS"
    bare: bool = False  # option 60 is the bare word: how an iPXE asks that another iPXE loaded on BIOS
    vendor: bytes = pxe.PXE_CLIENT
    user_class: str = ""
    features: frozenset[str] = frozenset()  # of iPXE: http, efi, bzimage, ...
    server_id: str = ""  # whom a REQUEST is for: option 54, an address; by DHCPv6 option 2, hex
    boot_item: bytes | None = None  # 43.71: chosen from a menu
    uuid: str = ""
    version: Literal[4, 6] = 4  # of IP, and so of DHCP
    names_us: bool = False  # DHCPv6: server_id is ours

    @property
    def ipxe(self) -> bool:
        return self.user_class in IPXE_CLASSES

    @property
    def http(self) -> bool:
        """True for UEFI HTTP boot: the answer must say HTTPClient and give a URL."""
        return self.vendor == pxe.HTTP_CLIENT

    @property
    def opening(self) -> bool:
        """True for what a machine says first."""
        if self.version == 6:
            return self.message in (dhcp6.SOLICIT, dhcp6.INFORMATION_REQUEST)
        return self.message == dhcp.DISCOVER

    @property
    def said(self) -> str:
        """'DISCOVER', 'DHCPv6 SOLICIT', for people."""
        if self.version == 6:
            return f"DHCPv6 {dhcp6.MESSAGE_NAMES.get(self.message, f'message type {self.message}')}"
        return dhcp.MESSAGE_NAMES.get(self.message, f"message type {self.message}")

    @property
    def firmware(self) -> str:
        """'iPXE on x86-64 EFI', for people."""
        return f"{self.user_class} on {self.arch.name}" if self.user_class else self.arch.name


def request_of(packet: dhcp.Packet, port: int) -> BootRequest | None:
    """None for everything that is not a machine booting from the network: that is never answered.

    Network booting is who says PXEClient or HTTPClient in option 60, or is a U-Boot that names its architecture.
    """
    if packet.op != dhcp.BOOTREQUEST:
        return None
    option = packet.option
    said = _said(
        option(dhcp.OPT_VENDOR_CLASS) or b"",
        option(dhcp.OPT_ARCH) or b"",
        option(dhcp.OPT_USER_CLASS) or b"",
        option(dhcp.OPT_IPXE) or b"",
        option(dhcp.OPT_SERVER_ID),
        option(dhcp.OPT_VENDOR_SPECIFIC) or b"",
    )
    mac = mac_of(packet) if said is not None else None
    if said is None or mac is None:
        return None
    return BootRequest(mac, port, packet.message, *said, pxe.uuid_text(option(dhcp.OPT_UUID) or b""))


class _Said(NamedTuple):
    """Fields of a BootRequest that do not tell one machine of a model from another, in their order there."""

    arch: pxe.Arch
    arch_from: str
    bare: bool
    vendor: bytes
    user_class: str
    features: frozenset[str]
    server_id: str
    boot_item: bytes | None


@lru_cache(maxsize=1024)
def _said(
    vendor_class: bytes, archs: bytes, user_class: bytes, ipxe: bytes, server: bytes | None, specific: bytes
) -> _Said | None:
    """By options 60, 93, 77, 175, 54 and 43; None if that is no network booting."""
    vendor = pxe.vendor_class(vendor_class)
    if vendor is None:
        return None
    arch, arch_from = _arch(pxe.archs(archs), vendor)
    if vendor.kind == pxe.UBOOT_CLIENT and not arch.uboot:
        return None
    classes = pxe.user_classes(user_class)
    return _Said(
        arch=arch,
        arch_from=arch_from,
        bare=vendor_class == vendor.kind,
        vendor=_echo(vendor, arch),
        user_class=OWN_CLASS if OWN_CLASS in classes else next((n for n in classes if n in IPXE_CLASSES), ""),
        features=pxe.ipxe_features(ipxe),
        server_id=_address(server),
        boot_item=pxe.boot_item(specific),
    )


def _echo(vendor: pxe.VendorClass, arch: pxe.Arch) -> bytes:
    """What option 60 of the answer says. U-Boot has a word of its own; whether it wants a URL follows from its arch."""
    by_http = vendor.kind == pxe.HTTP_CLIENT or (vendor.kind == pxe.UBOOT_CLIENT and arch.http)
    return pxe.HTTP_CLIENT if by_http else pxe.PXE_CLIENT


def _arch(codes: tuple[int, ...], vendor: pxe.VendorClass) -> tuple[pxe.Arch, str]:
    """The first code of option 93 that the table knows; else the text of option 60; else BIOS, as MAAS does."""
    for code in codes:
        if code in pxe.ARCHES:
            return pxe.ARCHES[code], "option 93"
    if codes:
        return pxe.arch_of(codes[0]), "option 93"
    if vendor.arch is not None:
        return pxe.arch_of(vendor.arch), "option 60"
    return pxe.ARCHES[0], "nothing: taken as BIOS"


def mac_of(packet: dhcp.Packet) -> Mac | None:
    """The Ethernet address. Other hardware (IPoIB, Omni-Path: RFC 4390) is known by what stays the same of it: the MAC
    or the port GUID in option 61, the GUID in chaddr, else an address made of the UUID in option 97; else None.
    """
    raw = packet.chaddr
    if len(raw) != 6 or packet.htype != 1:
        ident = packet.option(dhcp.OPT_CLIENT_ID) or b""
        uuid = packet.option(dhcp.OPT_UUID) or b""
        if len(ident) == 7 and ident[0] == 1:
            raw = ident[1:]
        elif len(ident) > 8:  # InfiniBand: an 8-byte port GUID ends the identifier
            raw = _of_guid(ident[-8:])
        elif len(raw) == 8 and any(raw):
            raw = _of_guid(raw)
        elif pxe.uuid_text(uuid) and any(uuid):
            # locally administered: no vendor's card has it. Parts of a UUID repeat within a vendor, its digest does not
            raw = b"\2" + hashlib.sha256(uuid).digest()[:5]
        else:
            return None
    if raw == bytes(6) or raw[0] & 1:
        return None
    return raw.hex(":")


def _of_guid(guid: bytes) -> bytes:
    """The six bytes that Linux shows as the address of such a port: an EUI-64 without its middle."""
    return guid[:3] + guid[-3:]


def _address(raw: bytes | None) -> str:
    return ".".join(map(str, raw)) if raw is not None and len(raw) == 4 else ""
