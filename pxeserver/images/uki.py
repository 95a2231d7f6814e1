"""Unified kernel images: systemd's EFI stub with kernel, initrd and command line as sections of the same PE file.

UAPI.5 (uapi-group.org/specifications/specs/unified_kernel_image); PE/COFF as Microsoft specifies it. The firmware
starts the stub, and the stub its kernel; one signature (`sbsign`) covers all of it. Only the stub is held in memory.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pxeserver.errors import Refused
from pxeserver.images.entry import Readable
from pxeserver.images.writers import Sink, copy

PACKAGE = "systemd-boot-efi"
STUBS = Path("/usr/lib/systemd/boot/efi")
# GOARCH -> (name of the stub, machine in the PE header)
MACHINES = {"amd64": ("linuxx64.efi.stub", 0x8664), "arm64": ("linuxaa64.efi.stub", 0xAA64)}

_PAGE = 4096
_READABLE_DATA = 0x40000040  # IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ
_SECTION = struct.Struct("<8sIIIIIIHHI")
_PE32_PLUS = 0x20B
_SECURITY = 4  # data directory of signatures
_MOST = 0x7FFFFFFF  # firmware and signers count a file's bytes in 32 bits


@dataclass(frozen=True, slots=True)
class Section:
    """`open()` gives `size` bytes."""

    name: str
    size: int
    open: Callable[[], Readable]


def text(name: str, data: bytes) -> Section:
    return Section(name, len(data), lambda: io.BytesIO(data))


def find_stub(arch: str) -> Path:
    """The stub that is on this host for machines of `arch` (GOARCH). Refused "tool-missing", "uki-arch"."""
    if arch not in MACHINES:
        raise Refused("uki-arch", f"there is no EFI stub for {arch}", hint=f"there is one for {', '.join(MACHINES)}")
    path = STUBS / MACHINES[arch][0]
    if not path.is_file():
        raise Refused("tool-missing", f"{path} is not installed", hint=f"apt-get install {PACKAGE}:{arch}")
    return path


def sections(
    *,
    kernel: Section,
    initrd: Section | None,
    cmdline: str,
    os_release: bytes = b"",
    uname: str = "",
) -> tuple[Section, ...]:
    """Everything that the stub looks for, the kernel last: it may be started in place, and then needs room after it."""
    found = [
        text(".osrel", os_release),
        text(".cmdline", cmdline.encode("utf-8", "surrogateescape")),
        text(".uname", uname.encode()),
        *([initrd] if initrd else []),
        kernel,
    ]
    return tuple(s for s in found if s.size)


@dataclass(frozen=True, slots=True)
class Uki:
    """A unified kernel image that is laid out and not yet written: `head`, then each section padded to `alignment`."""

    head: bytes
    sections: tuple[Section, ...]
    alignment: int

    @property
    def size(self) -> int:
        return len(self.head) + sum(_up(s.size, self.alignment) for s in self.sections)

    def write(self, sink: Sink) -> None:
        sink.write(self.head)
        for section in self.sections:
            copy(section.open(), sink, section.size, section.name)
            sink.write(bytes(-section.size % self.alignment))


def lay_out(stub: Path, parts: Sequence[Section], arch: str = "") -> Uki:
    """The stub with more sections behind its own. A signature of the stub is left out: it would not hold any more.

    `arch`: what the stub must be for, "" = anything. Refused "uki-stub" for a file that is no stub, "uki-too-large".
    """
    data = bytearray(stub.read_bytes())
    try:
        return _laid_out(data, parts, arch)
    except (struct.error, _NoStub) as error:
        raise Refused("uki-stub", f"{stub} is no EFI stub: {error}", hint=f"it is in the package {PACKAGE}") from None


class _NoStub(ValueError):
    pass


def _laid_out(data: bytearray, parts: Sequence[Section], arch: str) -> Uki:
    (pe,) = struct.unpack_from("<I", data, 0x3C)
    if data[:2] != b"MZ" or data[pe : pe + 4] != b"PE\0\0":
        raise _NoStub("it does not begin as a PE file")
    machine, count, optional_size = struct.unpack_from("<HH12xH", data, pe + 4)
    optional = pe + 24
    if arch and machine != MACHINES[arch][1]:
        raise _NoStub(f"it is for machine {machine:#x}, and {arch} is {MACHINES[arch][1]:#x}")
    if struct.unpack_from("<H", data, optional) != (_PE32_PLUS,):
        raise _NoStub("it is not PE32+")
    section_alignment, file_alignment = struct.unpack_from("<II", data, optional + 32)
    image_size, headers_size = struct.unpack_from("<II", data, optional + 56)
    table = optional + optional_size
    own = [_SECTION.unpack_from(data, table + n * _SECTION.size) for n in range(count)]
    if not own or file_alignment & (file_alignment - 1) or file_alignment < 512:
        raise _NoStub("its headers make no sense")
    if ".linux" in (s[0].rstrip(b"\0").decode("latin-1") for s in own):
        raise _NoStub("it has a kernel already")
    end = table + (count + len(parts)) * _SECTION.size
    if end > min(headers_size, *(s[4] for s in own if s[4])):
        raise _NoStub("its headers have no room for more sections")
    file_end = max(s[4] + s[3] for s in own)  # what follows are signatures and symbols
    if file_end > len(data):
        raise _NoStub("it is cut off")
    del data[file_end:]
    data += bytes(-len(data) % file_alignment)
    step = max(section_alignment, _PAGE)
    address, at, added = _up(image_size, step), len(data), 0
    for n, part in enumerate(parts, count):
        stored = _up(part.size, file_alignment)
        if at + stored > _MOST:
            raise Refused("uki-too-large", "kernel and initrd have 2 GiB or more together; a PE file ends there")
        name = part.name.encode().ljust(8, b"\0")
        _SECTION.pack_into(
            data, table + n * _SECTION.size, name, part.size, address, stored, at, 0, 0, 0, 0, _READABLE_DATA
        )
        address, at, added = _up(address + part.size, step), at + stored, added + stored
    struct.pack_into("<H", data, pe + 6, count + len(parts))
    struct.pack_into("<II", data, pe + 12, 0, 0)  # no symbols
    initialized = cast(int, struct.unpack_from("<I", data, optional + 8)[0])
    struct.pack_into("<I", data, optional + 8, initialized + added)
    struct.pack_into("<I", data, optional + 56, address)
    struct.pack_into("<I", data, optional + 64, 0)  # no checksum; firmware asks for none, signers make their own
    struct.pack_into("<II", data, optional + 112 + 8 * _SECURITY, 0, 0)
    return Uki(bytes(data), tuple(parts), file_alignment)


def _up(number: int, step: int) -> int:
    return (number + step - 1) // step * step


def check_kernel(file: BinaryIO) -> None:
    """Refused "kernel-no-efi" when a stub could not start this kernel; the file is rewound."""
    head = file.read(0x40)
    file.seek(0)
    if head[:2] != b"MZ":
        raise Refused(
            "kernel-no-efi",
            "the kernel is no EFI program, so UEFI cannot start it",
            hint="CONFIG_EFI_STUB makes it one; build without --decompress-kernel",
        )


def is_signed(file: BinaryIO) -> bool:
    """Whether a PE file carries a signature, whoever made it; False for other files. The file is rewound."""
    head = file.read(4096)
    file.seek(0)
    try:
        (pe,) = struct.unpack_from("<I", head, 0x3C)
        if head[:2] != b"MZ" or head[pe : pe + 4] != b"PE\0\0":
            return False
        fixed = 112 if struct.unpack_from("<H", head, pe + 24) == (_PE32_PLUS,) else 96
        return cast(int, struct.unpack_from("<I", head, pe + 24 + fixed + 8 * _SECURITY + 4)[0]) > 0
    except struct.error:
        return False


def kernel_version(file: BinaryIO) -> str:
    """As `uname -r` will say it; "" when the file does not tell. The file is rewound.

    A bzImage has it in its header (Documentation/arch/x86/boot.rst), an uncompressed kernel in its banner.
    """
    head = file.read(0x210)
    if head[0x202:0x206] == b"HdrS":
        file.seek(cast(int, struct.unpack_from("<H", head, 0x20E)[0]) + 0x200)
        words = file.read(256).partition(b"\0")[0].split()
        file.seek(0)
        return words[0].decode("ascii", "replace") if words else ""
    window = head
    found = None
    while found is None and (more := file.read(1 << 20)):
        window = window[-256:] + more
        found = re.search(rb"Linux version ([0-9]\S{0,100}) ", window)
    file.seek(0)
    return found[1].decode("ascii", "replace") if found else ""
