"""Unified kernel images: sections where PE readers find them, the same bytes each time, signable, nothing half made."""

from __future__ import annotations

import gzip
import io
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from imagelab import Bases, Lab, file, folder, tar

from pxeserver.errors import Refused
from pxeserver.images import uki
from pxeserver.images.target import Target

SECTION = struct.Struct("<8sIIIIIIHHI")
SPEC = 'kernel: {image: "l/kernel:1", cmdline: "console=ttyS0 quiet"}\ninit: ["l/init:1"]\n'


def stub(folder: Path, *, machine: int = 0x8664, tail: bytes = b"SIGNATURE", room: int = 1024) -> Path:
    """A PE32+ file with one section, signed at its end, as binutils' objdump and firmware read it."""
    head = bytearray(room)
    head[:2], head[0x3C:0x40] = b"MZ", struct.pack("<I", 0x80)
    head[0x80:0x84] = b"PE\0\0"
    struct.pack_into("<HHIIIHH", head, 0x84, machine, 1, 0, 7, 9, 240, 0x206)
    at = 0x98
    struct.pack_into("<H", head, at, 0x20B)
    struct.pack_into("<II", head, at + 4, 512, 0)
    struct.pack_into("<II", head, at + 32, 4096, 512)
    struct.pack_into("<IIIHH", head, at + 56, 0x2000, room, 0xABCD, 10, 0)
    struct.pack_into("<I", head, at + 108, 16)
    struct.pack_into("<II", head, at + 112 + 32, room + 512, len(tail))
    SECTION.pack_into(head, at + 240, b".text", 4, 0x1000, 512, room, 0, 0, 0, 0, 0x60000020)
    path = folder / "stub"
    path.write_bytes(bytes(head) + b"code".ljust(512, b"\0") + tail)
    return path


def bzimage(version: str = "6.1.0-test (builder) #1") -> bytes:
    """What a reader of the boot protocol's header sees of a kernel with an EFI stub."""
    data = bytearray(random.Random(4).randbytes(40_000))
    data[:2], data[0x1FE:0x200], data[0x202:0x206] = b"MZ", b"\x55\xaa", b"HdrS"
    data[0x20E:0x210] = struct.pack("<H", 0x1000)
    data[0x1200 : 0x1200 + len(version) + 1] = version.encode() + b"\0"
    return bytes(data)


def read(data: bytes) -> dict[str, bytes]:
    """The sections by name, by their virtual sizes, as the stub reads them; checks what a loader would."""
    (pe,) = struct.unpack_from("<I", data, 0x3C)
    count, size = struct.unpack_from("<H12xH", data, pe + 6)
    image, headers = struct.unpack_from("<II", data, pe + 24 + 56)
    alignment, _ = struct.unpack_from("<II", data, pe + 24 + 32)
    found, free = {}, headers
    assert pe + 24 + size + count * 40 <= headers
    for n in range(count):
        name, virtual, address, stored, at, *_ = SECTION.unpack_from(data, pe + 24 + size + n * 40)
        assert address >= free and address % alignment == 0 and at % 512 == 0 and at + stored <= len(data)
        free = address + virtual
        found[name.rstrip(b"\0").decode()] = data[at : at + min(virtual, stored)]
    assert image >= free
    return found


def made(folder: Path, **more: Any) -> bytes:
    kernel, initrd = bzimage(), random.Random(2).randbytes(70_001)
    parts = uki.sections(
        kernel=uki.text(".linux", kernel),
        initrd=uki.text(".initrd", initrd),
        cmdline="quiet",
        os_release=b"ID=x\n",
        uname="6.1",
    )
    laid = uki.lay_out(stub(folder, **more), parts, "amd64")
    out = io.BytesIO()
    laid.write(out)
    assert laid.size == len(out.getvalue())
    return out.getvalue()


def test_every_section_is_found_again(tmp_path: Path) -> None:
    found = read(made(tmp_path))
    assert list(found) == [".text", ".osrel", ".cmdline", ".uname", ".initrd", ".linux"]
    assert found[".linux"] == bzimage() and found[".initrd"] == random.Random(2).randbytes(70_001)
    assert (found[".cmdline"], found[".osrel"], found[".uname"]) == (b"quiet", b"ID=x\n", b"6.1")


def test_the_stubs_signature_and_checksum_are_gone(tmp_path: Path) -> None:
    data = made(tmp_path)
    assert b"SIGNATURE" not in data
    assert struct.unpack_from("<II", data, 0x98 + 112 + 32) == (0, 0) == struct.unpack_from("<II", data, 0x84 + 8)
    assert struct.unpack_from("<I", data, 0x98 + 64) == (0,)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda p: stub(p, machine=0xAA64), "it is for machine 0xaa64"),
        (lambda p: stub(p, room=512), "no room"),
        (lambda p: _cut(stub(p), 700), "cut off"),
        (lambda p: _cut(stub(p), 100), "no EFI stub"),
        (lambda p: _cut(stub(p), 0), "no EFI stub"),
        (lambda p: _written(p / "x", b"#!/bin/sh\n" * 100), "does not begin as a PE file"),
    ],
)
def test_what_is_no_stub_is_refused(tmp_path: Path, spoil: Any, why: str) -> None:
    parts = uki.sections(kernel=uki.text(".linux", b"MZ"), initrd=None, cmdline="x", os_release=b"y", uname="z")
    with pytest.raises(Refused, match=why) as caught:
        uki.lay_out(spoil(tmp_path), parts, "amd64")
    assert caught.value.slug == "uki-stub"


