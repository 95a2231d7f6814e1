"""What several forms share: a command line with a root, identifiers that follow from the image, a FAT with a loader."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from pxeserver.errors import Refused
from pxeserver.images import programs, uki, ukiform
from pxeserver.images.initrd import Assembled
from pxeserver.images.store import Store
from pxeserver.images.target import Target

_SPACE = uuid.UUID("a1d2b9c4-3c0e-5b57-8f5d-6a7c1e9f4d20")
_MIB = 1 << 20
_FAT32 = 34 * _MIB  # it has at least 65525 clusters
LOADERS = {"amd64": "BOOTX64.EFI", "arm64": "BOOTAA64.EFI"}  # UEFI 2.10, 3.5.1.1
FAT_TOOLS = {"mkfs.vfat": "dosfstools", "mcopy": "mtools"}


def ident(made: Assembled, what: str) -> uuid.UUID:
    """The same for the same image: identifiers are part of the bytes."""
    return uuid.uuid5(_SPACE, f"{made.digest} {what}")


def with_root(cmdline: str, device: str) -> str:
    """The command line with `root=` at its end, unless it has one."""
    if any(word.startswith("root=") for word in cmdline.split()):
        return cmdline
    return f"{cmdline} root={device}".lstrip()


def syslinux_config(kernel: str, initrd: str, cmdline: str) -> bytes:
    """`initrd` "" = none."""
    words = cmdline.encode("utf-8", "surrogateescape")
    lines = ["SERIAL 0 115200", "DEFAULT linux", "LABEL linux", f"  KERNEL {kernel}"]
    lines += [f"  INITRD {initrd}"] if initrd else []
    return "\n".join([*lines, "  APPEND "]).encode() + words + b"\n"


def only_bios(arch: str) -> None:
    """Refused "format-arch" for machines that never have a BIOS."""
    if arch != "amd64":
        raise Refused("format-arch", f"a BIOS starts nothing on {arch}", hint="raw-efi, qcow2-efi, iso-efi, uki")


@contextmanager
def loader(made: Assembled, store: Store, target: Target, initrd: uki.Section | None, cmdline: str) -> Iterator[Path]:
    """The image as an EFI executable in a temporary file beside the output."""
    with tempfile.NamedTemporaryFile(dir=target.folder, prefix=f".{target.name}-") as file:
        ukiform.write(cast(BinaryIO, file), made, store, target.name, initrd, cmdline)
        file.flush()
        yield Path(file.name)


def fat_size(content: int) -> int:
    """Bytes that a FAT for files of so many bytes takes, whole MiB."""
    return max(content + content // 64 + 2 * _MIB, _FAT32) // _MIB * _MIB


def make_fat(image: Path, made: Assembled, *, offset: int, size: int, label: str = "LINUXKIT") -> None:
    """An empty FAT of `size` bytes at `offset` of a file; FAT32 where it is large enough for one."""
    bits = ("-F", "32") if size >= _FAT32 else ()
    serial = f"{ident(made, 'fat').int & 0xFFFFFFFF:08x}"
    words = ("--invariant", *bits, "-i", serial, "-n", label, "-h", str(offset // 512))
    programs.run(["mkfs.vfat", *words, f"--offset={offset // 512}", image, str(size // 1024)])


def fill_fat(image: Path, offset: int, folders: tuple[str, ...], files: dict[str, Path]) -> None:
    at = f"{image}@@{offset}"
    if folders:
        programs.run(["mmd", "-i", at, *(f"::{folder}" for folder in folders)])
    for name, source in files.items():
        programs.run(["mcopy", "-i", at, source, f"::{name}"])
