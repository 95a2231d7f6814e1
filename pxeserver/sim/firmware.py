"""The firmware that can be simulated: what each sends, how long it waits, how it fetches. Data.

What a DISCOVER holds, and in what order, is what real firmware put on the wire (tests compare with recorded packets).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pxeserver.sim.rules import Edk2, Http, Ipxe, Pi, Rules, Uboot

_EDK2_ASKS = bytes.fromhex("0102030405060c0d0f111216171c28292a2b3233363a3b3c4243618081828384858687")
_EDK2_HTTP_ASKS = bytes.fromhex("0102030405060c0d0f111216171c28292a2b3233363a3b3ceb4361")
_IPXE1_ASKS = bytes.fromhex("010306070c0f111a2b3c4243778081828384858687afcb")
_IPXE2_ASKS = bytes.fromhex("010306070c0f111a2a2b3c424377798081828384858687afcb")
_PLAIN_ASKS = bytes.fromhex("010306070c0f111a2a2b3c424377798081828384858687cb")
# option 175: bus id, version, then a code for each feature
_IPXE1_ROM = bytes.fromhex(
    "b105011af41000eb03010000170101220101130101110101270101190101290101100102210101150101180101120101"
)
_IPXE2_BIOS = bytes.fromhex(
    "b105011af41000eb03020000170101270101220101130101140101110101190101290101100102210101150101260101180101120101"
)
_IPXE2_EFI = bytes.fromhex("b105011af41000eb03020000260101170101270101240101130101140101110101290101150101120101")

_IPXE1_EFI = bytes.fromhex("b105011af41000eb03010000170101240101130101110101270101290101150101120101")

_IPXE_ORDER = (53, 57, 93, 94, 60, 77, 55, 175, 61, 97)
_EDK2_ORDER = (53, 57, 55, 97, 94, 93, 60)


@dataclass(frozen=True, slots=True)
class TftpHabit:
    """How a firmware asks for a file. `probe`: it asks for the size alone first, and breaks that off by error 8."""

    options: tuple[tuple[str, int], ...]
    probe: bool = False
    timeout: float = 1.0  # seconds until it repeats what it said last; doubled each time, up to `timeout_max`
    timeout_max: float = 4.0
    tries: int = 6


@dataclass(frozen=True, slots=True)
class Firmware:
    """One kind of firmware. Waits in seconds; `asks` is option 55, `features` 175, `order` the codes of a DISCOVER."""

    name: str
    about: str
    rules: Rules
    arch: int
    undi: bytes
    vendor: bytes
    asks: bytes
    order: tuple[int, ...]
    discover: tuple[float, ...]  # how long it listens after each DISCOVER
    request: tuple[float, ...]  # the same for the REQUEST of an address
    ask: tuple[float, ...] = ()  # and for that to port 4011
    ask_port: int = 68  # the local port that it asks 4011 from
    max_size: int = 1472
    broadcast: bool = False
    secs: tuple[int, int] = (0, 0)  # in DISCOVER and REQUEST
    user_class: bytes = b""
    features: bytes = b""
    agent: str = "UefiHttpBoot/1.0"  # of HTTP
    tftp: TftpHabit = field(default_factory=lambda: TftpHabit(()))
    loads: Literal["nbp", "efi", "script", "pi"] = "efi"
    chained: str = ""  # the iPXE that its loader becomes
    autoexec: bool = False  # an iPXE that looks for autoexec.ipxe beside itself, before it asks DHCP
    platform: str = "efi"  # iPXE's word
    oui: str = "02:51:4d"  # of the MACs that are made up for it


_IPXE_WAITS = (1.0, 2.0, 4.0, 8.0)
_EDK2_WAITS = (4.0, 8.0, 16.0, 32.0)
_EDK2_TFTP = TftpHabit((("tsize", 0), ("blksize", 1468), ("windowsize", 4)), True, 4.0, 4.0)
_IPXE_TFTP = TftpHabit((("blksize", 1432), ("tsize", 0)), timeout=0.25, timeout_max=10.0, tries=7)

_EDK2 = Firmware(
    name="edk2",
    about="UEFI on x86-64, EDK2 of 2017-04 or later",
    rules=Edk2(),
    arch=7,
    undi=b"\1\3\0",
    vendor=b"PXEClient:Arch:00007:UNDI:003000",
    asks=_EDK2_ASKS,
    order=_EDK2_ORDER,
    discover=_EDK2_WAITS,
    request=_EDK2_WAITS,
    ask=(1.0, 2.0, 3.0, 4.0),
    ask_port=4011,
    broadcast=True,
    tftp=_EDK2_TFTP,
    chained="ipxe-efi",
)
_IPXE_ROM = Firmware(
    name="ipxe-rom",
    about="iPXE 1.0 in a network card's ROM, BIOS",
    rules=Ipxe(),
    arch=0,
    undi=b"\1\2\1",
    vendor=b"PXEClient:Arch:00000:UNDI:002001",
    asks=_IPXE1_ASKS,
    order=_IPXE_ORDER,
    discover=_IPXE_WAITS,
    request=_IPXE_WAITS,
    ask=(1.0, 2.0),
    secs=(4, 11),
    user_class=b"iPXE",
    features=_IPXE1_ROM,
    agent="iPXE/1.0.0+git-20190125.36a4c85-5.1",
    tftp=_IPXE_TFTP,
    loads="script",
    chained="ipxe",
    platform="pcbios",
)
_CHAINED = replace(
    _IPXE_ROM,
    name="ipxe",
    about="iPXE 2.0 that another boot loader started, BIOS",
    vendor=b"PXEClient",
    asks=_IPXE2_ASKS,
    broadcast=True,
    features=_IPXE2_BIOS,
    agent="iPXE/2.0.0+dfsg-5",
)
_CHAINED_EFI = replace(
    _CHAINED,
    name="ipxe-efi",
    about="iPXE 2.0 that UEFI started",
    arch=7,
    undi=b"\1\3\x0a",
    features=_IPXE2_EFI,
    chained="ipxe-efi",
    platform="efi",
    autoexec=True,
)
_CHAINED_EFI1 = replace(
    _IPXE_ROM,
    name="ipxe-efi1",
    about="iPXE 1.0 that UEFI started",
    arch=7,
    undi=b"\1\3\x0a",
    vendor=b"PXEClient:Arch:00007:UNDI:003010",
    features=_IPXE1_EFI,
    chained="ipxe-efi1",
    platform="efi",
)
_HTTP = replace(
    _EDK2,
    name="http",
    about="UEFI HTTP boot on x86-64, EDK2",
    rules=Http(),
    arch=16,
    vendor=b"HTTPClient:Arch:00016:UNDI:003000",
    asks=_EDK2_HTTP_ASKS,
    ask=(),
)

_ALL = (
    _EDK2,
    replace(
        _EDK2,
        name="edk2-2016",
        about="UEFI on x86-64, EDK2 before 2017-04",
        rules=Edk2(drops_pxe10=True),
        tftp=replace(_EDK2_TFTP, options=(("tsize", 0), ("blksize", 1468))),  # windows came in 2018-09
        chained="ipxe-efi1",
    ),
    replace(
        _EDK2,
        name="edk2-arm64",
        about="UEFI on arm64, EDK2",
        arch=11,
        vendor=b"PXEClient:Arch:00011:UNDI:003000",
        chained="ipxe-arm64",
    ),
    _HTTP,
    replace(
        _HTTP,
        name="http-arm64",
        about="UEFI HTTP boot on arm64, EDK2",
        arch=19,
        vendor=b"HTTPClient:Arch:00019:UNDI:003000",
        chained="ipxe-arm64",
    ),
    replace(
        _IPXE_ROM,
        name="bios",
        about="PXE ROM without iPXE, BIOS",
        asks=_PLAIN_ASKS,
        order=tuple(code for code in _IPXE_ORDER if code not in (77, 175)),
        user_class=b"",
        features=b"",
        agent="",
        loads="nbp",
    ),
    _IPXE_ROM,
    _CHAINED,
    _CHAINED_EFI,
    _CHAINED_EFI1,
    replace(_CHAINED_EFI, name="ipxe-arm64", about="iPXE 2.0 that UEFI started, arm64", arch=11, chained="ipxe-arm64"),
    Firmware(
        name="uboot",
        about="U-Boot on arm64, with SERVERIP_FROM_PROXYDHCP",
        rules=Uboot(),
        arch=22,
        undi=b"\1\0\0",
        vendor=b"U-Boot.armv8",
        asks=bytes((1, 3, 6, 12, 17)),
        order=(53, 57, 93, 94, 97, 60, 55),
        discover=(0.25, 0.5, 1.0, *(2.0,) * 13),
        request=(5.0,) * 5,
        max_size=576,
        tftp=TftpHabit((("timeout", 5), ("tsize", 0), ("blksize", 1468)), timeout=5.0, timeout_max=5.0, tries=10),
        chained="ipxe-arm64",
    ),
    Firmware(
        name="rpi",
        about="Raspberry Pi 4, its own boot ROM, then UEFI from start4.elf",
        rules=Pi(),
        arch=0,
        undi=b"\1\2\1",
        vendor=b"PXEClient:Arch:00000:UNDI:002001",
        asks=bytes((1, 3, 43, 60, 66, 67, *range(128, 136))),
        order=(53, 55, 93, 94, 97, 60),
        discover=(4.0,) * 11,
        request=(4.0,) * 4,
        tftp=TftpHabit((("tsize", 0), ("blksize", 1024)), timeout=1.0, timeout_max=4.0, tries=8),
        loads="pi",
        chained="edk2-arm64",
        oui="b8:27:eb",
    ),
)
FIRMWARE = {firmware.name: firmware for firmware in _ALL}
# What people own; the others are what a loader of these becomes.
NAMES = tuple(name for name in FIRMWARE if name not in ("ipxe-efi", "ipxe-efi1", "ipxe-arm64"))
