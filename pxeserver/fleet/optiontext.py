"""DHCP options in words, for `explain`."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from pxeserver.fleet.values import OptionInfo
from pxeserver.wire import dhcp, dhcp6, pxe

_NAMES = {
    dhcp.OPT_VENDOR_SPECIFIC: "vendor options",
    dhcp.OPT_MESSAGE_TYPE: "message type",
    dhcp.OPT_SERVER_ID: "server",
    dhcp.OPT_MAX_SIZE: "maximum size",
    dhcp.OPT_VENDOR_CLASS: "vendor class",
    dhcp.OPT_CLIENT_ID: "client id",
    dhcp.OPT_TFTP_SERVER: "TFTP server",
    dhcp.OPT_BOOTFILE: "boot file",
    dhcp.OPT_USER_CLASS: "user class",
    dhcp.OPT_RELAY: "relay agent",
    dhcp.OPT_ARCH: "architecture",
    dhcp.OPT_UNDI: "UNDI version",
    dhcp.OPT_UUID: "UUID",
    dhcp.OPT_IPXE: "iPXE",
}
_NAMES6 = {
    dhcp6.OPT_CLIENT_ID: "client id",
    dhcp6.OPT_SERVER_ID: "server",
    dhcp6.OPT_BOOTFILE_URL: "boot file URL",
    dhcp6.OPT_VENDOR_CLASS: "vendor class",
}
_TEXTS = frozenset({dhcp.OPT_VENDOR_CLASS, dhcp.OPT_TFTP_SERVER, dhcp.OPT_BOOTFILE, dhcp.OPT_USER_CLASS})


def option_infos(options: Iterable[tuple[int, bytes]]) -> tuple[OptionInfo, ...]:
    """Each option with its name and value as people read it; hex where no better form is known."""
    return tuple(OptionInfo(code, _NAMES.get(code, f"option {code}"), text(code, value)) for code, value in options)


def option_infos6(options: Iterable[tuple[int, bytes]]) -> tuple[OptionInfo, ...]:
    """The same for DHCPv6."""
    return tuple(OptionInfo(code, _NAMES6.get(code, f"option {code}"), _text6(code, value)) for code, value in options)


def _text6(code: int, value: bytes) -> str:
    if code == dhcp6.OPT_BOOTFILE_URL:
        return _printable(value)
    if code == dhcp6.OPT_VENDOR_CLASS:
        enterprise, names = dhcp6.vendor_class(value)
        return f"{enterprise}: {', '.join(map(_printable, names))}"
    return value.hex(" ")


def _printable(value: bytes) -> str:
    return "".join(c if c.isprintable() else "." for c in value.decode("latin-1"))


def text(code: int, value: bytes) -> str:
    if code in _TEXTS:
        return _printable(value)
    if code == dhcp.OPT_MESSAGE_TYPE and len(value) == 1:
        return dhcp.MESSAGE_NAMES.get(value[0], str(value[0]))
    if code == dhcp.OPT_SERVER_ID and len(value) == 4:
        return str(IPv4Address(value))
    if code == dhcp.OPT_UUID:
        return pxe.uuid_text(value) or value.hex(" ")
    if code == dhcp.OPT_ARCH:
        return ", ".join(f"{n} ({pxe.arch_of(n).name})" for n in pxe.archs(value))
    if code == dhcp.OPT_UNDI:
        return pxe.undi_version(value) or value.hex(" ")
    if code == dhcp.OPT_MAX_SIZE and len(value) == 2:
        return str(int.from_bytes(value, "big"))
    return value.hex(" ")
