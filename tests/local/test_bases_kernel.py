"""Which modules come along, and the cpio of microcode."""

from __future__ import annotations

from pathlib import Path

from pxeserver.images.entry import text
from pxeserver.local.bases import kernel
from pxeserver.local.bases.deb import Unpacked
from pxeserver.local.bases.recipe import Kernel

MODULES: dict[str, tuple[str, ...]] = {
    "drivers/net/card.ko": ("mii", "shared-code"),
    "drivers/net/mii.ko": (),
    "drivers/media/shared-code.ko": ("deep_one",),
    "drivers/media/deep-one.ko.xz": (),
    "drivers/media/camera.ko": ("deep_one",),
    "drivers/mediator/other.ko": (),
}


def test_dropped_folders_give_back_what_others_depend_on() -> None:
    assert kernel.chosen(Kernel(package="x", drop=("drivers/media/",)), MODULES) == (
        "drivers/media/deep-one.ko.xz",
        "drivers/media/shared-code.ko",
        "drivers/mediator/other.ko",
        "drivers/net/card.ko",
        "drivers/net/mii.ko",
    )


def test_an_exception_to_a_dropped_folder_is_kept() -> None:
    chosen = kernel.chosen(Kernel(package="x", drop=("drivers/",), keep=("drivers/media/camera",)), MODULES)
    assert chosen == ("drivers/media/camera.ko", "drivers/media/deep-one.ko.xz")


def test_what_a_module_needs_is_read_out_of_it() -> None:
    assert kernel.depends(b"\x7fELF..\0license=GPL\0depends=virtio,virtio_ring,net-failover\0retpoline=Y\0") == (
        "virtio",
        "virtio_ring",
        "net-failover",
    )
    assert kernel.depends(b"\0depends=\0intree=Y\0") == ()


def test_microcode_is_a_cpio_that_the_kernel_finds(tmp_path: Path) -> None:
    unpacked = Unpacked(tmp_path)
    for name, data in (
        ("amd-ucode/microcode_amd.bin", b"AMD0"),
        ("amd-ucode/microcode_amd_fam15h.bin", b"AMD15"),
        ("amd-ucode/README", b"text"),
        ("intel-ucode/06-03-02", b"INTEL"),
    ):
        path = f"usr/lib/firmware/{name}"
        unpacked.disk[path] = tmp_path / name.replace("/", "-")
        unpacked.disk[path].write_bytes(data)
        unpacked.entries[path] = text(path, data)
    found = kernel.microcode(unpacked, tmp_path / "ucode.cpio")
    assert found is not None
    raw = found.read_bytes()
    assert raw.startswith(b"070701") and len(raw) % 512 == 0
    assert b"kernel/x86/microcode/AuthenticAMD.bin\0" in raw and b"AMD0AMD15" in raw
    assert b"kernel/x86/microcode/GenuineIntel.bin\0" in raw and b"INTEL" in raw
    assert b"text" not in raw


def test_without_microcode_there_is_no_file(tmp_path: Path) -> None:
    assert kernel.microcode(Unpacked(tmp_path), tmp_path / "ucode.cpio") is None
    assert not (tmp_path / "ucode.cpio").exists()
