"""Answers on the wire: fields per style, where they go, never an address, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.boot.answer import Arrival, Reply, answer, boot_file, boot_url, by_url
from pxeserver.boot.decide import BootRequest, Decision, decide, request_of
from pxeserver.boot.quirks import load_quirks
from pxeserver.boot.styles import STYLES
from pxeserver.config import Config
from pxeserver.model import FleetView
from pxeserver.wire import dhcp, pxe

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
OWN = "10.77.0.2"
URL = boot_url(OWN, 8080, "T" * 62)
QUIRKS = load_quirks()

Captured = Callable[[str], dhcp.Packet]


def replied(packet: dhcp.Packet, port: int = 67, arrival: Arrival | None = None, **change: object) -> Reply:
    request = request_of(packet, port)
    assert request is not None
    decision = decide(request, FleetView(), None, Config(), 0.0, QUIRKS)
    decision = decision._replace(action="answer", **change)  # type: ignore[arg-type]
    return answer(packet, request, decision, arrival or Arrival(OWN, 2, port), URL)


def test_the_answer_to_a_bios_rom(captured: Captured) -> None:
    packet = captured("plain-rom-bios.discover")
    reply = replied(packet)
    offer = dhcp.parse(reply.payload)
    assert (reply.address, reply.port) == ("255.255.255.255", 68)
    assert (offer.op, offer.message, offer.xid, offer.chaddr) == (2, dhcp.OFFER, packet.xid, packet.chaddr)
    assert (offer.siaddr, offer.file, offer.flags, offer.secs) == (OWN, b"undionly.kpxe", dhcp.BROADCAST, packet.secs)
    assert dict(offer.options) == {
        53: bytes((dhcp.OFFER,)),
        54: bytes((10, 77, 0, 2)),
        60: b"PXEClient",
        97: packet.option(97),
        43: b"\x06\x01\x08\xff",
    }


def test_the_answer_to_uefi_and_its_question_on_4011(captured: Captured) -> None:
    offer = dhcp.parse(replied(captured("ovmf-pxe.discover")).payload)
    assert (offer.file, offer.option(43), offer.option(67)) == (b"snponly.efi", None, None)
    binl = captured("ovmf-pxe.4011")
    reply = replied(binl, 4011, Arrival(OWN, 2, 4011, "10.77.0.202", 4011))
    ack = dhcp.parse(reply.payload)
    assert (reply.address, reply.port) == ("10.77.0.202", 4011)
    assert (ack.message, ack.file, ack.siaddr, ack.flags) == (dhcp.ACK, b"snponly.efi", OWN, binl.flags)


def test_the_answer_to_uefi_http_boot(captured: Captured) -> None:
    offer = dhcp.parse(replied(captured("ovmf-http.discover")).payload)
    url = f"{URL}/loader/snponly.efi".encode()
    assert (offer.option(60), offer.option(67), offer.file) == (b"HTTPClient", url, url)


def test_the_answer_to_ipxe_is_the_scripts_url(captured: Captured) -> None:
    offer = dhcp.parse(replied(captured("qemu-rom-ipxe1-bios.discover")).payload)
    assert offer.file == f"{URL}/script.ipxe".encode()
    ack = dhcp.parse(replied(captured("qemu-rom-ipxe1-bios.4011"), 4011).payload)
    assert ack.option(43) == bytes.fromhex("470480030000ff")  # the boot item that it chose, back


@pytest.mark.parametrize(
    ("style", "file", "codes"),
    [
        ("pxe10", True, {43}),
        ("binl", True, set()),
        ("options", True, {66, 67}),
        ("late", False, set()),
        ("header", True, set()),
        ("rpi", True, {43}),
    ],
)
def test_what_each_style_has(captured: Captured, style: str, file: bool, codes: set[int]) -> None:
    offer = dhcp.parse(replied(captured("ovmf-pxe.discover"), style=style).payload)
    assert bool(offer.file) == file
    assert {code for code, _ in offer.options} == {53, 54, 60, 97} | codes
    assert (offer.siaddr, offer.option(54)) == (OWN, bytes((10, 77, 0, 2)))
    ack = dhcp.parse(replied(captured("ovmf-pxe.4011"), 4011, style=style).payload)
    assert ack.file == b"snponly.efi"  # 4011 always gives the file


def test_a_url_too_long_for_the_header_goes_into_option_67(captured: Captured) -> None:
    name = "x" * 60 + ".efi"
    offer = dhcp.parse(replied(captured("ovmf-http.discover"), loader=name).payload)
    assert offer.file == b"" and offer.option(67) == f"{URL}/loader/{name}".encode()


def test_a_relay_gets_the_answer_its_option_last_and_the_broadcast_flag(captured: Captured) -> None:
    packet = captured("ovmf-pxe-relayed.discover")
    packet = replace(packet, flags=0, hops=1, options=(packet.options[0], (82, b"\1\2ab"), *packet.options[1:]))
    reply = replied(packet, 67, Arrival(OWN, 2, 67, "10.77.1.1", 67), style="options")
    offer = dhcp.parse(reply.payload)
    assert (reply.address, reply.port, offer.giaddr, offer.hops) == ("10.77.1.1", 67, "10.77.1.1", 1)
    assert offer.flags == dhcp.BROADCAST  # it has no address to unicast to
    assert [code for code, _ in offer.options][-2:] == [67, 82]


@pytest.mark.parametrize(
    ("name", "change", "arrival", "address", "port"),
    [
        ("ovmf-pxe.discover", {}, Arrival(OWN, 2, 67), "255.255.255.255", 68),
        ("ovmf-pxe.discover", {"ciaddr": "10.0.0.9"}, Arrival(OWN, 2, 67, "10.0.0.9", 68), "10.0.0.9", 68),
        ("ovmf-pxe.4011", {}, Arrival(OWN, 2, 4011, "10.0.0.9", 1234), "10.0.0.9", 1234),
        ("ovmf-pxe.4011", {"ciaddr": "10.0.0.9"}, Arrival(OWN, 2, 4011), "10.0.0.9", 68),
        ("ovmf-pxe.4011", {"ciaddr": "0.0.0.0"}, Arrival(OWN, 2, 4011), "255.255.255.255", 68),
        ("ovmf-pxe.4011", {"ciaddr": "0.0.0.0", "giaddr": "10.0.1.1"}, Arrival(OWN, 2, 4011), "10.0.1.1", 67),
        ("ovmf-pxe.4011", {"giaddr": "10.0.1.1"}, Arrival(OWN, 2, 4011, "10.0.1.9", 4011), "10.0.1.9", 4011),
    ],
)
def test_where_answers_go(
    captured: Captured, name: str, change: dict[str, str], arrival: Arrival, address: str, port: int
) -> None:
    reply = replied(replace(captured(name), **change), arrival.port, arrival)  # type: ignore[arg-type]
    assert (reply.address, reply.port) == (address, port)


def test_what_a_machine_is_told_to_load(captured: Captured) -> None:
    request = request_of(captured("ovmf-pxe.discover"), 67)
    assert request is not None
    script, loader = Decision("answer", (), "script", "binl"), Decision("answer", (), "loader", "binl", "a.efi")
    assert boot_file(request, script, URL) == f"{URL}/script.ipxe"
    assert boot_file(request, loader, URL) == "a.efi"
    assert boot_file(request._replace(vendor=pxe.HTTP_CLIENT), loader, URL) == f"{URL}/loader/a.efi"


def test_the_longest_script_url_fits_the_header() -> None:
    url = boot_url("255.255.255.255", 65535, "T" * 62)
    assert len(f"{url}/script.ipxe") <= dhcp.FILE_MAX


@given(
    st.dictionaries(st.integers(1, 254), st.binary(max_size=300), max_size=6),
    st.sampled_from([b"PXEClient:Arch:00007", b"PXEClient", b"HTTPClient:Arch:00016"]),
    st.sampled_from(list(STYLES)),
    st.sampled_from([67, 4011]),
    st.sampled_from([1, 3]),
    st.ip_addresses(v=4).map(str),
)
def test_no_answer_ever_has_an_address_and_the_same_question_gets_the_same_bytes(
    options: dict[int, bytes], vendor: bytes, style: str, port: int, message: int, giaddr: str
) -> None:
    table = {**options, 60: vendor, 53: bytes((message,))}
    packet = dhcp.Packet(1, b"xidx", bytes.fromhex("525400770001"), tuple(table.items()), giaddr=giaddr)
    reply = replied(packet, port, style=style, loader="a.efi")
    assert reply == replied(packet, port, style=style, loader="a.efi")
    answered = dhcp.parse(reply.payload)
    assert answered.yiaddr == "0.0.0.0" and answered.op == dhcp.BOOTREPLY
    assert answered.message == (dhcp.OFFER if message == 1 else dhcp.ACK)
    assert answered.option(50) is None and answered.option(51) is None


def plain(packet: dhcp.Packet, request: BootRequest, decision: Decision, own_ip: str, url: str) -> bytes:
    """An answer made anew from the first byte to the last, with nothing kept from other ones."""
    offer, style = packet.message == dhcp.DISCOVER, STYLES[decision.style]
    name = boot_file(request, decision, url).encode()
    menu = pxe.raspberry_menu() if style.menu else pxe.DIRECT if style.direct else None
    item = request.boot_item
    specific = menu if item is None else dhcp.pack_suboptions([(pxe.BOOT_ITEM, item)], end=True)
    give = style.file or not offer
    in_option = give and (style.options or request.http or len(name) > dhcp.FILE_MAX)
    options = {
        82: packet.option(82),
        67: name if in_option else None,
        53: bytes((dhcp.OFFER if offer else dhcp.ACK,)),
        54: bytes(map(int, own_ip.split("."))),
        60: request.vendor,
        97: packet.option(97),
        43: specific,
        66: own_ip.encode() if style.options else None,
    }
    return replace(
        packet,
        op=dhcp.BOOTREPLY,
        options=tuple((code, value) for code, value in options.items() if value is not None),
        flags=packet.flags | (dhcp.BROADCAST if offer else 0),
        yiaddr="0.0.0.0",
        siaddr=own_ip,
        sname=b"",
        file=name if give and len(name) <= dhcp.FILE_MAX else b"",
    ).pack()


@given(
    name=st.sampled_from(sorted(path.stem for path in CAPTURES.glob("*.hex") if "dnsmasq" not in path.stem)),
    own_ip=st.sampled_from([OWN, "192.0.2.255"]),
    port=st.sampled_from([67, 4011]),
    style=st.sampled_from(list(STYLES)),
    kind=st.sampled_from(["loader", "script", "image"]),
    loader=st.sampled_from(["a.efi", "x" * 140]),
    options=st.dictionaries(
        st.sampled_from([43, 53, 54, 60, 61, 66, 77, 82, 93, 97, 175]), st.binary(max_size=300), max_size=4
    ),
    header=st.fixed_dictionaries(
        {"xid": st.binary(min_size=4, max_size=4), "chaddr": st.binary(min_size=6, max_size=6)},
        optional={
            "secs": st.integers(0, 0xFFFF),
            "flags": st.integers(0, 0xFFFF),
            "hops": st.integers(0, 255),
            "ciaddr": st.ip_addresses(v=4).map(str),
            "giaddr": st.ip_addresses(v=4).map(str),
            "file": st.just(b"x"),
        },
    ),
)
def test_what_is_kept_from_other_answers_changes_no_byte(
    name: str,
    own_ip: str,
    port: int,
    style: str,
    kind: Literal["loader", "script", "image"],
    loader: str,
    options: dict[int, bytes],
    header: dict[str, Any],
) -> None:
    recorded = dhcp.parse(bytes.fromhex((CAPTURES / f"{name}.hex").read_text()))
    packet = replace(recorded, options=tuple({**dict(recorded.options), **options}.items()), **header)
    request = request_of(packet, port)
    if request is None:
        return
    decision = Decision("answer", (), kind, style, loader, "sha256:" + "5a" * 32)
    url = boot_url(own_ip, 8080, "T" * 62)
    reply = answer(packet, request, decision, Arrival(own_ip, 2, port, "10.0.0.9", 4011), url)
    assert reply.payload == plain(packet, request, decision, own_ip, url)
    if not by_url(request, decision):
        assert reply == answer(packet, request, decision, Arrival(own_ip, 2, port, "10.0.0.9", 4011), "")
