"""The loader set: what it accepts, what it records, what it notices."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.errors import NotFound, PxeServerError, UsageError
from pxeserver.local.loaders import LoaderSet, inspect

NBP = bytes.fromhex("ea0500c007669c66600fa80fa0061e66") * 8


def efi(machine: int = 0x8664, subsystem: int = 10) -> bytes:
    """The headers of a PE32+ file, as far as firmware looks to choose it."""
    pe = b"PE\0\0" + struct.pack("<HH", machine, 1) + bytes(16)
    optional = struct.pack("<H", 0x20B) + bytes(66) + struct.pack("<H", subsystem) + bytes(100)
    return b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + pe + optional


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (NBP, ("bios", "386")),
        (efi(), ("efi", "amd64")),
        (efi(0xAA64), ("efi", "arm64")),
        (efi(0x014C), ("efi", "386")),
    ],
)
def test_a_loader_is_known_by_its_bytes(data: bytes, expected: tuple[str, str]) -> None:
    assert inspect(data, "x") == expected


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it is empty"),
        (b"#!ipxe\nchain http://x/\n", "it is a script"),
        (b"\x7fELF" + bytes(100), "it is an ELF program"),
        (b"\x1f\x8b\x08" + bytes(100), "it is a gzip file"),
        (b"root:x:0:0::/root:/bin/sh\n", "it is a text file"),
        (b"MZ" + bytes(100), "it is a DOS program"),
        (efi(subsystem=3), "it is a PE file of subsystem 3, not an EFI application"),
        (efi(machine=0x0200), "it is an EFI application for the unknown machine type 0x0200"),
        (NBP * 6000, "768000 bytes do not fit below 640 KiB, where a BIOS loads it"),
    ],
)
def test_what_no_firmware_would_start_is_refused_and_named(data: bytes, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        inspect(data, "mine.0")
    assert caught.value.slug == "loader-bad"
    assert caught.value.message == f"mine.0 is no network boot program: {says}"


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda tail: b"MZ" + tail)))
def test_any_bytes_are_judged_without_a_crash(data: bytes) -> None:
    try:
        assert inspect(data, "x")[0] in ("bios", "efi")
    except UsageError:
        pass


def test_an_added_loader_is_recorded_and_listed(tmp_path: Path) -> None:
    loaders = LoaderSet(tmp_path / "loaders")
    added = loaders.add(NBP, "mine.kpxe", version="1.2", origin="/tmp/mine.kpxe")
    assert loaders.list() == (added,)
    assert (added.kind, added.size, added.sha256) == ("bios", len(NBP), hashlib.sha256(NBP).hexdigest())
    assert (tmp_path / "loaders/mine.kpxe").read_bytes() == NBP
    assert sorted(p.name for p in (tmp_path / "loaders").iterdir()) == ["index.json", "mine.kpxe"]


def test_a_loader_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    loaders = LoaderSet(tmp_path)
    loaders.add(NBP, "a.efi", version="1")
    loaders.add(efi(), "a.efi", version="2")
    assert [(x.kind, x.version, x.state) for x in loaders.list()] == [("efi", "2", "whole")]


def test_changed_missing_and_unrecorded_files_are_noticed(tmp_path: Path) -> None:
    loaders = LoaderSet(tmp_path)
    for name in ("changed", "gone", "whole"):
        loaders.add(NBP, name)
    (tmp_path / "changed").write_bytes(NBP + b"!")
    (tmp_path / "gone").unlink()
    (tmp_path / "by-hand").write_bytes(efi())
    (tmp_path / "notes.txt").write_text("not a loader\n")
    assert {x.name: (x.state, x.kind) for x in loaders.list()} == {
        "by-hand": ("unrecorded", "efi"),
        "changed": ("changed", "bios"),
        "gone": ("missing", "bios"),
        "notes.txt": ("unrecorded", ""),
        "whole": ("whole", "bios"),
    }


def test_a_name_near_a_loader_is_proposed(tmp_path: Path) -> None:
    loaders = LoaderSet(tmp_path)
    loaders.add(NBP, "undionly.kpxe")
    with pytest.raises(NotFound) as caught:
        loaders.get("undionly.kpx")
    assert caught.value.message == 'no loader "undionly.kpx" - did you mean "undionly.kpxe"?'


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "index.json", "a b", "x" * 65])
def test_names_that_tftp_cannot_carry_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="loader-bad-name"):
        LoaderSet(tmp_path).add(NBP, name)
    assert not list(tmp_path.iterdir())


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    LoaderSet(tmp_path).add(NBP, "a")
    (tmp_path / "index.json").write_text('{"a": {"name": 1}}')
    with pytest.raises(PxeServerError, match="loader-index"):
        LoaderSet(tmp_path).list()


def test_the_index_is_plain_json(tmp_path: Path) -> None:
    LoaderSet(tmp_path).add(NBP, "a", origin="here")
    assert json.loads((tmp_path / "index.json").read_text())["a"]["origin"] == "here"
