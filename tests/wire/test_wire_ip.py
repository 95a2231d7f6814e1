"""IP and UDP around a payload, as captured and as crafted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.wire.ip import checksum, pack, unpack

SOURCE, TARGET = ("10.77.0.1", 67), ("255.255.255.255", 68)


@given(st.binary(max_size=600))
def test_what_was_packed_is_unpacked(payload: bytes) -> None:
    raw = pack(payload, SOURCE, TARGET)
    assert unpack(raw) == (payload, SOURCE, TARGET)
    assert checksum(raw[:20]) == 0
    udp = raw[20:]
    pseudo = raw[12:20] + b"\0\x11" + len(udp).to_bytes(2, "big")
    assert checksum(pseudo + udp) == 0


@given(st.binary(max_size=80))
def test_any_bytes_are_a_datagram_or_none(raw: bytes) -> None:
    found = unpack(raw)
    assert found is None or len(found[0]) <= len(raw)


@pytest.mark.parametrize("cut", [0, 10, 20, 27, 29])
def test_a_packet_that_was_cut_is_none(cut: int) -> None:
    assert unpack(pack(b"abc", SOURCE, TARGET)[:cut]) is None


def test_ip_options_are_skipped() -> None:
    raw = pack(b"abc", SOURCE, TARGET)
    longer = bytes([0x46]) + raw[1:20] + b"\1\1\1\1" + raw[20:]
    assert unpack(longer) == (b"abc", SOURCE, TARGET)


def test_what_is_not_udp_is_none() -> None:
    raw = pack(b"abc", SOURCE, TARGET)
    assert unpack(raw[:9] + b"\6" + raw[10:]) is None
    assert unpack(b"\x65" + raw[1:]) is None
    assert unpack(b"\x44" + raw[1:]) is None
    assert unpack(raw[:24] + b"\0\7" + raw[26:]) is None
