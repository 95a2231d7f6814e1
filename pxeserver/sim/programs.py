"""Is this file a boot program for this firmware? Enough of PE and of BIOS's limits to refuse what a machine would."""

from __future__ import annotations

import struct

HEAD = 1 << 20  # bytes of a file that the checks look at
BIOS_MAX = 0x9FC00 - 0x7C00  # a network boot program is loaded at 0x7c00, below the 640 KiB
_MACHINES = {
    0x14C: "x86 32-bit",
    0x8664: "x86-64",
    0x1C2: "ARM 32-bit",
    0xAA64: "ARM 64-bit",
    0x5064: "RISC-V 64-bit",
    0x6264: "LoongArch 64-bit",
}
_WANTED = {6: 0x14C, 7: 0x8664, 9: 0x8664, 11: 0xAA64, 16: 0x8664, 19: 0xAA64, 22: 0xAA64}


def _pe(head: bytes) -> tuple[int, int] | None:
    """Offset of the PE header and the machine that it is for; None if it is none."""
    if len(head) < 64 or head[:2] != b"MZ":
        return None
    (at,) = struct.unpack_from("<I", head, 0x3C)
    if at + 24 > len(head) or head[at : at + 4] != b"PE\0\0":
        return None
    return at, struct.unpack_from("<H", head, at + 4)[0]


def against_efi(head: bytes, arch: int) -> str:
    """Why UEFI of this architecture (option 93) would not start it, "" if it would."""
    found = _pe(head)
    if found is None:
        return "it is no EFI program"
    wanted = _WANTED.get(arch)
    if wanted is not None and found[1] != wanted:
        return f"it is a program for {_MACHINES.get(found[1], hex(found[1]))}, the machine is {_MACHINES[wanted]}"
    return ""


def against_bios(head: bytes, size: int) -> str:
    """Why a BIOS would not start it, "" if it would."""
    if not size:
        return "it is empty"
    if _pe(head) is not None:
        return "it is an EFI program, the machine has a BIOS"
    return f"its {size} bytes do not fit below 640 KiB" if size > BIOS_MAX else ""


def is_uki(head: bytes) -> bool:
    """An EFI program with a kernel inside (a section .linux): it needs no further file."""
    found = _pe(head)
    if found is None:
        return False
    at = found[0]
    sections, optional = struct.unpack_from("<H", head, at + 6)[0], struct.unpack_from("<H", head, at + 20)[0]
    table = at + 24 + optional
    names = (head[table + 40 * n : table + 40 * n + 8].rstrip(b"\0") for n in range(sections))
    return b".linux" in names
