"""CDs that boot by themselves: the root is the CD, started by isolinux on a BIOS, by the kernel's own EFI stub on UEFI.

LinuxKit's iso-bios and iso-efi. Written to a USB stick they boot too, with root= the stick's device.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pxeserver.errors import Refused
from pxeserver.images import bootfiles, early, uki
from pxeserver.images.entry import FIXED_TIME
from pxeserver.images.initrd import Assembled
from pxeserver.images.rootforms import Unpacked, make_iso, need_iso, unpacked
from pxeserver.images.rootfs import RootTree
from pxeserver.images.store import Store
from pxeserver.images.target import Target, whole_path
from pxeserver.tools import need_files, need_tools

_CD = "/dev/sr0"
_ISOLINUX = Path("/usr/lib/ISOLINUX")
_FILES = {
    _ISOLINUX / "isolinux.bin": "isolinux",
    _ISOLINUX / "isohdpfx.bin": "isolinux",
    Path("/usr/lib/syslinux/modules/bios/ldlinux.c32"): "syslinux-common",
}
_EFI_IMAGE = 32 << 20  # El Torito counts 65535 blocks of 512 bytes


def need_bios(arch: str) -> None:
    bootfiles.only_bios(arch)
    need_iso(arch)
    need_files(_FILES)


def need_efi(arch: str) -> None:
    uki.find_stub(arch)
    need_iso(arch)
    need_tools(bootfiles.FAT_TOOLS)


def bios(made: Assembled, store: Store, target: Target) -> Iterator[Path]:
    """BASE.iso."""
    assert made.kernel is not None, "outputs.write looks first"
    tree = RootTree(made, store)
    with whole_path(target.path(".iso")) as out, unpacked(tree, target) as folder:
        home = folder.path / "boot/isolinux"
        home.mkdir(parents=True, exist_ok=True)
        for path in _FILES:
            if path.name != "isohdpfx.bin":
                shutil.copyfile(path, home / path.name)
        shutil.copyfile(store.blob_path(made.kernel.digest), folder.path / "boot/kernel")
        with (folder.path / "boot/initrd.img").open("wb") as file:
            first = early.write(file, made, tree, store)
        if not first:
            (folder.path / "boot/initrd.img").unlink()
        words = bootfiles.with_root(made.cmdline, _CD)
        config = bootfiles.syslinux_config("/boot/kernel", "/boot/initrd.img" if first else "", words)
        (home / "isolinux.cfg").write_bytes(config)
        _dated(folder)
        start = ("-b", "boot/isolinux/isolinux.bin", "-c", "boot/isolinux/boot.cat")
        how = ("-no-emul-boot", "-boot-load-size", "4", "-boot-info-table")
        make_iso(folder, out, target.name, [*start, *how, "-isohybrid-mbr", _ISOLINUX / "isohdpfx.bin"])
    yield target.path(".iso")


def _dated(folder: Unpacked) -> None:
    """What was put in besides has the fixed time too."""
    for path in [folder.path / "boot", *(folder.path / "boot").rglob("*"), folder.path]:
        os.utime(path, (FIXED_TIME, FIXED_TIME))
        if path.is_file():
            path.chmod(0o644)


def efi(made: Assembled, store: Store, target: Target) -> Iterator[Path]:
    """BASE-efi.iso."""
    tree = RootTree(made, store)
    with (
        whole_path(target.path("-efi.iso")) as out,
        unpacked(tree, target) as folder,
        _esp(made, tree, store, target) as esp,
    ):
        partition = ("-append_partition", "2", "0xef", esp, "-appended_part_as_gpt")
        boot = ("-e", "--interval:appended_partition_2:all::", "-no-emul-boot")
        make_iso(folder, out, target.name, [*partition, *boot])
    yield target.path("-efi.iso")


@contextmanager
def _esp(made: Assembled, tree: RootTree, store: Store, target: Target) -> Iterator[Path]:
    """A FAT with the loader: the kernel with the early initrd, and the CD as its root."""
    first = io.BytesIO()
    early.write(first, made, tree, store)  # a few MiB
    data = first.getvalue()
    section = uki.text(".initrd", data) if data else None
    cmdline = bootfiles.with_root(made.cmdline, _CD)
    with bootfiles.loader(made, store, target, section, cmdline) as loader:
        size = loader.stat().st_size + (1 << 20)
        if size > _EFI_IMAGE:
            raise Refused(
                "iso-efi-too-large",
                "kernel and early initrd are more than 31 MiB together; a CD's boot image ends there",
            )
        with tempfile.NamedTemporaryFile(dir=target.folder, prefix=f".{target.name}-") as file:
            file.truncate((size + 0xFFFFF) // 0x100000 * 0x100000)
            esp = Path(file.name)
            bootfiles.make_fat(esp, made, offset=0, size=esp.stat().st_size)
            bootfiles.fill_fat(esp, 0, ("/EFI", "/EFI/BOOT"), {f"/EFI/BOOT/{bootfiles.LOADERS[made.arch]}": loader})
            yield esp
