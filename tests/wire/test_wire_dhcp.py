"""DHCP packets: what real firmware sent, what nobody should send, and packing as the inverse of parsing."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.wire import dhcp
from pxeserver.wire.reader import WireError

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
NAMES = sorted(file.name.removesuffix(".hex") for file in CAPTURES.glob("*.hex"))

HEADER = bytes((1, 1, 6, 0)) + b"xidx" + bytes(20) + bytes.fromhex("525400770001") + bytes(10)


def raw(options: bytes, *, sname: bytes = b"", file: bytes = b"") -> bytes:
    return HEADER + sname.ljust(64, b"\0") + file.ljust(128, b"\0") + dhcp.MAGIC + options


def captured(name: str) -> bytes:
    return bytes.fromhex((CAPTURES / f"{name}.hex").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_packets_of_real_firmware_survive_a_round_trip(name: str) -> None:
    packet = dhcp.parse(captured(name))
    again = dhcp.parse(packet.pack())
    assert sorted(again.options) == sorted(packet.options)
    assert replace(again, options=()) == replace(packet, options=())


def test_a_real_discover_reads_as_its_sender_meant_it() -> None:
    packet = dhcp.parse(captured("qemu-rom-ipxe1-bios.discover"))
    assert (packet.op, packet.htype, packet.secs, packet.flags) == (dhcp.BOOTREQUEST, 1, 4, 0)
    assert packet.chaddr.hex(":") == "52:54:00:77:00:01"
    assert packet.message == dhcp.DISCOVER
    assert packet.option(dhcp.OPT_VENDOR_CLASS) == b"PXEClient:Arch:00000:UNDI:002001"
    assert packet.option(dhcp.OPT_USER_CLASS) == b"iPXE"
    assert packet.option(250) is None
    relayed = dhcp.parse(captured("ovmf-pxe-relayed.request"))
    assert (relayed.giaddr, relayed.flags, relayed.message) == ("10.77.1.1", dhcp.BROADCAST, dhcp.REQUEST)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too few"),
        (bytes(239), "too few"),
        (raw(b"")[:-4] + b"abcd", "magic cookie"),
        (b"\3" + raw(b"")[1:], "op 3"),
        (raw(b"")[:2] + b"\x11" + raw(b"")[3:], "17 bytes"),
    ],
)
def test_what_is_not_dhcp_is_a_wire_error(data: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words) as caught:
        dhcp.parse(data)
    assert caught.value.slug == "bad-packet"


def test_sloppy_options_are_read_as_far_as_they_go() -> None:
    assert dhcp.parse(raw(b"\x35\x01\x01")).message == dhcp.DISCOVER  # no END
    assert dhcp.parse(raw(b"\0\0\x35\x01\x01\0\xff\x36\x04abcd")).options == ((53, b"\1"),)  # pads; nothing after END
    assert dhcp.parse(raw(b"\x35\x01\x01\x3c\xffPXE")).options == ((53, b"\1"),)  # runs over the end
    assert dhcp.parse(raw(b"\x35\x01\x01\x3c")).options == ((53, b"\1"),)  # no length
    assert dhcp.parse(raw(b"\x35\x00")).message == 0
    assert dhcp.parse(raw(b"\xff")).message == 0


def test_parts_of_a_long_option_are_joined_and_long_ones_split() -> None:
    """RFC 3396."""
    joined = dhcp.parse(raw(b"\x2b\x02ab\x35\x01\x01\x2b\x03cde\xff"))
    assert joined.options == ((43, b"abcde"), (53, b"\1"))
    long = replace(joined, options=((43, bytes(range(256)) * 3),))
    packed = long.pack()
    assert packed[240:242] == b"\x2b\xff" and packed[240 + 257 : 240 + 259] == b"\x2b\xff"
    assert dhcp.parse(packed) == long


@pytest.mark.parametrize("overload", [1, 2, 3])
def test_options_in_file_and_sname_follow_the_others(overload: int) -> None:
    """RFC 2132 9.3: 1 file, 2 sname, 3 both."""
    options = b"\x34\x01" + bytes((overload,)) + b"\x35\x01\x01\xff"
    packet = dhcp.parse(raw(options, file=b"\x3c\x01f\xff", sname=b"\x3c\x01s\x34\x01\x03\xff"))
    want = (b"f" if overload & 1 else b"") + (b"s" if overload & 2 else b"")
    assert packet.options == ((53, b"\1"), (60, want))
    assert packet.file == (b"" if overload & 1 else b"<\1f\xff")
    assert bool(packet.sname) == (not overload & 2)


def test_header_texts_end_at_their_nul() -> None:
    packet = dhcp.parse(raw(b"\x43\x05boot\0\xff", file=b"boot\0junk", sname=b"srv\0"))
    assert (packet.file, packet.sname, packet.option(67)) == (b"boot", b"srv", b"boot")


def test_the_bootfile_ends_in_a_nul_and_nothing_but_the_relays_option_follows_it() -> None:
    """EDK2 writes a NUL behind option 67, over whatever stands there."""
    packet = dhcp.Packet(2, b"xidx", b"\x52\x54\0\x77\0\1", ((82, b"\1\2ab"), (67, b"x.efi"), (53, b"\2")))
    assert packet.pack()[240:].rstrip(b"\0") == b"\x35\x01\x02" + b"\x43\x06x.efi\0" + b"\x52\x04\1\2ab" + b"\xff"
    assert len(packet.pack()) == dhcp.MIN_PACKET


@pytest.mark.parametrize(
    "change",
    [
        {"chaddr": bytes(17)},
        {"file": bytes(128)},
        {"sname": bytes(64)},
        {"xid": b"abc"},
        {"secs": 65536},
        {"op": 256},
        {"siaddr": "here"},
        {"options": ((0, b""),)},
        {"options": ((255, b""),)},
    ],
)
def test_a_packet_that_cannot_be_packed_is_a_wire_error(change: dict[str, object]) -> None:
    packet = dhcp.Packet(2, b"xidx", bytes(6), ())
    with pytest.raises(WireError):
        replace(packet, **change).pack()  # type: ignore[arg-type]


ADDRESSES = st.ip_addresses(v=4).map(str)
TEXT = st.binary(max_size=63).map(lambda raw: raw.replace(b"\0", b"x"))
CODES = st.integers(1, 254).filter(lambda code: code not in (dhcp.OPT_OVERLOAD, dhcp.OPT_BOOTFILE))
PACKETS = st.builds(
    dhcp.Packet,
    op=st.sampled_from([1, 2]),
    xid=st.binary(min_size=4, max_size=4),
    chaddr=st.binary(max_size=16),
    options=st.builds(
        lambda table, bootfile, relay: tuple(table.items()) + bootfile + relay,
        st.dictionaries(CODES.filter(lambda code: code != dhcp.OPT_RELAY), st.binary(max_size=600), max_size=8),
        st.lists(TEXT.map(lambda raw: (dhcp.OPT_BOOTFILE, raw)), max_size=1).map(tuple),
        st.lists(st.binary(max_size=9).map(lambda raw: (dhcp.OPT_RELAY, raw)), max_size=1).map(tuple),
    ),
    htype=st.integers(0, 255),
    hops=st.integers(0, 255),
    secs=st.integers(0, 65535),
    flags=st.integers(0, 65535),
    ciaddr=ADDRESSES,
    yiaddr=ADDRESSES,
    siaddr=ADDRESSES,
    giaddr=ADDRESSES,
    sname=TEXT,
    file=TEXT,
)


@given(PACKETS)
def test_parse_is_the_inverse_of_pack(packet: dhcp.Packet) -> None:
    assert dhcp.parse(packet.pack()) == packet


@given(st.binary(max_size=700))
def test_any_bytes_are_a_packet_or_a_wire_error(data: bytes) -> None:
    try:
        dhcp.parse(data)
    except WireError:
        pass


@given(st.binary(max_size=400), st.binary(max_size=128), st.binary(max_size=64))
def test_any_options_behind_a_good_header_are_read(options: bytes, file: bytes, sname: bytes) -> None:
    packet = dhcp.parse(raw(options, file=file, sname=sname))
    assert len({code for code, _ in packet.options}) == len(packet.options)
    assert ipaddress.ip_address(packet.siaddr)


@given(st.dictionaries(st.integers(1, 254), st.binary(max_size=255), max_size=6), st.booleans())
def test_suboptions_are_the_inverse_of_packing_them(table: dict[int, bytes], end: bool) -> None:
    packed = dhcp.pack_suboptions(table.items(), end=end)
    assert dict(dhcp.suboptions(packed)) == table
    assert packed.endswith(b"\xff") or not end


@pytest.mark.parametrize("option", [(0, b""), (255, b""), (6, bytes(256))])
def test_suboptions_that_do_not_fit_are_a_wire_error(option: tuple[int, bytes]) -> None:
    with pytest.raises(WireError):
        dhcp.pack_suboptions([option])


@pytest.mark.parametrize(
    ("options", "at"),
    [
        (b"\x35\x01\x01\x61\x02ab\xff", 5),
        (b"\0\0\x61\x02ab", 4),
        (b"\x61\x02ab\x61\x02cd\xff", None),  # joined from two
        (b"\x61\x02ab\x34\x01\x01\xff", None),  # more of it may stand in `file`
        (b"\xff\x61\x02ab", None),
        (b"\x35\x01\x01\x61", None),
        (b"\x35\x01\x01\x61\x09ab", None),
        (b"", None),
    ],
)
def test_where_an_option_stands(options: bytes, at: int | None) -> None:
    raw = dhcp.Packet(1, b"xid1", b"mac123", ()).pack()[:240] + options
    assert dhcp.option_at(raw, 97) == (None if at is None else 240 + at)
    if at is not None:
        assert dhcp.parse(raw).option(97) == raw[240 + at : 242 + at]
