"""DHCPv6: who is answered, why, and with which bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pxeserver import checked
from pxeserver.boot.answer import Arrival, boot_url
from pxeserver.boot.answer6 import answer6
from pxeserver.boot.decide import Decision, decide
from pxeserver.boot.quirks import load_quirks
from pxeserver.boot.request import BootRequest
from pxeserver.boot.request6 import PXE_ENTERPRISE, mac_of6, request_of6, server_duid
from pxeserver.config import Boot, Config, Dhcp6
from pxeserver.model import FleetView, Machine, Pin, Policy, Recent
from pxeserver.wire import dhcp6

CAPTURES = Path(__file__).resolve().parent.parent / "captures" / "dhcp6"
MAC, PEER, OWN = "52:54:00:77:06:01", "fe80::5054:ff:fe77:601", "fd77::2"
URL = boot_url(OWN, 8080, "T" * 62)
CONFIG = Config(dhcp6=Dhcp6(mode="proxy"))


def captured(name: str) -> dhcp6.Packet:
    return dhcp6.parse(bytes.fromhex((CAPTURES / f"{name}.hex").read_text()))


def with_options(packet: dhcp6.Packet, **changes: bytes | None) -> dhcp6.Packet:
    """`o61=b".."` replaces the value of an option, None takes it away."""
    wanted = {int(name[1:]): value for name, value in changes.items()}
    kept = [(code, value) for code, value in packet.options if code not in wanted]
    return replace(packet, options=(*kept, *((code, value) for code, value in wanted.items() if value is not None)))


def http(packet: dhcp6.Packet) -> dhcp6.Packet:
    """The same firmware by HTTP boot."""
    name = b"HTTPClient:Arch:00016:UNDI:003000"
    return with_options(packet, o61=b"\0\x10", o16=dhcp6.pack_vendor_class(PXE_ENTERPRISE, name))


def asked(packet: dhcp6.Packet, port: int = 547) -> BootRequest:
    request = request_of6(packet, port, MAC, OWN)
    assert request is not None
    return request


def decided(packet: dhcp6.Packet, port: int = 547, config: Config = CONFIG, recent: Recent | None = None) -> Decision:
    return decide(asked(packet, port), FleetView(), recent, config, 0.0, load_quirks())


def answered(packet: dhcp6.Packet, port: int = 547, peer_port: int = 546) -> tuple[dhcp6.Packet, str, int]:
    arrival = Arrival(OWN, 2, port, PEER, peer_port)
    reply = answer6(packet, asked(packet, port), decided(packet, port), arrival, URL)
    return dhcp6.parse(reply.payload), reply.address, reply.port


def url_of(packet: dhcp6.Packet) -> str:
    return (packet.option(dhcp6.OPT_BOOTFILE_URL) or b"").decode()


def test_a_pxe_client_is_advertised_a_loader_by_tftp_and_no_address() -> None:
    packet = captured("ovmf-pxe.solicit")
    reply, address, port = answered(packet)
    assert (address, port) == (PEER, 546)
    assert (reply.message, reply.xid) == (dhcp6.ADVERTISE, packet.xid)
    assert [code for code, _ in reply.options] == [1, 2, 59, 16]  # no IA; 59 is not the last, see answer6
    assert reply.option(dhcp6.OPT_CLIENT_ID) == packet.option(dhcp6.OPT_CLIENT_ID)
    assert url_of(reply) == f"tftp://[{OWN}]/snponly.efi"
    assert reply.option(dhcp6.OPT_VENDOR_CLASS) == bytes.fromhex("00000157 0009") + b"PXEClient"


def test_its_request_to_4011_is_answered_where_it_came_from() -> None:
    packet = with_options(captured("ovmf-pxe.4011"), o2=server_duid(OWN))
    reply, address, port = answered(packet, 4011, 4011)
    assert (reply.message, address, port) == (dhcp6.REPLY, PEER, 4011)
    assert url_of(reply) == f"tftp://[{OWN}]/snponly.efi"
    reasons = " ".join(reason.text for reason in decided(packet, 4011).reasons)
    assert "DHCPv6 REQUEST on port 4011, PXEClient" in reasons
    assert "DHCPv6 has no other" in reasons


def test_an_http_client_is_advertised_a_url_and_its_own_word() -> None:
    reply, _, _ = answered(http(captured("ovmf-pxe.solicit")))
    assert url_of(reply) == f"{URL}/loader/snponly.efi"
    assert reply.option(dhcp6.OPT_VENDOR_CLASS) == bytes.fromhex("00000157 000a") + b"HTTPClient"


def test_ipxe_gets_the_script_stateless_or_not() -> None:
    packet = captured("snponly-ipxe1.solicit")
    reply, _, _ = answered(packet)
    assert url_of(reply) == f"{URL}/script.ipxe"
    stateless, _, _ = answered(replace(packet, message=dhcp6.INFORMATION_REQUEST))
    assert (stateless.message, url_of(stateless)) == (dhcp6.REPLY, f"{URL}/script.ipxe")


@pytest.mark.parametrize("name", ["ovmf-pxe.request", "snponly-ipxe1.request", "ovmf-firmware.solicit"])
def test_what_is_for_the_address_server_or_is_no_boot_is_left_to_it(name: str) -> None:
    packet = captured(name)
    request = request_of6(packet, 547, MAC, OWN)
    if request is not None:
        assert decided(packet).why == "not-ours"
    assert (request is None) == ("firmware" in name)


def test_a_request_for_another_boot_server_is_not_answered_on_4011() -> None:
    packet = with_options(captured("ovmf-pxe.4011"), o2=server_duid("fd77::3"))
    assert decided(packet, 4011).why == "not-ours"
    assert decided(with_options(packet, o2=None), 4011).action == "answer"
    assert decided(captured("ovmf-pxe.solicit"), 4011).why == "not-ours"


def test_nobody_is_answered_until_it_is_configured() -> None:
    decision = decided(captured("ovmf-pxe.solicit"), config=Config())
    assert (decision.why, decision.reasons[-1].text) == ("dhcp-off", "dhcp6.mode is off")


def test_policies_and_pins_count_as_for_dhcpv4() -> None:
    request = asked(captured("ovmf-pxe.solicit"))
    machine = Machine(1, "m", (MAC,), pin=Pin(style="pxe10", loader="ipxe.efi"))
    view = FleetView(machines={1: machine}, by_mac={MAC: 1})
    decision = decide(request, view, None, CONFIG, 0.0, load_quirks())
    assert (decision.loader, decision.style) == ("ipxe.efi", "dhcp6")
    assert decide(request, FleetView(policy=Policy.IGNORE), None, CONFIG, 0.0, load_quirks()).why == "policy-ignore"


def test_the_architecture_is_taken_from_61_then_from_16_then_guessed() -> None:
    packet = captured("ovmf-pxe.solicit")
    arm = with_options(packet, o61=b"\0\x0b")
    assert (asked(arm).arch.code, asked(arm).arch_from) == (11, "option 61")
    config = checked.replace(CONFIG, boot=Boot(loaders={"arm64": "snponly-arm64.efi"}))
    assert decided(arm, config=config).loader == "snponly-arm64.efi"
    assert decided(arm).why == "no-loader"
    assert asked(with_options(packet, o61=b"\xff\xf0\0\7")).arch.code == 7
    assert (asked(with_options(packet, o61=None)).arch.code, asked(with_options(packet, o61=None)).arch_from) == (
        7,
        "option 16",
    )
    bare = with_options(packet, o61=None, o16=dhcp6.pack_vendor_class(9, b"PXEClient"))
    assert asked(bare).arch_from == "nothing: taken as x86-64 UEFI"


@pytest.mark.parametrize("vendor", [None, b"", b"\0\0\1\x57", b"\0\0\1\x57\0\x09PXE", b"\0\0\1\x57\0\3foo"])
def test_without_a_word_of_network_booting_there_is_no_request(vendor: bytes | None) -> None:
    assert request_of6(with_options(captured("ovmf-pxe.solicit"), o16=vendor), 547, MAC, OWN) is None


def test_what_servers_say_is_no_request() -> None:
    for kind in (dhcp6.ADVERTISE, dhcp6.REPLY, dhcp6.RECONFIGURE):
        assert request_of6(replace(captured("ovmf-pxe.solicit"), message=kind), 547, MAC, OWN) is None


def test_the_card_is_known_by_what_the_way_shows_before_what_the_client_says() -> None:
    packet = with_options(captured("ovmf-pxe.solicit"), o1=bytes.fromhex("00030001 0200000000aa"))
    assert mac_of6(packet, PEER) == MAC
    assert mac_of6(packet, "fe80::1") == "02:00:00:00:00:aa"
    assert mac_of6(packet, "fd77::9", {"fd77::9": MAC}.get) == MAC
    assert mac_of6(packet, "fd77::8", {"fd77::9": MAC}.get) == "02:00:00:00:00:aa"
    assert mac_of6(with_options(packet, o1=b"\0\4" + bytes(16)), "fe80::1") is None
    assert mac_of6(with_options(packet, o1=bytes.fromhex("00030001 ffffffffffff")), "fe80::1") is None
    behind = dhcp6.Relay(0, "2001:db8::1", PEER)
    assert mac_of6(replace(packet, relays=(behind,)), "2001:db8::1") == MAC
    seen = replace(behind, options=((dhcp6.OPT_CLIENT_LINK_LAYER, bytes.fromhex("0001 020000000001")),))
    assert mac_of6(replace(packet, relays=(seen,)), "2001:db8::1") == "02:00:00:00:00:01"


def test_a_relayed_answer_goes_to_the_relay_agent_wrapped_as_it_came() -> None:
    relay = dhcp6.Relay(0, "2001:db8::1", PEER, ((dhcp6.OPT_INTERFACE_ID, b"eth7"),))
    packet = replace(captured("ovmf-pxe.solicit"), relays=(relay,))
    reply, address, port = answered(packet)
    assert (address, port) == (PEER, 547)
    assert reply.relays == (relay,)
    assert url_of(reply) == f"tftp://[{OWN}]/snponly.efi"


def test_our_identifier_follows_from_our_address() -> None:
    assert server_duid(OWN) == server_duid(OWN)
    assert server_duid(OWN) != server_duid("fd77::3")
    assert dhcp6.uuid_of_duid(server_duid(OWN)) is not None


def test_the_uuid_of_firmware_reads_as_in_option_97_and_that_of_ipxe_is_left_alone() -> None:
    duid = b"\0\4" + bytes.fromhex("44454c4c4c7700001080005254007700")
    assert asked(with_options(captured("ovmf-pxe.solicit"), o1=duid)).uuid == "4c4c4544-774c-0000-1080-005254007700"
    assert asked(with_options(captured("snponly-ipxe1.solicit"), o1=duid)).uuid == ""
