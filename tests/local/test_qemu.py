"""The QEMU command line as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from pxeserver.errors import NotFound
from pxeserver.local import qemu

SERIAL = ["-serial", "file:/lab/m1.serial"]


def test_a_bios_machine_has_its_own_rom_and_retries_for_ever(tmp_path: Path) -> None:
    argv = qemu.command(qemu.Hardware(), netdev="tap,ifname=t0", serial=SERIAL, folder=tmp_path)
    assert argv == [
        *("qemu-system-x86_64", "-accel", "tcg", "-machine", "q35,graphics=off", "-cpu", "max"),
        *("-m", "1024", "-smp", "1", "-nodefaults", "-display", "none", "-vga", "none"),
        *("-boot", "reboot-timeout=3000"),
        *("-netdev", "tap,ifname=t0,id=n0"),
        *("-device", "virtio-net-pci,netdev=n0,mac=52:54:00:77:00:01,bootindex=1"),
        *("-device", "virtio-rng-pci", "-serial", "file:/lab/m1.serial"),
    ]


def test_a_direct_boot_names_kernel_initrd_and_command_line(tmp_path: Path) -> None:
    kernel = qemu.Kernel(Path("/k"), Path("/i"), "console=ttyS0 quiet")
    hardware = qemu.Hardware(rom="", accel="kvm", memory_mib=512, cpus=2)
    argv = qemu.command(hardware, netdev="user", serial=SERIAL, folder=tmp_path, kernel=kernel)
    assert argv[-6:] == ["-kernel", "/k", "-append", "console=ttyS0 quiet", "-initrd", "/i"]
    assert argv[argv.index("-cpu") + 1] == "host"
    assert any(word.endswith(",romfile=") for word in argv)


def test_a_uefi_machine_has_its_own_copy_of_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, variables = tmp_path / "code,1.fd", tmp_path / "vars.fd"
    code.write_bytes(b"code")
    variables.write_bytes(b"variables")
    monkeypatch.setattr(qemu, "FIRMWARE", (("/nowhere/code", "/nowhere/vars"), (str(code), str(variables))))
    argv = qemu.command(qemu.Hardware(uefi=True, rom=""), netdev="user", serial=SERIAL, folder=tmp_path)
    assert f"if=pflash,format=raw,unit=0,readonly=on,file={tmp_path}/code,,1.fd" in argv
    assert f"if=pflash,format=raw,unit=1,file={tmp_path}/525400770001.vars" in argv
    assert (tmp_path / "525400770001.vars").read_bytes() == b"variables"


def test_missing_firmware_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "FIRMWARE", (("/nowhere/code", "/nowhere/vars"),))
    with pytest.raises(NotFound) as caught:
        qemu.command(qemu.Hardware(uefi=True), netdev="user", serial=SERIAL, folder=tmp_path)
    assert (caught.value.slug, caught.value.hint) == ("firmware-missing", "apt-get install ovmf")


def test_secure_boot_keeps_the_variables_to_the_firmware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("code.fd", "microsoft.fd", "own.fd"):
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.setattr(qemu, "FIRMWARE_SECURE", ((str(tmp_path / "code.fd"), str(tmp_path / "microsoft.fd")),))
    hardware = qemu.Hardware(uefi=True, rom="", secure=True, variables=tmp_path / "own.fd")
    argv = qemu.command(hardware, netdev="user", serial=SERIAL, folder=tmp_path)
    assert argv[argv.index("-machine") + 1] == "q35,smm=on"
    assert argv[argv.index("-global") + 1] == "driver=cfi.pflash01,property=secure,value=on"
    assert (tmp_path / "525400770001.vars").read_bytes() == b"own.fd"


def test_http_boot_alone_switches_pxe_off(tmp_path: Path) -> None:
    argv = qemu.command(qemu.Hardware(uefi=True, network="http"), netdev="user", serial=SERIAL, folder=tmp_path)
    assert [word for word in argv if "PXESupport" in word] == [
        "name=opt/org.tianocore/IPv4PXESupport,string=n",
        "name=opt/org.tianocore/IPv6PXESupport,string=n",
    ]


def test_an_arm64_machine_is_another_qemu_with_firmware_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code.fd").write_bytes(b"code")
    (tmp_path / "vars.fd").write_bytes(b"vars")
    monkeypatch.setattr(qemu, "FIRMWARE_ARM", ((str(tmp_path / "code.fd"), str(tmp_path / "vars.fd")),))
    argv = qemu.command(qemu.Hardware(arch="arm64", rom=""), netdev="user", serial=SERIAL, folder=tmp_path)
    assert argv[:7] == [
        *("qemu-system-aarch64", "-accel", "tcg", "-machine", "virt", "-cpu", "max,pauth-impdef=on"),
    ]
    assert f"if=pflash,format=raw,unit=0,readonly=on,file={tmp_path}/code.fd" in argv
