"""What `run` can boot, found by a path as `build` writes it: kernels, root file systems, CDs, disks, EFI programs."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from pxeserver.errors import NotFound
from pxeserver.images.bootfiles import with_root
from pxeserver.local.qemu import Drive, Kernel

_DISK, _CD = "/dev/sda", "/dev/sr0"
_EARLY = "-early-initrd.img"
_ARCHIVE = "-initrd.tar"
_PARTS = ("kernel", "initrd.img", "cmdline")
# ending -> (is a CD, QEMU's format, firmware that starts it)
_DISKS = {
    "-efi.iso": (True, "raw", "uefi"),
    ".iso": (True, "raw", "bios"),
    "-efi.img": (False, "raw", "uefi"),
    "-bios.img": (False, "raw", "bios"),
    "-efi.qcow2": (False, "qcow2", "uefi"),
    ".qcow2": (False, "qcow2", "bios"),
    ".vhd": (False, "vpc", "bios"),
    ".vmdk": (False, "vmdk", "bios"),
}
_ROOTS = {"-squashfs.img": False, "-erofs.img": False, ".iso": True}
_EL_TORITO = 17 * 2048 + 7  # where a CD says that it boots


@dataclass(frozen=True, slots=True)
class Bootable:
    """`firmware`: "bios" or "uefi" where only that one starts it, "" = either. `what` names the files, for people.

    `archive`: kernel and initrd are in it, for `unpack`.
    """

    what: str
    kernel: Kernel | None = None
    drive: Drive | None = None
    firmware: str = ""
    archive: Path | None = None


def find(text: str) -> Bootable | None:
    """By a file's own path, else by the prefix of files: those that have most in common with LinuxKit's order first."""
    path = Path(text)
    if path.is_file():
        return _by_file(path)
    return _by_prefix(path)


def unpack(archive: Path, folder: Path) -> Kernel:
    """What a direct boot needs out of `-f tar-kernel-initrd`. NotFound "image-files-missing" if there is no kernel."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                source = tar.extractfile(member) if member.name in _PARTS else None
                if source is not None:
                    with source, (folder / member.name).open("wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
    except tarfile.TarError:
        raise missing(str(archive)) from None
    kernel, initrd, words = (folder / name for name in _PARTS)
    if not kernel.is_file():
        raise missing(str(archive))
    cmdline = words.read_text().strip() if words.is_file() else ""
    return Kernel(kernel, initrd if initrd.is_file() else None, cmdline)


def missing(text: str) -> NotFound:
    ends = ", ".join(["-kernel", "-squashfs.img", ".efi", *_DISKS, _ARCHIVE])
    return NotFound(
        "image-files-missing",
        f"nothing to boot at {text}",
        hint=f"a file, or what stands before one of: {ends}; pxeserver build -f FORMAT writes them",
    )


def _with(prefix: Path, ending: str) -> Path:
    return prefix.with_name(prefix.name + ending)


def _by_file(path: Path) -> Bootable | None:
    if path.name.endswith(".efi"):
        return Bootable(str(path), Kernel(path, None, ""), firmware="uefi")
    if path.name.endswith(_ARCHIVE):
        return Bootable(str(path), archive=path)
    for ending in _ROOTS:
        prefix = path.with_name(path.name.removesuffix(ending))
        if path.name.endswith(ending) and not _boots(path):
            return _rooted(prefix, ending)
    for ending, (cdrom, form, firmware) in _DISKS.items():
        if path.name.endswith(ending):
            return Bootable(str(path), drive=Drive(path, form, cdrom=cdrom), firmware=firmware)
    prefix = path.with_name(path.name.removesuffix("-kernel"))
    return _by_prefix(prefix) if path.name.endswith("-kernel") else None


def _by_prefix(prefix: Path) -> Bootable | None:
    kernel, initrd = _with(prefix, "-kernel"), _with(prefix, "-initrd.img")
    if kernel.is_file():
        root = next((end for end in _ROOTS if _with(prefix, end).is_file() and not _boots(_with(prefix, end))), "")
        if root and not initrd.is_file():
            return _rooted(prefix, root)
        return Bootable(str(kernel), Kernel(kernel, initrd if initrd.is_file() else None, _cmdline(prefix)))
    found = next((p for end in (".efi", *_DISKS, _ARCHIVE) if (p := _with(prefix, end)).is_file()), None)
    return _by_file(found) if found else None


def _rooted(prefix: Path, ending: str) -> Bootable | None:
    """A kernel, and its root on a disk or CD."""
    kernel, early = _with(prefix, "-kernel"), _with(prefix, _EARLY)
    if not kernel.is_file():
        return None
    cdrom = _ROOTS[ending]
    words = with_root(_cmdline(prefix), _CD if cdrom else _DISK)
    drive = Drive(_with(prefix, ending), cdrom=cdrom, readonly=True)
    return Bootable(str(drive.path), Kernel(kernel, early if early.is_file() else None, words), drive)


def _cmdline(prefix: Path) -> str:
    path = _with(prefix, "-cmdline")
    return path.read_text().strip() if path.is_file() else ""


def _boots(path: Path) -> bool:
    """Whether an ISO 9660 image boots by itself (El Torito 1.0, boot record volume descriptor)."""
    if path.suffix != ".iso":
        return False
    with path.open("rb") as file:
        file.seek(_EL_TORITO)
        return file.read(23) == b"EL TORITO SPECIFICATION"
