"""TFTP packets, the names that firmware sends, and the negotiation of options."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.wire import tftp
from pxeserver.wire.reader import WireError


def test_a_request_with_options() -> None:
    raw = b"\0\1snponly.efi\0octet\0TSIZE\x000\0blksize\x001468\0windowsize\x004\0"
    request = tftp.parse(raw)
    assert request == tftp.Request(
        False, "snponly.efi", "octet", (("tsize", "0"), ("blksize", "1468"), ("windowsize", "4"))
    )
    assert (request.option("blksize"), request.option("timeout")) == ("1468", None)


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        (b"\0\1a\0NetASCII\0", tftp.Request(False, "a", "netascii")),
        (b"\0\2a\0octet\0", tftp.Request(True, "a", "octet")),
        (b"\0\1a\0octet", tftp.Request(False, "a", "octet")),  # the last NUL is missing
        (b"\0\1a\0octet\0blksize\x00512", tftp.Request(False, "a", "octet", (("blksize", "512"),))),
        (b"\0\1a\0octet\0blksize\0", tftp.Request(False, "a", "octet")),  # no value
        (b"\0\1a\0octet\0b\x001\0B\x002\0", tftp.Request(False, "a", "octet", (("b", "1"),))),  # twice
        (b"\0\1a\0octet\0\0\0\0\0\0", tftp.Request(False, "a", "octet")),  # padding
        (b"\0\3\0\1abc", tftp.Data(1, b"abc")),
        (b"\0\3\xff\xff", tftp.Data(65535, b"")),
        (b"\0\4\0\2", tftp.Ack(2)),
        (b"\0\4\0\2junk", tftp.Ack(2)),
        (b"\0\5\0\x08User aborted the transfer\0", tftp.Error(8, "User aborted the transfer")),
        (b"\0\5\0\0", tftp.Error(0, "")),
        (b"\0\6blksize\x001468\0", tftp.Oack((("blksize", "1468"),))),
    ],
)
def test_packets(raw: bytes, want: tftp.Message) -> None:
    assert tftp.parse(raw) == want


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0", b"\0\1", b"\0\1a", b"\0\1a\0", b"\0\1\0octet\0", b"\0\3\0", b"\0\4", b"\0\5\0", b"\0\7", b"\0\0"],
)
def test_what_is_not_tftp_is_a_wire_error(raw: bytes) -> None:
    with pytest.raises(WireError):
        tftp.parse(raw)


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (b"undionly.kpxe", "undionly.kpxe"),
        (b"/undionly.kpxe", "undionly.kpxe"),
        (b"//grubx64.efi", "grubx64.efi"),
        (b"\\boot\\x64\\ipxe.efi", "boot/x64/ipxe.efi"),
        (b"./a/./b", "a/b"),
        (b"pxelinux.0\xff", "pxelinux.0"),
        (b"pxelinux.0\xff\xff", "pxelinux.0"),
        ("grün.efi".encode(), "grün.efi"),
        (b"../etc/passwd", None),
        (b"a/../../b", None),
        (b"..\\..\\b", None),
        (b"a\nb", None),
        (b"a\x7f", None),
        (b"a\xffb", None),
        (b"/", None),
        (b"\xff", None),
    ],
)
def test_names_as_firmware_sends_them(sent: bytes, path: str | None) -> None:
    request = tftp.parse(b"\0\1" + sent + b"\0octet\0")
    assert isinstance(request, tftp.Request)
    assert request.path == path


def terms(options: str, size: int = 100_000, mode: str = "octet") -> tftp.Terms:
    pairs = tuple((k, v) for k, _, v in (word.partition("=") for word in options.split()))
    return tftp.negotiate(tftp.Request(False, "f", mode, pairs), size, blksize_max=1468, windowsize_max=16)


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ("", tftp.Terms()),
        ("blksize=1432", tftp.Terms(1432, oack=(("blksize", "1432"),))),
        ("blksize=65464", tftp.Terms(1468, oack=(("blksize", "1468"),))),  # clamped: no IP fragments
        ("blksize=7", tftp.Terms()),
        ("blksize=65465", tftp.Terms()),
        ("blksize=abc", tftp.Terms()),
        ("blksize=-1", tftp.Terms()),
        ("blksize=1_0", tftp.Terms()),
        ("blksize=", tftp.Terms()),
        ("windowsize=4", tftp.Terms(windowsize=4, oack=(("windowsize", "4"),))),
        ("windowsize=64", tftp.Terms(windowsize=16, oack=(("windowsize", "16"),))),
        ("windowsize=0", tftp.Terms()),
        ("timeout=3", tftp.Terms(timeout=3, oack=(("timeout", "3"),))),
        ("timeout=256", tftp.Terms()),
        ("tsize=0", tftp.Terms(oack=(("tsize", "100000"),))),
        ("multicast=1 utimeout=9", tftp.Terms()),
        ("tsize=0 blksize=512", tftp.Terms(512, oack=(("tsize", "100000"), ("blksize", "512")))),
    ],
)
def test_terms(options: str, want: tftp.Terms) -> None:
    assert terms(options) == want


def test_the_size_is_told_in_octet_mode_only() -> None:
    assert terms("tsize=0", mode="netascii").oack == ()


OPTIONS = st.dictionaries(
    st.text(st.characters(codec="ascii", exclude_characters="\0", categories=("Ll", "Nd")), min_size=1),
    st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    max_size=4,
)
NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(NAME, st.booleans(), OPTIONS)
def test_requests_survive_a_round_trip(name: str, write: bool, options: dict[str, str]) -> None:
    parsed = tftp.parse(tftp.pack_request(name, write=write, options=options))
    assert parsed == tftp.Request(write, name, "octet", tuple(options.items()))


@given(
    st.integers(0, 65535),
    st.binary(max_size=600),
    OPTIONS,
    st.text(st.characters(codec="utf-8", exclude_characters="\0")),
)
def test_the_other_packets_survive_a_round_trip(block: int, payload: bytes, options: dict[str, str], text: str) -> None:
    assert tftp.parse(tftp.pack_data(block, payload)) == tftp.Data(block, payload)
    assert tftp.parse(tftp.pack_data(block + 65536, payload)) == tftp.Data(block, payload)
    assert tftp.parse(tftp.pack_ack(block)) == tftp.Ack(block)
    assert tftp.parse(tftp.pack_error(block, text)) == tftp.Error(block, text)
    assert tftp.parse(tftp.pack_oack(options)) == tftp.Oack(tuple(options.items()))
    assert tftp.pack_oack(tuple(options.items())) == tftp.pack_oack(options)


def test_a_nul_inside_a_field_is_a_wire_error() -> None:
    with pytest.raises(WireError):
        tftp.pack_error(0, "a\0b")


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda raw: b"\0\1" + raw))
def test_any_bytes_are_a_packet_or_a_wire_error(data: bytes) -> None:
    try:
        message = tftp.parse(data)
    except WireError:
        return
    if isinstance(message, tftp.Request):
        path = message.path
        assert path is None or (".." not in path.split("/") and not path.startswith("/") and "\\" not in path)
        agreed = tftp.negotiate(message, 1, blksize_max=1468, windowsize_max=16)
        assert 8 <= agreed.blksize <= 1468 and 1 <= agreed.windowsize <= 16
