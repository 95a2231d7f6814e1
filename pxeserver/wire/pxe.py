"""PXE's vocabulary inside DHCP: architectures (option 93), vendor and user class (60, 77), 43, 94, 97, 175.

Sources: PXE 2.1, RFC 4578 and 5970, the IANA table "Processor Architecture Types", RFC 3004, iPXE's and EDK2's packets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pxeserver.wire import dhcp
from pxeserver.wire.reader import WireError

PXE_CLIENT = b"PXEClient"
HTTP_CLIENT = b"HTTPClient"
UBOOT_CLIENT = b"U-Boot"

DISCOVERY_CONTROL = 6  # sub-options of 43
BOOT_SERVERS = 8
BOOT_MENU = 9
MENU_PROMPT = 10
BOOT_ITEM = 71
USE_OFFERED_FILE = b"\x08"  # 43.6: do not look for boot servers, take the file of this offer

# "Do not search, take my file": the whole option 43 of a PXE 1.0 answer.
DIRECT = dhcp.pack_suboptions([(DISCOVERY_CONTROL, USE_OFFERED_FILE)], end=True)

IPXE_FEATURES = {19: "http", 20: "https", 21: "tftp", 24: "bzimage", 33: "pxe", 36: "efi", 39: "menu"}


@dataclass(frozen=True, slots=True)
class Arch:
    """A row of the architecture table. `family` names what loader it needs, `goarch` the images it can run."""

    code: int
    name: str
    family: str
    goarch: str = ""
    http: bool = False  # boots from a URL
    uboot: bool = False


# Machines of one model say the same, packet after packet; what anybody else sends cannot fill more than this.
_known = lru_cache(maxsize=256)


def _table() -> dict[int, Arch]:
    rows = (
        Arch(0, "x86 BIOS", "bios", "amd64"),
        Arch(1, "NEC/PC98", "pc98"),
        Arch(2, "Itanium EFI", "itanium"),
        Arch(3, "DEC Alpha", "alpha"),
        Arch(4, "Arc x86", "arc"),
        Arch(5, "Intel lean client", "lean"),
        Arch(6, "x86 EFI 32-bit", "efi32", "amd64"),
        Arch(7, "x86-64 EFI", "efi64", "amd64"),
        Arch(8, "EFI Xscale", "xscale"),
        Arch(9, "EFI byte code", "efi64", "amd64"),  # in practice x86-64: RFC 4578 and IANA swap 7 and 9
        Arch(10, "ARM 32-bit EFI", "arm32", "arm"),
        Arch(11, "ARM 64-bit EFI", "arm64", "arm64"),
        Arch(12, "PowerPC Open Firmware", "power"),
        Arch(13, "PowerPC ePAPR", "power"),
        Arch(14, "POWER OPAL", "power", "ppc64le"),
        Arch(15, "x86 EFI 32-bit HTTP", "efi32", "amd64", http=True),
        Arch(16, "x86-64 EFI HTTP", "efi64", "amd64", http=True),
        Arch(17, "EFI byte code HTTP", "efi64", "amd64", http=True),
        Arch(18, "ARM 32-bit EFI HTTP", "arm32", "arm", http=True),
        Arch(19, "ARM 64-bit EFI HTTP", "arm64", "arm64", http=True),
        Arch(20, "x86 BIOS HTTP", "bios", "amd64", http=True),
        Arch(21, "ARM 32-bit U-Boot", "arm32", "arm", uboot=True),
        Arch(22, "ARM 64-bit U-Boot", "arm64", "arm64", uboot=True),
        Arch(23, "ARM 32-bit U-Boot HTTP", "arm32", "arm", http=True, uboot=True),
        Arch(24, "ARM 64-bit U-Boot HTTP", "arm64", "arm64", http=True, uboot=True),
        Arch(25, "RISC-V 32-bit EFI", "riscv32"),
        Arch(26, "RISC-V 32-bit EFI HTTP", "riscv32", http=True),
        Arch(27, "RISC-V 64-bit EFI", "riscv64", "riscv64"),
        Arch(28, "RISC-V 64-bit EFI HTTP", "riscv64", "riscv64", http=True),
        Arch(29, "RISC-V 128-bit EFI", "riscv128"),
        Arch(30, "RISC-V 128-bit EFI HTTP", "riscv128", http=True),
        Arch(31, "s390 basic", "s390", "s390x"),
        Arch(32, "s390 extended", "s390", "s390x"),
        Arch(33, "MIPS 32-bit EFI", "mips32"),
        Arch(34, "MIPS 64-bit EFI", "mips64"),
        Arch(35, "Sunway 32-bit EFI", "sunway32"),
        Arch(36, "Sunway 64-bit EFI", "sunway64"),
        Arch(37, "LoongArch 32-bit EFI", "loongarch32"),
        Arch(38, "LoongArch 32-bit EFI HTTP", "loongarch32", http=True),
        Arch(39, "LoongArch 64-bit EFI", "loongarch64", "loong64"),
        Arch(40, "LoongArch 64-bit EFI HTTP", "loongarch64", "loong64", http=True),
        Arch(41, "Raspberry Pi", "rpi", "arm64"),
    )
    return {row.code: row for row in rows}


ARCHES = _table()
FAMILIES = tuple(dict.fromkeys(row.family for row in ARCHES.values()))


def arch_of(code: int) -> Arch:
    """The table's row, or a row of family "unknown"."""
    return ARCHES.get(code) or Arch(code, f"unknown architecture {code}", "unknown")


