"""Styles: the shapes of an answer that firmware accepts or drops in silence, and in what order they are tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """Which fields an answer on port 67 has. Option 60, 54 and siaddr are always there; 4011 always gives the file."""

    name: str
    about: str
    file: bool = True  # the file in the header of the offer
    direct: bool = False  # option 43 = 06 01 08 ff: do not search, take this file
    options: bool = False  # options 66 and 67 as well
    menu: bool = False  # option 43 with the Raspberry Pi's menu


DHCP6 = "dhcp6"

_ALL = (
    Style("pxe10", "file in the offer, option 43 says to take it at once (PXE 1.0)", direct=True),
    Style("binl", "file in the offer, no option 43; the file again on port 4011"),
    Style("options", "file in the header and in options 66 and 67, no option 43", options=True),
    Style("late", "nothing in the offer, the file on port 4011 only", file=False),
    Style("header", "file and siaddr in the header only (U-Boot)"),
    Style("rpi", "option 43 with the menu that the Raspberry Pi's ROM looks for", menu=True),
    Style("http", "a URL, and HTTPClient in option 60 (UEFI HTTP boot)"),
    Style(DHCP6, "a URL in option 59, the class in option 16 (DHCPv6)"),
)
STYLES: Mapping[str, Style] = {style.name: style for style in _ALL}

ALONE = frozenset({"http", DHCP6})  # there is no other to try: nothing is learnt from their success

SILENCE = 3  # answered DISCOVERs without a sign of life, after which the next style is tried

_BIOS = ("pxe10", "binl", "options", "late")
_EFI = ("binl", "pxe10", "options", "late")  # EDK2 before 2017-04 drops offers with option 43 (tianocore/edk2#6944)


def styles_for(family: str, *, http: bool = False, uboot: bool = False) -> tuple[str, ...]:
    """The styles to try for this firmware, first to last."""
    if http:
        return ("http",)
    if uboot:
        return ("header", "options")
    if family == "rpi":
        return ("rpi", "options")
    return _BIOS if family == "bios" else _EFI
