"""PXE's options: the architecture table, classes, option 43, identifiers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.wire import dhcp, pxe
from pxeserver.wire.reader import WireError


def test_both_codes_that_x86_64_firmware_sends_mean_the_same_loader() -> None:
    assert {pxe.arch_of(code).family for code in (7, 9, 16, 17)} == {"efi64"}
    assert {pxe.arch_of(code).goarch for code in (0, 6, 7, 9, 15, 16, 17, 20)} == {"amd64"}
    assert [code for code, arch in pxe.ARCHES.items() if arch.http] == [
        15, 16, 17, 18, 19, 20, 23, 24, 26, 28, 30, 38, 40,
    ]  # fmt: skip
    assert {code for code, arch in pxe.ARCHES.items() if arch.uboot} == {21, 22, 23, 24}
    assert (pxe.arch_of(11).family, pxe.arch_of(19).goarch, pxe.arch_of(10).family) == ("arm64", "arm64", "arm32")
    assert sorted(pxe.ARCHES) == list(range(42))


def test_an_unknown_code_says_so() -> None:
    arch = pxe.arch_of(4660)
    assert (arch.family, arch.name) == ("unknown", "unknown architecture 4660")


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        (b"PXEClient:Arch:00007:UNDI:003000", pxe.VendorClass(pxe.PXE_CLIENT, 7)),
        (b"HTTPClient:Arch:00016:UNDI:003001", pxe.VendorClass(pxe.HTTP_CLIENT, 16)),
        (b"PXEClient", pxe.VendorClass(pxe.PXE_CLIENT)),
        (b"PXEClient:Arch:", pxe.VendorClass(pxe.PXE_CLIENT)),
        (b"PXEClient:Arch:x0007", pxe.VendorClass(pxe.PXE_CLIENT)),
        (b"PXEClient:UNDI:1:Arch:00007", pxe.VendorClass(pxe.PXE_CLIENT)),
        (b"U-Boot.armv8", pxe.VendorClass(pxe.UBOOT_CLIENT)),
        (b"MSFT 5.0", None),
        (b"pxeclient", None),
        (b"", None),
    ],
)
def test_vendor_classes(raw: bytes, want: pxe.VendorClass | None) -> None:
    assert pxe.vendor_class(raw) == want


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        (b"iPXE", ("iPXE",)),
        (b"\4iPXE", ("iPXE",)),
        (b"\4iPXE\7pxegrub", ("iPXE", "pxegrub")),
        (b"\4iPX", ("\4iPX",)),
        (b"\0", ("\0",)),
        (b"", ()),
    ],
)
def test_user_classes_are_read_raw_and_as_rfc_3004_has_them(raw: bytes, want: tuple[str, ...]) -> None:
    assert pxe.user_classes(raw) == want


def test_a_user_class_that_does_not_fit_is_a_wire_error() -> None:
    for names in (("",), ("x" * 256,)):
        with pytest.raises(WireError):
            pxe.pack_user_classes(names)


def test_identifiers() -> None:
    raw = bytes.fromhex("0044454c4c770000108000525400770001")
    assert pxe.uuid_text(raw) == "4c4c4544-0077-1000-8000-525400770001"
    assert (pxe.uuid_text(raw[1:]), pxe.uuid_text(b"\1" + raw[1:])) == ("", "")
    assert (pxe.undi_version(b"\1\3\x10"), pxe.undi_version(b"\2\3\x10"), pxe.undi_version(b"")) == ("3.16", "", "")


def test_option_43_tells_the_firmware_to_take_the_file() -> None:
    assert pxe.DIRECT == b"\x06\x01\x08\xff"
    menu = dict(dhcp.suboptions(pxe.raspberry_menu()))
    assert b"Raspberry Pi Boot" in menu[pxe.BOOT_MENU]
    assert pxe.boot_item(bytes.fromhex("470480030000ff")) == b"\x80\3\0\0"
    assert pxe.boot_item(pxe.DIRECT) is None


def test_what_an_ipxe_says_it_can() -> None:
    assert pxe.ipxe_features(bytes.fromhex("b105011af4100014010118010113010021")) == {"https", "bzimage"}
    assert pxe.ipxe_features(b"") == frozenset()


@given(st.lists(st.integers(0, 65535), max_size=5))
def test_architecture_lists_survive_a_round_trip(codes: list[int]) -> None:
    packed = pxe.pack_archs(tuple(codes))
    assert pxe.archs(packed) == tuple(codes)
    assert pxe.archs(packed + b"\7") == tuple(codes)


@given(st.lists(st.text(st.characters(max_codepoint=255), min_size=1, max_size=255), min_size=1, max_size=4))
def test_user_classes_survive_a_round_trip(names: list[str]) -> None:
    assert pxe.user_classes(pxe.pack_user_classes(tuple(names))) == tuple(names)


@given(st.binary(max_size=300))
def test_no_bytes_make_a_reader_of_options_fail(data: bytes) -> None:
    pxe.vendor_class(data)
    pxe.vendor_class(b"PXEClient:Arch:" + data)
    pxe.user_classes(data)
    pxe.archs(data)
    pxe.uuid_text(data)
    pxe.undi_version(data)
    pxe.boot_item(data)
    pxe.ipxe_features(data)
