"""What iPXE tells about its machine: the query that templates/ipxe/facts.j2 asks for, read back. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from pxeserver.mac import Mac, looks_like_mac, parse_mac

_QUERY_MAX = 4096
_FIELDS_MAX = 40
_VALUE_MAX = 100
_MACS_MAX = 16
_GOARCH = {"x86_64": "amd64", "arm64": "arm64", "arm32": "arm", "riscv64": "riscv64", "loong64": "loong64"}
_FIRMWARE = {"pcbios": "bios", "efi": "efi"}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_IPV4 = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_RANGE = re.compile(r"[0-9a-f]{16}")


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
    if len(query) > _QUERY_MAX or query.count("&") >= _FIELDS_MAX:
        return None
    first: dict[str, str] = {}
    macs: dict[Mac, None] = {}
    for key, value in pairs(query):
        text = value[:_VALUE_MAX]
        if not text.isprintable():
            text = "".join(c if c.isprintable() else " " for c in text)
        text = text.strip()
        if key == "mac" and text and len(macs) < _MACS_MAX and looks_like_mac(text):
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


def pairs(query: str) -> Iterator[tuple[str, str]]:
    """Names and values in their order, as urllib's parse_qsl has them, for a sixth of its time: every machine of a
    storm brings twenty. A plus sign is one: iPXE leaves it alone ("1.0.0+git")."""
    for field_ in query.split("&"):
        if field_:
            name, _, value = field_.partition("=")
            yield unquote(name) if "%" in name else name, unquote(value) if "%" in value else value


def _memory(first: Mapping[str, str]) -> str:
    """MiB as text, "" if unknown: iPXE's own setting, else the sum of the memory ranges of SMBIOS (type 19)."""
    memsize = first.get("memsize", "")
    if memsize.isdecimal() and 0 < int(memsize) < 1 << 31:
        return memsize
    kib = sum(_range_kib(first.get(name, "").lower()) for name in ("range0", "range1"))
    return str(kib // 1024) if kib >= 1024 else ""


def _range_kib(raw: str) -> int:
    """KiB of one memory range: two little-endian u32, the first and the last KiB (0xffffffff: told elsewhere)."""
    if not _RANGE.fullmatch(raw):
        return 0
    data = bytes.fromhex(raw)
    begin, end = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:], "little")
    return 0 if 0xFFFFFFFF in (begin, end) else max(0, end + 1 - begin)
