"""What iPXE tells about its machine: the query that templates/ipxe/facts.j2 asks for, read back. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from pxeserver.mac import Mac, looks_like_mac, parse_mac

_QUERY_MAX = 4096
_FIELDS_MAX = 40
_VALUE_MAX = 100
_MACS_MAX = 16
_GOARCH = {"x86_64": "amd64", "arm64": "arm64", "arm32": "arm", "riscv64": "riscv64", "loong64": "loong64"}
_FIRMWARE = {"pcbios": "bios", "efi": "efi"}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_IPV4 = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_NO_MEMORY = ("", "0", "ffffffff")


@dataclass(frozen=True, slots=True)
class Facts:
    """`macs`: the booting card's first. `platform`: pcbios, efi or "". `data`: keys that the fleet learns."""

    macs: tuple[Mac, ...] = ()
    platform: str = ""
    data: Mapping[str, str] = field(default_factory=dict)


def parse(query: str) -> Facts | None:
    """The facts in a URL's query, None if it holds none (the question comes from a DHCP answer, not from our script).

    Nothing in it is trusted: fields are cleaned, cut and counted; what makes no sense is left out.
    """
    if len(query) > _QUERY_MAX:
        return None
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except ValueError:
        return None
    first: dict[str, str] = {}
    macs: dict[Mac, None] = {}
    for key, value in pairs:
        text = "".join(c if c.isprintable() else " " for c in value[:_VALUE_MAX]).strip()
        if key == "mac" and looks_like_mac(text) and len(macs) < _MACS_MAX:
            macs[parse_mac(text)] = None
        first.setdefault(key, text)
    if "platform" not in first:
        return None
    platform = first["platform"] if first["platform"] in _FIRMWARE else ""
    data = {key: first.get(key, "") for key in ("serial", "manufacturer", "product")}
    data["uuid"] = first.get("uuid", "").lower() if _UUID.fullmatch(first.get("uuid", "").lower()) else ""
    data["ip"] = first.get("ip", "") if _IPV4.fullmatch(first.get("ip", "")) else ""
    data["arch"] = _GOARCH.get(first.get("buildarch", ""), "")  # an i386 loader runs on amd64 too: it says nothing
    data["firmware"] = _FIRMWARE.get(platform, "")
    data["ipxe"] = first.get("version", "")
    data["memory"] = _memory(first)
    return Facts(tuple(macs), platform, {key: value for key, value in data.items() if value})


def _memory(first: Mapping[str, str]) -> str:
    """MiB as text, "" if unknown: iPXE's own setting, else the end of the first memory range that SMBIOS tells."""
    memsize = first.get("memsize", "")
    if memsize.isdecimal() and 0 < int(memsize) < 1 << 31:
        return memsize
    raw = first.get("smbios19", "").lower()
    if raw in _NO_MEMORY or not re.fullmatch(r"[0-9a-f]{8}", raw):
        return ""
    kib = int.from_bytes(bytes.fromhex(raw), "little") + 1  # an ending address, inclusive, in KiB
    return str(kib // 1024) if kib >= 1024 else ""
