"""What is taken out of a kernel image."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import pytest
from imagelab import Bases, Item, file, folder, tar

from pxeserver.errors import NotFound, PxeServerError, Refused
from pxeserver.images import kernel

MODULES = tar([folder("lib/"), folder("lib/modules"), file("lib/modules/a.ko", b"A", mtime=99)])


def packed(data: bytes) -> bytes:
    """Without the time: these bytes are part of the tests' names."""
    return gzip.compress(data, mtime=0)


def bzimage(payload: bytes, setup: int = 2) -> bytes:
    """A bzImage with this payload 64 bytes into its protected-mode part."""
    head = bytearray((setup + 1) * 512)
    head[0x1F1] = setup
    head[0x1FE:0x206] = b"\x55\xaa\xeb\x66HdrS"
    struct.pack_into("<II", head, 0x248, 64, len(payload))
    return bytes(head) + bytes(64) + payload + b"trailing"


def got(tmp_path: Path, items: list[Item], **options: Any) -> list[tuple[str, int, int, bytes]]:
    base = Bases(tmp_path).image("l/k:1", items)
    found = kernel.entries(base, cmdline=b"quiet", **options)
    return [(e.name, e.mode, e.mtime, e.open().read(e.size) if e.open else b"") for e in found]


def test_kernel_command_line_and_modules_in_the_images_order(tmp_path: Path) -> None:
    found = got(tmp_path, [file("other"), file("kernel.tar", MODULES), file("kernel", b"K", 0o600)])
    assert found == [
        ("lib/", 0o755, 1500000000, b""),
        ("lib/modules/", 0o755, 1500000000, b""),
        ("lib/modules/a.ko", 0o644, 99, b"A"),
        ("boot", 0o755, 1492533000, b""),
        ("boot/cmdline", 0o644, 1492533000, b"quiet"),
        ("boot/kernel", 0o600, 1492533000, b"K"),
    ]


def test_microcode_and_kernel_share_one_boot_folder(tmp_path: Path) -> None:
    found = got(
        tmp_path, [file("u/cpio", b"U"), file("sub/vmlinuz", b"K")], binaries=("sub/vmlinuz",), tar="", ucode="u/cpio"
    )
    assert [f[0] for f in found] == ["boot", "boot/ucode.cpio", "boot/cmdline", "boot/kernel"]


def test_missing_microcode_is_no_fault(tmp_path: Path) -> None:
    assert [f[0] for f in got(tmp_path, [file("kernel", b"K")], tar="", ucode="none-there")][-1] == "boot/kernel"


@pytest.mark.parametrize(
    "items", [[file("bzImage", b"B"), file("kernel", b"K")], [file("kernel", b"K"), file("bzImage", b"B")]]
)
def test_the_first_name_wins_wherever_it_stands(tmp_path: Path, items: list[Item]) -> None:
    found = got(tmp_path, items, binaries=("kernel", "bzImage"), tar="")
    assert [f[3] for f in found if f[0] == "boot/kernel"][-1] == b"K"
    assert [f[0] for f in found].count("boot") == 1


def test_a_missing_kernel_names_the_nearest_file(tmp_path: Path) -> None:
    with pytest.raises(
        NotFound, match='did not find kernel "kernel" in docker.io/l/k:1 - did you mean "kernel64"'
    ) as caught:
        got(tmp_path, [file("kernel64"), file("kernel.tar", MODULES)])
    assert caught.value.hint == "kernel.binary names the file"
    with pytest.raises(NotFound, match='did not find kernel tar "kernel.tar"') as caught:
        got(tmp_path, [file("kernel", b"K")])
    assert '"none"' in caught.value.hint


def test_a_modules_archive_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(PxeServerError, match="kernel.tar of docker.io/l/k:1: not a tar archive") as caught:
        got(tmp_path, [file("kernel", b"K"), file("kernel.tar", b"no tar" * 200)])
    assert caught.value.slug == "kernel-tar-malformed"


@pytest.mark.parametrize(
    "data",
    [packed(b"VM" * 9000), bzimage(packed(b"VM" * 9000)), bzimage(packed(b"VM" * 9000), 27)],
)
def test_a_compressed_kernel_is_taken_out(tmp_path: Path, data: bytes) -> None:
    found = got(tmp_path, [file("kernel", data, 0o640)], tar="", decompress=True)
    assert found[-1] == ("boot/kernel", 0o640, 1492533000, b"VM" * 9000)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"plain", "no compressed kernel"),
        (b"", "no compressed kernel"),
        (bzimage(b"\xfd7zXZ\0rest"), "unsupported bzImage payload format at offset 1600"),
        (bzimage(packed(bytes(range(256)) * 40))[:1700], "ends too early"),
        (bzimage(b"")[:1000], "ends before its payload"),
        (packed(b"x" * 9999)[:-20] + b"\xff" * 20, "cannot be decompressed"),
    ],
)
def test_other_kernels_cannot_be_taken_apart(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        got(tmp_path, [file("kernel", data)], tar="", decompress=True)
    assert caught.value.slug == "kernel-compression"
