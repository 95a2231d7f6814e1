"""Which of the files that a build wrote `run` takes, and what it makes of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from pxeserver.cli.main import cli
from pxeserver.errors import NotFound
from pxeserver.local import bootable, qemu
from pxeserver.local.bootable import Bootable

EL_TORITO = bytes(17 * 2048) + b"\0CD001\1EL TORITO SPECIFICATION" + bytes(2048)


def files(folder: Path, *endings: str) -> str:
    for ending in endings:
        boots = ending.endswith(".iso") and "-kernel" not in endings
        (folder / f"web{ending}").write_bytes(
            b"console=ttyS0\n" if ending == "-cmdline" else EL_TORITO if boots else b"x"
        )
    return str(folder / "web")


@pytest.mark.parametrize(
    ("ending", "device", "cdrom"),
    [("-squashfs.img", "/dev/sda", False), ("-erofs.img", "/dev/sda", False), (".iso", "/dev/sr0", True)],
)
def test_a_kernel_with_its_root(tmp_path: Path, ending: str, device: str, cdrom: bool) -> None:
    prefix = files(tmp_path, "-kernel", "-cmdline", "-early-initrd.img", ending)
    root = tmp_path / f"web{ending}"
    kernel = qemu.Kernel(tmp_path / "web-kernel", tmp_path / "web-early-initrd.img", f"console=ttyS0 root={device}")
    expected = Bootable(str(root), kernel, qemu.Drive(root, cdrom=cdrom, readonly=True))
    assert bootable.find(prefix) == expected == bootable.find(str(root))


def test_a_root_of_ones_own_stays(tmp_path: Path) -> None:
    prefix = files(tmp_path, "-kernel", "-squashfs.img")
    (tmp_path / "web-cmdline").write_text("root=/dev/vda quiet")
    found = bootable.find(prefix)
    assert found and found.kernel == qemu.Kernel(tmp_path / "web-kernel", None, "root=/dev/vda quiet")


def test_kernel_and_initrd_come_first(tmp_path: Path) -> None:
    prefix = files(tmp_path, "-kernel", "-initrd.img", "-squashfs.img", ".efi", "-efi.img")
    found = bootable.find(prefix)
    assert found and found.drive is None and found.kernel and found.kernel.initrd == tmp_path / "web-initrd.img"
    assert bootable.find(f"{prefix}-kernel") == found


@pytest.mark.parametrize(
    ("ending", "form", "firmware"),
    [
        ("-efi.iso", "raw", "uefi"), (".iso", "raw", "bios"), ("-efi.img", "raw", "uefi"),
        ("-bios.img", "raw", "bios"), (".vhd", "vpc", "bios"), (".vmdk", "vmdk", "bios"),
        ("-efi.qcow2", "qcow2", "uefi"), (".qcow2", "qcow2", "bios"),
    ],
)  # fmt: skip
def test_disks_and_cds(tmp_path: Path, ending: str, form: str, firmware: str) -> None:
    prefix = files(tmp_path, ending)
    drive = qemu.Drive(tmp_path / f"web{ending}", form, cdrom=ending.endswith("iso"))
    assert bootable.find(prefix) == Bootable(str(drive.path), None, drive, firmware) == bootable.find(str(drive.path))


def test_an_efi_program_keeps_its_own_command_line(tmp_path: Path) -> None:
    found = bootable.find(files(tmp_path, ".efi"))
    assert found and found.firmware == "uefi" and found.kernel == qemu.Kernel(tmp_path / "web.efi", None, "")
    argv = qemu.command(qemu.Hardware(), netdev="user", serial=[], folder=tmp_path, kernel=found.kernel)
    assert "-append" not in argv


def packed(archive: Path, **members: bytes) -> Path:
    with tarfile.open(archive, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def test_an_archive_of_kernel_and_initrd_is_unpacked(tmp_path: Path) -> None:
    archive = packed(tmp_path / "web-initrd.tar", kernel=b"k", initrd_img=b"i", cmdline=b"quiet\n", ucode_cpio=b"u")
    assert (
        bootable.find(str(tmp_path / "web")) == Bootable(str(archive), archive=archive) == bootable.find(str(archive))
    )
    (tmp_path / "here").mkdir()
    kernel = bootable.unpack(archive, tmp_path / "here")
    assert kernel == qemu.Kernel(tmp_path / "here" / "kernel", tmp_path / "here" / "initrd.img", "quiet")
    assert (kernel.kernel.read_bytes(), (tmp_path / "here" / "initrd.img").read_bytes()) == (b"k", b"i")


@pytest.mark.parametrize("content", [b"", b"no archive at all", None], ids=["empty", "other", "no kernel"])
def test_an_archive_without_a_kernel_is_nothing_to_boot(tmp_path: Path, content: bytes | None) -> None:
    archive = packed(tmp_path / "web-initrd.tar", initrd_img=b"i")
    if content is not None:
        archive.write_bytes(content)
    with pytest.raises(NotFound, match="nothing to boot"):
        bootable.unpack(archive, tmp_path)


@pytest.mark.parametrize("endings", [(), ("-initrd.img",), ("-squashfs.img",), ("-cmdline",)])
def test_nothing_to_boot(tmp_path: Path, endings: tuple[str, ...]) -> None:
    assert bootable.find(files(tmp_path, *endings)) is None


def test_the_other_firmware_is_refused(tmp_path: Path) -> None:
    files(tmp_path, "-efi.img")
    done = CliRunner().invoke(cli, ["run", f"{tmp_path}/web-efi.img", "--bios"])
    assert "run-firmware" in f"{done.output}{done.exception}" and done.exit_code != 0


@pytest.mark.parametrize(
    ("drive", "words"),
    [
        (qemu.Drive(Path("/a,b.iso"), cdrom=True), "if=none,id=d0,format=raw,media=cdrom,readonly=on,file=/a,,b.iso"),
        (qemu.Drive(Path("/d.qcow2"), "qcow2"), "if=none,id=d0,format=qcow2,snapshot=on,file=/d.qcow2"),
        (qemu.Drive(Path("/s.img"), readonly=True), "if=none,id=d0,format=raw,readonly=on,file=/s.img"),
    ],
)
def test_a_drive_is_never_written_to(tmp_path: Path, drive: qemu.Drive, words: str) -> None:
    argv = qemu.command(qemu.Hardware(), netdev="user", serial=[], folder=tmp_path, drive=drive)
    assert argv[argv.index("-drive") + 1] == words
    assert argv[-1].endswith("drive=d0,bootindex=0")
