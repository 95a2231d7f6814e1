"""Disks that boot kernel and initrd by themselves: one partition with them, and what the firmware starts.

UEFI: a GPT with an EFI system partition whose BOOTX64.EFI is the image as one executable. BIOS: an MBR and syslinux.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pxeserver import units
from pxeserver.errors import Refused
from pxeserver.images import bootfiles, programs, uki
from pxeserver.images.initrd import Assembled
from pxeserver.images.store import Store
from pxeserver.images.target import Target, whole_path
from pxeserver.images.writers import Sink
from pxeserver.tools import need_files, need_tools

Form = Callable[[Assembled, Store, Target], Iterator[Path]]
_START = 1 << 20  # of the one partition
_SPARE = 1 << 20  # for the GPT at the end
_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_MBR = {Path("/usr/lib/syslinux/mbr/mbr.bin"): "syslinux-common"}
_QEMU = {"qemu-img": "qemu-utils"}
DEFAULT_SIZE = 1024 << 20  # of qcow2-bios, as in LinuxKit


def need_efi(arch: str) -> None:
    uki.find_stub(arch)
    need_tools({**bootfiles.FAT_TOOLS, "sfdisk": "fdisk"})


def need_bios(arch: str) -> None:
    bootfiles.only_bios(arch)
    need_tools({**bootfiles.FAT_TOOLS, "sfdisk": "fdisk", "syslinux": "syslinux"})
    need_files(_MBR)


def need_efi_converted(arch: str) -> None:
    need_efi(arch)
    need_tools(_QEMU)


def need_bios_converted(arch: str) -> None:
    need_bios(arch)
    need_tools(_QEMU)


def raw_efi(made: Assembled, store: Store, target: Target) -> Iterator[Path]:
    """BASE-efi.img."""
    with whole_path(target.path("-efi.img")) as out:
        _efi(out, made, store, target)
    yield target.path("-efi.img")


def raw_bios(made: Assembled, store: Store, target: Target) -> Iterator[Path]:
    """BASE-bios.img."""
    with whole_path(target.path("-bios.img")) as out:
        _bios(out, made, store, target)
    yield target.path("-bios.img")


def _converted(kind: str, ending: str, *, efi: bool = False, options: str = "", sized: bool = False) -> Form:
    """A form that is the raw disk in another format of qemu-img. `sized`: --size tells how large the disk is."""

    def make(made: Assembled, store: Store, target: Target) -> Iterator[Path]:
        with whole_path(target.path(ending)) as out, _temporary(target) as raw:
            (_efi if efi else _bios)(raw, made, store, target)
            if sized:
                _grow(raw, target.size or DEFAULT_SIZE)
            words = ["-o", options] if options else []
            programs.run(["qemu-img", "convert", "-f", "raw", "-O", kind, *words, raw, out])
        yield target.path(ending)

    return make


def _grow(raw: Path, size: int) -> None:
    least = raw.stat().st_size
    if size < least:
        raise Refused(
            "size-too-small",
            f"the disk takes {units.size(least)}, and --size gives it {units.size(size)}",
            hint=f"--size {(least + (1 << 20) - 1) >> 20}M",
        )
    with raw.open("r+b") as file:
        file.truncate(size)


@contextmanager
def _temporary(target: Target) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(dir=target.folder, prefix=f".{target.name}-") as file:
        yield Path(file.name)


def _efi(image: Path, made: Assembled, store: Store, target: Target) -> None:
    initrd = uki.Section(".initrd", made.initrd.size, lambda: store.open_blob(made.initrd.digest))
    with bootfiles.loader(made, store, target, initrd, made.cmdline) as loader:
        size = bootfiles.fat_size(loader.stat().st_size)
        _partitioned(
            image,
            size,
            "label: gpt",
            f"label-id: {bootfiles.ident(made, 'disk')}",
            f"start={_START // 512}, size={size // 512}, type={_ESP}, uuid={bootfiles.ident(made, 'esp')}, name=EFI",
        )
        bootfiles.make_fat(image, made, offset=_START, size=size)
        name = f"/EFI/BOOT/{bootfiles.LOADERS[made.arch]}"
        bootfiles.fill_fat(image, _START, ("/EFI", "/EFI/BOOT"), {name: loader})


def _bios(image: Path, made: Assembled, store: Store, target: Target) -> None:
    assert made.kernel is not None, "outputs.write looks first"
    kernel, initrd = store.blob_path(made.kernel.digest), store.blob_path(made.initrd.digest)
    size = bootfiles.fat_size(made.kernel.size + made.initrd.size)
    label_id = f"label-id: 0x{bootfiles.ident(made, 'disk').int & 0xFFFFFFFF:08x}"
    _partitioned(image, size, "label: dos", label_id, f"start={_START // 512}, size={size // 512}, type=c, bootable")
    with next(iter(_MBR)).open("rb") as mbr, image.open("r+b") as out:
        shutil.copyfileobj(mbr, out)  # ends before the table
    bootfiles.make_fat(image, made, offset=_START, size=size)
    with _temporary(target) as config:
        config.write_bytes(bootfiles.syslinux_config("/kernel", "/initrd.img", made.cmdline))
        files = {"/kernel": kernel, "/initrd.img": initrd, "/syslinux.cfg": config}
        bootfiles.fill_fat(image, _START, (), files)
    programs.run(["syslinux", "--offset", str(_START), "--install", image])


def _partitioned(image: Path, size: int, *script: str) -> None:
    with image.open("r+b") as file:
        file.truncate(_START + size + _SPARE)
    text = "\n".join([*script, ""]).encode()

    def feed(sink: Sink) -> None:
        sink.write(text)

    programs.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", image], feed)


qcow2_bios = _converted("qcow2", ".qcow2", sized=True)
qcow2_efi = _converted("qcow2", "-efi.qcow2", efi=True)
vhd = _converted("vpc", ".vhd", options="subformat=fixed,force_size=on")
dynamic_vhd = _converted("vpc", ".vhd", options="subformat=dynamic,force_size=on")
vmdk = _converted("vmdk", ".vmdk", options="subformat=streamOptimized")
