"""What an image takes of a machine, and whether a known machine has it: before anybody stands in front of it."""

from __future__ import annotations

from dataclasses import dataclass

from pxeserver.boot.cmdline import LIMIT
from pxeserver.errors import Refused
from pxeserver.model import Image, Machine

MIB = 1 << 20
_BIOS, _EFI = 48, 112  # MiB that kernel and firmware take besides


@dataclass(frozen=True, slots=True)
class Preflight:
    """Sizes in bytes, memory in MiB.

    `unpacked` is the tree; `peak` is what lies in memory while it is unpacked; a machine with less than `memory_least`
    cannot come up, and it wants `memory_bios` or `memory_efi`, by its firmware.
    """

    arch: str
    transfer: int
    unpacked: int
    peak: int
    memory_least: int
    memory_bios: int
    memory_efi: int
    cmdline: int
    cmdline_limit: int = LIMIT


def preflight(image: Image) -> Preflight:
    packed, raw = image.initrd.size, _unpacked(image)
    return Preflight(
        arch=image.arch,
        transfer=image.kernel.size + packed,
        unpacked=raw,
        peak=packed + raw,
        memory_least=memory_least(image),
        memory_bios=memory_need(image, efi=False),
        memory_efi=memory_need(image, efi=True),
        cmdline=len(image.cmdline.encode("utf-8", "surrogateescape")),
    )


def memory_least(image: Image) -> int:
    """MiB below which a machine leaves files out, with one line on the console, whatever its firmware.

    The kernel's root is a tmpfs of half the memory, so the tree counts twice; the packed initrd lies beside it while it
    is unpacked.
    """
    return (2 * _unpacked(image) + image.initrd.size + image.kernel.size) // MIB


def memory_need(image: Image, *, efi: bool) -> int:
    """MiB of memory that this image wants at least (measured: 112 MiB unpacked, 32 packed: BIOS 320, UEFI 384).

    More than `memory_least` by what kernel and firmware take, which some machines tell as their memory and some do not.
    """
    return memory_least(image) + (_EFI if efi else _BIOS)


def unfit(machine: Machine, image: Image) -> Refused | None:
    """Why this machine, as far as it is known, cannot run the image: "arch-mismatch" or "memory-too-small"."""
    name = machine.name or machine.mac
    if machine.arch and image.arch and machine.arch != image.arch:
        return Refused(
            "arch-mismatch",
            f"{name} is {machine.arch}, {image.short} is for {image.arch}",
            hint=f"pxeserver build --arch {machine.arch} {image.spec}",
        )
    if machine.memory_mib and machine.memory_mib < memory_least(image):
        return Refused(
            "memory-too-small",
            f"{name} has {machine.memory_mib} MiB of memory, {image.short} wants {_wanted(machine, image)}",
            hint="make the image smaller, give the machine more memory, or assign it by force (--force)",
        )
    return None


def tight(machine: Machine, image: Image) -> str:
    """What a person should know of a machine that `unfit` lets pass; "" when there is room."""
    wanted = _wanted(machine, image)
    if machine.memory_mib and machine.memory_mib < wanted:
        return f"it has {machine.memory_mib} MiB of memory, {image.short} wants about {wanted}"
    return ""


def _wanted(machine: Machine, image: Image) -> int:
    return memory_need(image, efi=machine.facts.get("firmware") == "efi")


def _unpacked(image: Image) -> int:
    return image.initrd.raw_size or image.initrd.size