def _cut(path: Path, size: int) -> Path:
    return _written(path, path.read_bytes()[:size])


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_uki_cannot_be_the_stub_of_another(tmp_path: Path) -> None:
    whole = _written(tmp_path / "whole", made(tmp_path))
    with pytest.raises(Refused, match="it has a kernel already"):
        uki.lay_out(whole, [uki.text(".linux", b"x")])


def test_too_large_for_a_pe_file(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        uki.lay_out(stub(tmp_path), [uki.Section(".initrd", 1 << 31, io.BytesIO)])
    assert caught.value.slug == "uki-too-large"


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (bzimage(), "6.1.0-test"),
        (b"MZ" + bytes(1 << 20) + b"Linux version 6.6.13-linuxkit (root@x) #1" + bytes(99), "6.6.13-linuxkit"),
        (b"MZ" + bytes((1 << 20) + 0x1F0) + b"Linux version 5.10.0 (astride two reads)", "5.10.0"),
        (b"MZ nothing", ""),
        (b"", ""),
    ],
)
def test_the_kernels_version(data: bytes, version: str) -> None:
    stream = io.BytesIO(data)
    assert uki.kernel_version(stream) == version
    assert stream.tell() == 0


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    folder = tmp_path / "stubs"
    folder.mkdir()
    stub(folder).rename(folder / "linuxx64.efi.stub")
    monkeypatch.setattr(uki, "STUBS", folder)
    lab = Lab(tmp_path)
    _with_kernel(lab.bases, bzimage())
    lab.bases.image("l/init:1", [file("init", b"#!")])
    return lab


def _with_kernel(bases: Bases, data: bytes) -> None:
    bases.image(
        "l/kernel:1", [file("kernel", data), file("kernel.tar", tar([folder("lib")])), file("u.cpio", b"UCODE" * 99)]
    )


def _built(lab: Lab, to: Path, **more: Any) -> bytes:
    to.mkdir()
    built = lab.build(SPEC, formats=("uki",), target=Target(to, "web"), **more)
    assert [p.name for p in to.iterdir()] == ["web.efi"] and built.files == (to / "web.efi",)
    return (to / "web.efi").read_bytes()


def test_a_build_writes_one(lab: Lab, tmp_path: Path) -> None:
    found = read(_built(lab, tmp_path / "a"))
    image = lab.build(SPEC).image
    assert image is not None
    assert found[".linux"] == bzimage()
    assert found[".initrd"] == lab.store.read_blob(image.initrd.digest)
    assert (found[".cmdline"], found[".uname"]) == (b"console=ttyS0 quiet", b"6.1.0-test")
    assert f'PRETTY_NAME="web {image.digest[7:19]}"'.encode() in found[".osrel"].splitlines()
    assert _built(lab, tmp_path / "b") == (tmp_path / "a/web.efi").read_bytes()


def test_microcode_comes_first_in_its_initrd(lab: Lab, tmp_path: Path) -> None:
    spec = SPEC.replace("cmdline:", "ucode: u.cpio, cmdline:")
    lab.build(spec, formats=("uki",), target=Target(tmp_path, "web"))
    assert read((tmp_path / "web.efi").read_bytes())[".initrd"].startswith(b"UCODE" * 99)


def test_a_zipped_kernel_is_unzipped(lab: Lab, tmp_path: Path) -> None:
    plain = bzimage()
    _with_kernel(lab.bases, gzip.compress(plain))
    found = read(_built(lab, tmp_path / "a"))
    assert found[".linux"] == plain and found[".uname"] == b"6.1.0-test"


def test_a_kernel_without_efi_is_refused_and_nothing_is_left(lab: Lab, tmp_path: Path) -> None:
    _with_kernel(lab.bases, b"\x7fELF" + bytes(99))
    (tmp_path / "a").mkdir()
    with pytest.raises(Refused) as caught:
        lab.build(SPEC, formats=("uki",), target=Target(tmp_path / "a", "web"))
    assert caught.value.slug == "kernel-no-efi"
    assert list((tmp_path / "a").iterdir()) == []


def test_a_missing_stub_is_known_before_anything_is_built(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        lab.build(SPEC, arch="arm64", formats=("uki",), target=Target(tmp_path, "web"))
    assert (caught.value.slug, caught.value.hint) == ("tool-missing", "apt-get install systemd-boot-efi:arm64")
    assert not lab.store.root.exists()
    with pytest.raises(Refused) as caught:
        lab.build(SPEC, arch="riscv64", formats=("uki",), target=Target(tmp_path, "web"))
    assert caught.value.slug == "uki-arch"


@pytest.mark.server
def test_the_real_stub_takes_them_and_it_can_be_signed(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uki, "STUBS", Path("/usr/lib/systemd/boot/efi"))
    data = _built(lab, tmp_path / "a")
    (pe,) = struct.unpack_from("<I", data, 0x3C)
    assert struct.unpack_from("<H", data, pe + 4) == (0x8664,)
    key, cert, signed = tmp_path / "key", tmp_path / "cert", tmp_path / "signed.efi"
    _run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", key, "-out", cert)
    _run("sbsign", "--key", key, "--cert", cert, "--output", signed, tmp_path / "a/web.efi")
    assert "Signature verification OK" in _run("sbverify", "--cert", cert, signed)
    body = bytearray(signed.read_bytes())
    body[body.index(b"console=ttyS0 quiet")] ^= 1
    signed.write_bytes(body)
    assert subprocess.run(["sbverify", "--cert", cert, signed], capture_output=True, check=False).returncode != 0


def _run(*argv: str | Path) -> str:
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
