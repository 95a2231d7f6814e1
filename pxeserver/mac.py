"""MAC addresses: read in any spelling, kept in one."""

from __future__ import annotations

import re

from pxeserver.errors import UsageError

Mac = str  # always "aa:bb:cc:dd:ee:ff"; parse_mac is the only way in

_CANONICAL = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_HEX12 = re.compile(r"[0-9a-f]{12}")
_SPELLINGS = (
    re.compile(r"[0-9a-fA-F]{2}([:\-])[0-9a-fA-F]{2}(\1[0-9a-fA-F]{2}){4}"),
    re.compile(r"[0-9a-fA-F]{4}([.\-])[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}"),
    re.compile(r"[0-9a-fA-F]{6}[:\-]?[0-9a-fA-F]{6}"),
)


def parse_mac(text: str) -> Mac:
    """'aabb.ccdd.eeff', 'AA-BB-..', 'aabbccddeeff', 'aa:bb:..' -> 'aa:bb:cc:dd:ee:ff'; UsageError otherwise."""
    text = text.strip()
    if _CANONICAL.fullmatch(text):
        return text
    if not any(s.fullmatch(text) for s in _SPELLINGS):
        raise UsageError("bad-mac", f'"{text}" is not a MAC address', hint="write it as 52:54:00:12:34:56")
    digits = re.sub(r"[^0-9a-f]", "", text.lower())
    if not _HEX12.fullmatch(digits):  # pragma: no cover - the spellings above leave nothing else
        raise UsageError("bad-mac", f'"{text}" is not a MAC address')
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def looks_like_mac(text: str) -> bool:
    """True if `text` is a MAC in some spelling."""
    return any(s.fullmatch(text.strip()) for s in _SPELLINGS)


def mac_from_bytes(raw: bytes) -> Mac:
    """Six bytes -> canonical text; longer hardware addresses are cut (RFC 2131 chaddr is padded)."""
    return raw[:6].hex(":")


def mac_to_bytes(mac: Mac) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