def goarch_of(family: str) -> str:
    """The images that a family's machines can run, "" if the table does not say."""
    return next((row.goarch for row in ARCHES.values() if row.family == family), "")


@_known
def archs(raw: bytes) -> tuple[int, ...]:
    """Option 93: a list of big-endian u16; a last odd byte is dropped."""
    return tuple(int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw) - 1, 2))


def pack_archs(codes: tuple[int, ...]) -> bytes:
    return b"".join(code.to_bytes(2, "big") for code in codes)


@dataclass(frozen=True, slots=True)
class VendorClass:
    """Option 60: `PXEClient:Arch:00007:UNDI:003000`, or the bare word as a chained iPXE sends it."""

    kind: bytes  # PXE_CLIENT, HTTP_CLIENT or UBOOT_CLIENT
    arch: int | None = None


@_known
def vendor_class(raw: bytes) -> VendorClass | None:
    """None for every client that is not booting from the network."""
    for kind in (PXE_CLIENT, HTTP_CLIENT, UBOOT_CLIENT):
        if raw.startswith(kind):
            marker, _, rest = raw[len(kind) :].partition(b":Arch:")
            digits = rest[:5]
            number = int(digits) if not marker and rest and digits.isdigit() else None
            return VendorClass(kind, number)
    return None


@_known
def user_classes(raw: bytes) -> tuple[str, ...]:
    """Option 77: RFC 3004's length-prefixed list if the lengths fit exactly, else one raw string (iPXE)."""
    out: list[bytes] = []
    position = 0
    while position < len(raw):
        stop = position + 1 + raw[position]
        if raw[position] == 0 or stop > len(raw):
            out = [raw]
            break
        out.append(raw[position + 1 : stop])
        position = stop
    return tuple(name.decode("latin-1") for name in out)


def pack_user_classes(names: tuple[str, ...]) -> bytes:
    """RFC 3004 form; WireError if a name is empty or longer than 255 bytes."""
    out = b""
    for name in names:
        data = name.encode("latin-1")
        if not 0 < len(data) < 256:
            raise WireError("a user class has 1 to 255 bytes")
        out += bytes((len(data),)) + data
    return out


def uuid_text(raw: bytes) -> str:
    """Option 97 (17 bytes, the first 0) as people read it, three groups little-endian as in SMBIOS; "" if other."""
    if len(raw) != 17 or raw[0] != 0:
        return ""
    groups = (raw[4:0:-1], raw[6:4:-1], raw[8:6:-1], raw[9:11], raw[11:])
    return "-".join([group.hex() for group in groups])


@_known
def undi_version(raw: bytes) -> str:
    """Option 94: 01 03 10 -> "3.16"; "" if other."""
    return f"{raw[1]}.{raw[2]}" if len(raw) == 3 and raw[0] == 1 else ""


@_known
def boot_item(raw43: bytes) -> bytes | None:
    """Sub-option 71 of option 43: server type and layer that the client chose from a menu."""
    return dict(dhcp.suboptions(raw43)).get(BOOT_ITEM)


@_known
def ipxe_features(raw: bytes) -> frozenset[str]:
    """Option 175: what this iPXE says that it can do; codes without a name of ours are left out."""
    return frozenset(
        IPXE_FEATURES[code] for code, value in dhcp.suboptions(raw) if code in IPXE_FEATURES and value != b"\0"
    )


def raspberry_menu() -> bytes:
    """Option 43 that the Raspberry Pi's boot ROM looks for: a menu with the words "Raspberry Pi Boot" in it."""
    words = b"Raspberry Pi Boot"
    return dhcp.pack_suboptions(
        [
            (DISCOVERY_CONTROL, b"\x03"),
            (MENU_PROMPT, b"\0PXE"),
            (BOOT_MENU, b"\0\0" + bytes((len(words),)) + words),
        ],
        end=True,
    )
