"""DHCPv6 messages: what real firmware sent, what nobody should send, and packing as the inverse of parsing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.wire import dhcp6
from pxeserver.wire.reader import WireError

CAPTURES = Path(__file__).resolve().parent.parent / "captures" / "dhcp6"
NAMES = sorted(file.name.removesuffix(".hex") for file in CAPTURES.glob("*.hex"))
PLAIN = dhcp6.Packet(dhcp6.SOLICIT, b"xyz", ((dhcp6.OPT_CLIENT_ID, b"\0\3\0\1abcdef"),))
LINK = bytes(15) + b"\1"


def captured(name: str) -> bytes:
    return bytes.fromhex((CAPTURES / f"{name}.hex").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_messages_of_real_firmware_survive_a_round_trip(name: str) -> None:
    assert dhcp6.parse(captured(name)).pack() == captured(name)


def test_a_real_solicit_reads_as_its_sender_meant_it() -> None:
    packet = dhcp6.parse(captured("ovmf-pxe.solicit"))
    assert (packet.message, packet.relays) == (dhcp6.SOLICIT, ())
    assert packet.option(dhcp6.OPT_ARCH) == b"\0\7"
    assert packet.option(dhcp6.OPT_NII) == b"\1\3\0"
    assert packet.option(dhcp6.OPT_BOOTFILE_URL) is None
    vendor = packet.option(dhcp6.OPT_VENDOR_CLASS)
    assert vendor is not None
    assert dhcp6.vendor_class(vendor) == (343, (b"PXEClient:Arch:00007:UNDI:003000",))
    assert dhcp6.pack_vendor_class(343, b"PXEClient:Arch:00007:UNDI:003000") == vendor
    assert dhcp6.mac_of_duid(packet.option(dhcp6.OPT_CLIENT_ID) or b"") == bytes.fromhex("525400770601")
    assert dhcp6.addresses(packet) == ()
    request = dhcp6.parse(captured("ovmf-pxe.request"))
    assert dhcp6.addresses(request) == ("fd77::160",)
    assert dhcp6.classes(dhcp6.parse(captured("snponly-ipxe1.solicit")).option(dhcp6.OPT_USER_CLASS) or b"") == (
        b"iPXE",
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "1 more wanted"),
        (b"\0xyz", "0 is no"),
        (b"\1xy", "3 more wanted"),
        (b"\1xyz\0\1\0\5ab", "5 more wanted"),
        (b"\1xyz\0", "2 more wanted"),
        (b"\x0c\0" + LINK, "16 more wanted"),
        (b"\x0c\0" + LINK + LINK, "without a message"),
        (b"\x0c\0" + LINK + LINK + b"\0\x09\0\0", "1 more wanted"),
    ],
)
def test_what_is_not_dhcpv6_is_a_wire_error(data: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        dhcp6.parse(data)


def test_relay_agents_are_kept_and_the_answer_finds_its_way_back() -> None:
    outer = dhcp6.Relay(1, "2001:db8::1", "fe80::1", ((dhcp6.OPT_INTERFACE_ID, b"eth7"), (37, b"remote")))
    inner = dhcp6.Relay(0, "::", "fe80::2", ((dhcp6.OPT_CLIENT_LINK_LAYER, b"\0\1abcdef"),))
    packet = dhcp6.Packet(dhcp6.SOLICIT, b"xyz", PLAIN.options, (outer, inner))
    raw = packet.pack()
    assert raw[0] == dhcp6.RELAY_FORW
    assert dhcp6.parse(raw) == packet
    reply = dhcp6.parse(dhcp6.Packet(dhcp6.ADVERTISE, b"xyz", (), packet.relays).pack())
    assert dhcp6.Packet(dhcp6.ADVERTISE, b"xyz", (), packet.relays).pack()[0] == dhcp6.RELAY_REPL
    assert [(r.hops, r.link, r.peer) for r in reply.relays] == [(1, "2001:db8::1", "fe80::1"), (0, "::", "fe80::2")]
    assert [r.options for r in reply.relays] == [((dhcp6.OPT_INTERFACE_ID, b"eth7"),), ()]  # RFC 8415, 21.18


def test_relay_agents_without_end_are_refused() -> None:
    deepest = dhcp6.Packet(dhcp6.SOLICIT, b"xyz", (), (dhcp6.Relay(0, "::", "::"),) * dhcp6.RELAYS_MAX)
    assert dhcp6.parse(deepest.pack()) == deepest
    deeper = dhcp6.Packet(dhcp6.SOLICIT, b"xyz", (), (*deepest.relays, deepest.relays[0]))
    with pytest.raises(WireError, match="more than 8"):
        dhcp6.parse(deeper.pack())


@pytest.mark.parametrize(
    "packet",
    [
        dhcp6.Packet(dhcp6.SOLICIT, b"xy"),
        dhcp6.Packet(dhcp6.RELAY_FORW, b"xyz"),
        dhcp6.Packet(0, b"xyz"),
        dhcp6.Packet(dhcp6.SOLICIT, b"xyz", ((70000, b""),)),
        dhcp6.Packet(dhcp6.SOLICIT, b"xyz", ((1, bytes(70000)),)),
        dhcp6.Packet(dhcp6.SOLICIT, b"xyz", (), (dhcp6.Relay(0, "10.0.0.1", "::"),)),
        dhcp6.Packet(dhcp6.SOLICIT, b"xyz", (), (dhcp6.Relay(256, "::", "::"),)),
    ],
)
def test_what_does_not_fit_is_not_packed(packet: dhcp6.Packet) -> None:
    with pytest.raises(WireError):
        packet.pack()


@pytest.mark.parametrize(
    ("duid", "mac", "uuid"),
    [
        ("0001000131dea0be525400770601", "525400770601", None),
        ("00030001525400770601", "525400770601", None),
        ("00030020525400770601", None, None),  # InfiniBand
        ("000300015254007706", None, None),
        ("000200000009abcdef", None, None),
        ("0004" + "11" * 16, None, "11" * 16),
        ("0004" + "11" * 15, None, None),
        ("", None, None),
    ],
)
def test_what_a_duid_tells(duid: str, mac: str | None, uuid: str | None) -> None:
    raw = bytes.fromhex(duid)
    assert dhcp6.mac_of_duid(raw) == (bytes.fromhex(mac) if mac else None)
    assert dhcp6.uuid_of_duid(raw) == (bytes.fromhex(uuid) if uuid else None)
    if uuid:
        assert dhcp6.pack_duid_uuid(bytes.fromhex(uuid)) == raw


@pytest.mark.parametrize(
    ("address", "mac"),
    [
        ("fe80::5054:ff:fe77:601", "525400770601"),
        ("fe80::1", None),
        ("2001:db8::5054:ff:fe77:601", None),
        ("10.0.0.1", None),
        ("", None),
    ],
)
def test_the_mac_in_a_link_local_address(address: str, mac: str | None) -> None:
    assert dhcp6.mac_of_link_local(address) == (bytes.fromhex(mac) if mac else None)


def test_the_link_layer_address_that_a_relay_agent_saw() -> None:
    assert dhcp6.mac_of_link_layer(b"\0\1abcdef") == b"abcdef"
    assert dhcp6.mac_of_link_layer(b"\0\x20abcdef") is None
    assert dhcp6.mac_of_link_layer(b"\0\1abc") is None


def test_addresses_stand_in_their_associations() -> None:
    address = bytes(15) + b"\7"
    inner = dhcp6.pack_options([(13, b"\0\0"), (dhcp6.OPT_IA_ADDRESS, address + bytes(8)), (5, b"short")])
    packet = dhcp6.Packet(dhcp6.REQUEST, b"xyz", ((8, b"\0\0"), (dhcp6.OPT_IA_NA, bytes(12) + inner)))
    assert dhcp6.addresses(packet) == ("::7",)
    with pytest.raises(WireError):
        dhcp6.addresses(dhcp6.Packet(dhcp6.REQUEST, b"xyz", ((dhcp6.OPT_IA_NA, bytes(12) + b"\0"),)))


OPTIONS = st.lists(st.tuples(st.integers(0, 65535).filter(lambda code: code != 9), st.binary(max_size=60)), max_size=6)
ADDRESS = st.binary(min_size=16, max_size=16).map(dhcp6.address)
RELAYS = st.lists(
    st.builds(dhcp6.Relay, st.integers(0, 255), ADDRESS, ADDRESS, OPTIONS.map(tuple)), max_size=dhcp6.RELAYS_MAX
)


@given(
    st.integers(1, 11).filter(lambda kind: kind not in (2, 7, 10)), st.binary(min_size=3, max_size=3), OPTIONS, RELAYS
)
def test_parsing_is_the_inverse_of_packing(
    kind: int, xid: bytes, options: list[tuple[int, bytes]], relays: list[dhcp6.Relay]
) -> None:
    packet = dhcp6.Packet(kind, xid, tuple(options), tuple(relays))
    assert dhcp6.parse(packet.pack()) == packet


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    try:
        packet = dhcp6.parse(data)
    except WireError:
        return
    assert dhcp6.parse(packet.pack()).options == packet.options
