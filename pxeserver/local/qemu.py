"""QEMU machines: what they are made of as a value, the command line that makes them, and one that runs in a lab."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pxeserver.errors import NotFound
from pxeserver.local import netlab
from pxeserver.mac import Mac

BINARY = "qemu-system-x86_64"
BINARY_ARM = "qemu-system-aarch64"
TOOLS = {BINARY: "qemu-system-x86"}
TOOLS_ARM = {BINARY_ARM: "qemu-system-arm"}
# code and variables of OVMF as the distributions lay them out, the larger flash first
FIRMWARE = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
)
# the same with Secure Boot, and the keys of Microsoft in the variables
FIRMWARE_SECURE = (
    ("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
    ("/usr/share/OVMF/OVMF_CODE.secboot.fd", "/usr/share/OVMF/OVMF_VARS.ms.fd"),
)
FIRMWARE_ARM = (
    ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
    ("/usr/share/edk2/aarch64/QEMU_CODE.fd", "/usr/share/edk2/aarch64/QEMU_VARS.fd"),
)
# what OVMF reads of its PXE client (OvmfPkg/README, "NETWORK SUPPORT")
PXE_SWITCHES = ("opt/org.tianocore/IPv4PXESupport", "opt/org.tianocore/IPv6PXESupport")


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine without a disk. `rom` None = the card's own PXE ROM (QEMU's iPXE), "" = none, else a file.

    `network` "http" leaves UEFI nothing but HTTP boot, as a firmware setup can, "pxe6" begins with PXE by IPv6; "" is
    whatever it tries by itself. `secure` is Secure Boot, with Microsoft's keys or those in the file `variables`. Arm64
    is always UEFI.
    """

    mac: Mac = "52:54:00:77:00:01"
    uefi: bool = False
    memory_mib: int = 1024
    cpus: int = 1
    nic: str = "virtio-net-pci"
    rom: str | None = None
    network: Literal["", "http", "pxe6"] = ""
    arch: Literal["amd64", "arm64"] = "amd64"
    secure: bool = False
    variables: Path | None = None
    accel: str = "tcg"


@dataclass(frozen=True, slots=True)
class Kernel:
    """Files for a direct boot, without any network firmware."""

    kernel: Path
    initrd: Path | None
    cmdline: str


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk or CD that the firmware may boot: /dev/sda or /dev/sr0. Nothing is ever written to its file."""

    path: Path
    format: str = "raw"
    cdrom: bool = False
    readonly: bool = False


def firmware(hardware: Hardware) -> tuple[Path, Path]:
    """UEFI firmware of such a machine: (code, template of its variables). NotFound "firmware-missing"."""
    arm = hardware.arch == "arm64"
    for code, variables in FIRMWARE_ARM if arm else FIRMWARE_SECURE if hardware.secure else FIRMWARE:
        if Path(code).is_file() and Path(variables).is_file():
            return Path(code), hardware.variables or Path(variables)
    package = "qemu-efi-aarch64" if arm else "ovmf"
    raise NotFound(
        "firmware-missing", f"no UEFI firmware for {hardware.arch} on this host", hint=f"apt-get install {package}"
    )


def command(
    hardware: Hardware,
    *,
    netdev: str,
    serial: Sequence[str],
    folder: Path,
    kernel: Kernel | None = None,
    drive: Drive | None = None,
) -> list[str]:
    """The whole QEMU command line.

    `netdev` is QEMU's own description without the id ("tap,ifname=t0,..."), `serial` the options of the console.
    With UEFI a copy of the firmware's variables is made in `folder`, which must exist.
    """
    uefi = hardware.uefi or hardware.arch == "arm64"
    card = f"{hardware.nic},netdev=n0,mac={hardware.mac},bootindex=1"
    if hardware.rom is not None:
        card += f",romfile={hardware.rom}"
    argv = [
        *(BINARY_ARM if hardware.arch == "arm64" else BINARY, "-accel", hardware.accel),
        *("-machine", _board(hardware), "-cpu", _cpu(hardware)),
        *("-m", str(hardware.memory_mib), "-smp", str(hardware.cpus)),
        *("-nodefaults", "-display", "none", "-vga", "none"),
        *("-boot", "reboot-timeout=3000"),  # ms; a machine without a disk tries the network again and again
        *("-netdev", f"{netdev},id=n0", "-device", card, "-device", "virtio-rng-pci"),
        *serial,
    ]
    if uefi:
        code, template = firmware(hardware)
        variables = folder / f"{hardware.mac.replace(':', '')}.vars"
        shutil.copyfile(template, variables)
        argv += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={_plain(code)}"]
        argv += ["-drive", f"if=pflash,format=raw,unit=1,file={_plain(variables)}"]
        if hardware.secure:  # only the firmware, in system management mode, may write the variables
            argv += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        off = {"": (), "http": PXE_SWITCHES, "pxe6": PXE_SWITCHES[:1]}[hardware.network]
        argv += [word for switch in off for word in ("-fw_cfg", f"name={switch},string=n")]
    if drive is not None:
        kind = "media=cdrom,readonly=on" if drive.cdrom else "readonly=on" if drive.readonly else "snapshot=on"
        argv += ["-drive", f"if=none,id=d0,format={drive.format},{kind},file={_plain(drive.path)}"]
        first = "" if kernel else ",bootindex=0"
        argv += ["-device", "virtio-scsi-pci", "-device", f"scsi-{'cd' if drive.cdrom else 'hd'},drive=d0{first}"]
    if kernel is not None:
        argv += ["-kernel", str(kernel.kernel)]
        if kernel.cmdline:  # an EFI program has its own, and an empty one would replace it
            argv += ["-append", kernel.cmdline]
        if kernel.initrd is not None:
            argv += ["-initrd", str(kernel.initrd)]
    return argv


def _board(hardware: Hardware) -> str:
    if hardware.arch == "arm64":
        return "virt"
    if hardware.uefi:
        return "q35,smm=on" if hardware.secure else "q35"
    return "q35,graphics=off"  # SeaBIOS: text of the firmware on the serial port too


def _cpu(hardware: Hardware) -> str:
    if hardware.accel != "tcg":
        return "host"
    # pointer authentication by its own cipher would cost half of the speed
    return "max,pauth-impdef=on" if hardware.arch == "arm64" else "max"


def _plain(path: Path) -> str:
    """A path inside a comma-separated option: a comma is written twice."""
    return str(path).replace(",", ",,")


class Machine:
    """A diskless machine on a tap of a lab. `with` is its power: on at the start of the block, off at the end."""

    def __init__(self, lab: netlab.Lab, name: str, hardware: Hardware) -> None:
        netlab.need_tools(TOOLS_ARM if hardware.arch == "arm64" else TOOLS)
        self.lab = lab
        self.name = name
        self.hardware = hardware
        self.started = 0.0  # Unix seconds of power-on
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def console(self) -> str:
        """What the serial console showed so far."""
        file = self.lab.folder / f"{self.name}.serial"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Machine:
        tap = self.lab.tap(self.name)
        argv = command(
            self.hardware,
            netdev=f"tap,ifname={tap},script=no,downscript=no",
            serial=["-serial", f"file:{_plain(self.lab.folder / self.name)}.serial"],
            folder=self.lab.folder,
        )
        self.started = time.time()
        self._process = self.lab.spawn("sw", argv, self.name)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            netlab.stop(self._process)
            self.lab.processes.remove(self._process)
            self._process = None
            self.lab.untap(self.name)
