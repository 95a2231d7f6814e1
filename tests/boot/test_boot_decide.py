"""decide(): real firmware's packets against policies, pins, the MAC's past and the quirks; all with their reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.boot.decide import LOADER_FRESH, Decision, decide, request_of
from pxeserver.boot.quirks import Change, Match, Quirk, Quirks, load_quirks
from pxeserver.boot.request import BootRequest
from pxeserver.boot.styles import SILENCE, STYLES, styles_for
from pxeserver.config import Boot, Config, Dhcp
from pxeserver.model import FleetView, Machine, Pin, Policy, Recent
from pxeserver.wire import dhcp, pxe

NOW = 1000.0
QUIRKS = load_quirks()
DEFAULTS = Config()
NOBODY = FleetView()

Asked = Callable[[str], BootRequest]


def told(
    request: BootRequest,
    view: FleetView = NOBODY,
    recent: Recent | None = None,
    config: Config = DEFAULTS,
    quirks: Quirks = QUIRKS,
) -> Decision:
    return decide(request, view, recent, config, NOW, quirks)


def past(**more: Any) -> Recent:
    return Recent("00" * 8, NOW - 60, NOW - 5, **more)


def reason(decision: Decision, topic: str) -> str:
    return next((r.text for r in decision.reasons if r.topic == topic), "")


def pinned(view: FleetView, pin: Pin) -> FleetView:
    return replace(view, machines={1: replace(view.machines[1], pin=pin)})


@pytest.mark.parametrize(
    ("name", "action", "kind", "style", "loader"),
    [
        ("plain-rom-bios.discover", "answer", "loader", "pxe10", "undionly.kpxe"),
        ("plain-rom-bios.4011", "answer", "loader", "pxe10", "undionly.kpxe"),
        ("qemu-rom-ipxe1-bios.discover", "answer", "script", "pxe10", ""),
        ("qemu-rom-ipxe1-bios.4011", "answer", "script", "pxe10", ""),
        ("undionly-ipxe2-bios.discover", "answer", "script", "pxe10", ""),
        ("ovmf-pxe.discover", "answer", "loader", "binl", "snponly.efi"),
        ("ovmf-pxe.4011", "answer", "loader", "binl", "snponly.efi"),
        ("ovmf-pxe-relayed.discover", "answer", "loader", "binl", "snponly.efi"),
        ("snponly-ipxe1-efi.discover", "answer", "script", "binl", ""),
        ("snponly-ipxe2-efi.discover", "answer", "script", "binl", ""),
        ("ovmf-http.discover", "answer", "loader", "http", "snponly.efi"),
        ("qemu-rom-ipxe1-bios.request", "ignore", "script", "", ""),
        ("ovmf-pxe.request", "ignore", "script", "", ""),
        ("ovmf-pxe-relayed.request", "ignore", "script", "", ""),
    ],
)
def test_first_answers_to_real_firmware(
    asked: Asked, name: str, action: str, kind: str, style: str, loader: str
) -> None:
    decision = told(asked(name))
    assert (decision.action, decision.kind, decision.style, decision.loader) == (action, kind, style, loader)
    assert decision.why == ("" if action == "answer" else "not-ours")
    assert decision.reasons[0].topic == "request" and decision.reasons[1].topic == "firmware"


def test_a_request_on_67_is_for_the_address_server_and_says_which(asked: Asked) -> None:
    assert "here 10.77.0.1" in reason(told(asked("ovmf-pxe-relayed.request")), "ignored")


def test_who_does_not_boot_from_the_network_is_no_boot_request(captured: Callable[[str], dhcp.Packet]) -> None:
    discover = captured("ovmf-pxe.discover")
    assert request_of(discover, 67) is not None
    others = [
        captured("dnsmasq.offer"),
        replace(discover, options=((53, b"\1"),)),  # a booted system
        replace(discover, options=((53, b"\1"), (60, b"MSFT 5.0"), (93, b"\0\7"))),
        replace(discover, options=((53, b"\1"), (60, b"U-Boot.armv8"))),  # U-Boot that does not say what it is
        replace(discover, chaddr=bytes(6)),
        replace(discover, chaddr=b"\x01" + discover.chaddr[1:]),  # a multicast address is nobody's
    ]
    assert [request_of(packet, 67) for packet in others] == [None] * len(others)


def with_options(packet: dhcp.Packet, *more: tuple[int, bytes]) -> dhcp.Packet:
    codes = {code for code, _ in more}
    return replace(packet, options=tuple(o for o in packet.options if o[0] not in codes) + more)


@pytest.mark.parametrize(
    ("archs", "vendor", "code", "origin"),
    [
        (b"\0\7", b"PXEClient:Arch:00000:UNDI:002001", 7, "option 93"),  # 93 counts when both are there
        (b"\xff\xf0\0\7\0\0", b"PXEClient", 7, "option 93"),  # a list: the first one known
        (b"\xff\xf0", b"PXEClient:Arch:00007", 0xFFF0, "option 93"),
        (None, b"PXEClient:Arch:00009:UNDI:003000", 9, "option 60"),
        (None, b"PXEClient", 0, "nothing: taken as BIOS"),
        (b"\0", b"PXEClient", 0, "nothing: taken as BIOS"),
    ],
)
def test_where_the_architecture_comes_from(
    captured: Callable[[str], dhcp.Packet], archs: bytes | None, vendor: bytes, code: int, origin: str
) -> None:
    options = [(53, b"\1"), (60, vendor)] + ([(93, archs)] if archs is not None else [])
    request = request_of(replace(captured("ovmf-pxe.discover"), options=tuple(options)), 67)
    assert request is not None
    assert (request.arch.code, request.arch_from) == (code, origin)


def test_hardware_other_than_ethernet_is_known_by_option_61(captured: Callable[[str], dhcp.Packet]) -> None:
    discover = with_options(replace(captured("ovmf-pxe.discover"), htype=32, chaddr=b""), (97, b""))
    assert request_of(discover, 67) is None
    assert request_of(with_options(discover, (61, b"\1\2\3")), 67) is None
    by_chaddr = request_of(replace(discover, chaddr=bytes.fromhex("0002c90300445566")), 67)
    assert by_chaddr is not None and by_chaddr.mac == "00:02:c9:44:55:66"
    by_mac = request_of(with_options(discover, (61, b"\1" + bytes.fromhex("525400770001"))), 67)
    by_guid = request_of(with_options(discover, (61, b"\xff\0\0\0" + bytes.fromhex("0002c90300112233"))), 67)
    assert by_mac is not None and by_mac.mac == "52:54:00:77:00:01"
    assert by_guid is not None and by_guid.mac == "00:02:c9:11:22:33"


def test_hardware_without_any_address_is_known_by_its_uuid(captured: Callable[[str], dhcp.Packet]) -> None:
    nameless = replace(captured("ovmf-pxe.discover"), htype=32, chaddr=b"")
    macs = []
    for uuid in (bytes(range(17)), bytes(16) + b"\1"):
        request = request_of(with_options(nameless, (97, uuid)), 67)
        assert request is not None and request == request_of(with_options(nameless, (97, uuid)), 67)
        macs.append(request.mac)
    assert len(set(macs)) == 2 and all(mac.startswith("02:") for mac in macs)
    for useless in (b"\0" + bytes(16), b"\1" + bytes(range(16)), b"\0\1"):
        assert request_of(with_options(nameless, (97, useless)), 67) is None


# --- policies and assignments ---


def test_the_decision_carries_what_the_token_binds(asked: Asked, view: FleetView) -> None:
    decision = told(asked("ovmf-pxe.discover"), view)
    assert (decision.image, decision.revision) == ("sha256:" + "ab" * 32, 3)
    assert decision.goarch == "amd64"
    assert "node7" in reason(decision, "machine") and "revision 3" in reason(decision, "image")
    unknown = told(asked("ovmf-pxe.discover"))
    assert (unknown.image, unknown.revision) == ("", 0)


@pytest.mark.parametrize(
    ("policy", "action", "why"),
    [
        (Policy.WAIT, "answer", ""),
        (Policy.DEFAULT, "answer", ""),
        (Policy.LOCAL, "answer", ""),
        (Policy.IGNORE, "ignore", "policy-ignore"),
    ],
)
def test_policies_for_machines_without_an_assignment(asked: Asked, policy: Policy, action: str, why: str) -> None:
    decision = told(asked("ovmf-pxe.discover"), FleetView(policy=policy))
    assert (decision.action, decision.why) == (action, why)
    assert policy.value in reason(decision, "policy")


def test_an_assigned_machine_is_answered_whatever_the_policy(asked: Asked, view: FleetView) -> None:
    assert told(asked("ovmf-pxe.discover"), replace(view, policy=Policy.IGNORE)).action == "answer"


def test_a_machine_may_want_no_offer_at_all_for_its_own_disk(asked: Asked, view: FleetView) -> None:
    machine = replace(view.machines[1], vars={"local_boot": "no-offer"})
    mine = replace(view, machines={1: machine}, assignments={}, policy=Policy.LOCAL)
    assert told(asked("ovmf-pxe.discover"), mine).why == "policy-local"
    assert told(asked("ovmf-pxe.discover"), replace(mine, policy=Policy.WAIT)).action == "answer"


def test_nothing_is_answered_when_dhcp_is_off(asked: Asked) -> None:
    assert told(asked("ovmf-pxe.discover"), config=Config(dhcp=Dhcp(mode="off"))).why == "dhcp-off"


@pytest.mark.parametrize(
    ("port", "message", "item", "answered"),
    [
        (67, dhcp.DISCOVER, None, True),
        (67, dhcp.REQUEST, None, False),
        (67, dhcp.INFORM, None, False),
        (67, dhcp.RELEASE, None, False),
        (67, 0, None, False),
        (67, 99, None, False),
        (4011, dhcp.REQUEST, None, True),
        (4011, dhcp.DISCOVER, None, False),
        (4011, dhcp.INFORM, None, False),
        (4011, dhcp.INFORM, b"\x80\0\0\0", True),
    ],
)
def test_which_messages_are_ours(asked: Asked, port: int, message: int, item: bytes | None, answered: bool) -> None:
    request = asked("ovmf-pxe.discover")._replace(port=port, message=message, boot_item=item)
    assert (told(request).action == "answer") == answered


# --- loaders ---


def test_firmware_without_a_loader_is_left_alone_and_told_why(asked: Asked) -> None:
    for code, family in ((6, "efi32"), (11, "arm64"), (2, "itanium"), (4660, "unknown")):
        decision = told(asked("ovmf-pxe.discover")._replace(arch=pxe.arch_of(code)))
        assert (decision.action, decision.why) == ("ignore", "no-loader")
        assert f"boot.loaders.{family}" in reason(decision, "ignored")


def test_loaders_by_configuration_quirk_and_pin(asked: Asked, view: FleetView) -> None:
    arm = asked("ovmf-pxe.discover")._replace(arch=pxe.arch_of(11))
    config = Config(boot=Boot(bios_loader="b.kpxe", efi_loader="e.efi", loaders={"arm64": "a.efi"}))
    assert told(arm, config=config).loader == "a.efi"
    assert told(asked("ovmf-pxe.discover"), config=config).loader == "e.efi"
    assert told(asked("plain-rom-bios.discover"), config=config).loader == "b.kpxe"
    match = Match(family="efi64", ipxe=False)
    quirks = (Quirk(name="x", match=match, set=Change(loader="q.efi"), why="seen"),)
    decision = told(asked("ovmf-pxe.discover"), config=config, quirks=quirks)
    assert decision.loader == "q.efi" and reason(decision, "quirk") == "x: seen"
    assert told(asked("ovmf-pxe.discover"), pinned(view, Pin(loader="p.efi")), config=config, quirks=quirks).loader == (
        "p.efi"
    )


def test_a_raspberry_pi_is_known_by_its_address_although_it_says_bios(asked: Asked) -> None:
    request = asked("plain-rom-bios.discover")._replace(mac="dc:a6:32:00:00:01")
    decision = told(request, config=Config(boot=Boot(loaders={"rpi": "start4.elf"})))
    assert (decision.style, decision.loader, decision.goarch) == ("rpi", "start4.elf", "arm64")
    assert "raspberry-pi" in reason(decision, "quirk")
    assert told(request).why == "no-loader"  # never undionly.kpxe
    efi = asked("ovmf-pxe.discover")._replace(mac="dc:a6:32:00:00:01", arch=pxe.arch_of(11))
    assert not reason(told(efi), "quirk")  # UEFI on a Pi is UEFI


def test_u_boot_gets_its_file_in_the_header(captured: Callable[[str], dhcp.Packet]) -> None:
    packet = with_options(captured("ovmf-pxe.discover"), (60, b"U-Boot.armv8"), (93, b"\0\x16"))
    request = request_of(packet, 67)
    assert request is not None and request.vendor == pxe.PXE_CLIENT
    decision = told(request, config=Config(boot=Boot(loaders={"arm64": "a.efi"})))
    assert (decision.style, decision.loader) == ("header", "a.efi")


@pytest.mark.parametrize(("code", "by_http"), [(21, False), (22, False), (23, True), (24, True)])
def test_u_boot_that_boots_by_http_gets_a_url(captured: Callable[[str], dhcp.Packet], code: int, by_http: bool) -> None:
    packet = with_options(captured("ovmf-pxe.discover"), (60, b"U-Boot.armv8"), (93, code.to_bytes(2, "big")))
    request = request_of(packet, 67)
    assert request is not None and request.http == by_http
    decision = told(request, config=Config(boot=Boot(loaders={"arm64": "a.efi", "arm32": "b.efi"})))
    assert decision.style == ("http" if by_http else "header")


EVERY_LOADER = Config(boot=Boot(loaders={family: f"{family}.x" for family in pxe.FAMILIES}))


@pytest.mark.parametrize("code", sorted(pxe.ARCHES))
def test_every_architecture_gets_the_loader_of_its_family_or_a_clear_word(
    captured: Callable[[str], dhcp.Packet], code: int
) -> None:
    arch = pxe.ARCHES[code]
    vendor = b"HTTPClient" if arch.http else b"U-Boot" if arch.uboot else b"PXEClient"
    request = request_of(with_options(captured("ovmf-pxe.discover"), (60, vendor), (93, code.to_bytes(2, "big"))), 67)
    assert request is not None and request.arch is arch
    decision = told(request, config=EVERY_LOADER)
    assert (decision.action, decision.loader) == ("answer", f"{arch.family}.x")
    assert (decision.style == "http") == arch.http
    if arch.family not in ("bios", "efi64"):
        refused = told(request)
        assert refused.why == "no-loader" and f"boot.loaders.{arch.family}" in reason(refused, "ignored")


# --- which iPXE is asking ---


def test_an_ipxe_built_for_us_is_known_by_its_user_class(
    captured: Callable[[str], dhcp.Packet], view: FleetView
) -> None:
    rom = captured("qemu-rom-ipxe1-bios.discover")
    for raw in (b"pxeserver", b"\x09pxeserver", b"\x04iPXE\x09pxeserver"):  # raw, or as RFC 3004 wants it
        request = request_of(with_options(rom, (77, raw)), 67)
        assert request is not None and request.user_class == "pxeserver"
        decision = told(request, pinned(view, Pin(loader="undionly.kpxe")))
        assert decision.kind == "script" and "our own iPXE" in reason(decision, "kind")
    assert request_of(with_options(rom, (77, b"\x04iPXE")), 67).user_class == "iPXE"  # type: ignore[union-attr]


def test_a_pinned_loader_is_chained_once_and_the_chained_ipxe_gets_the_script(asked: Asked, view: FleetView) -> None:
    """Both say user class iPXE; what the MAC just fetched tells them apart."""
    mine = pinned(view, Pin(loader="undionly.kpxe"))
    rom, chained = asked("qemu-rom-ipxe1-bios.discover"), asked("undionly-ipxe2-bios.discover")
    first = told(rom, mine, None)
    assert (first.kind, first.loader) == ("loader", "undionly.kpxe")
    fetched = past(loader="undionly.kpxe", loader_at=NOW - 3, loader_cycles=1)
    second = told(chained, mine, fetched)
    assert second.kind == "script" and "undionly.kpxe" in reason(second, "kind")
    # ipxe 1.0 on UEFI says the whole of option 60 even when it was loaded
    assert told(asked("snponly-ipxe1-efi.discover"), mine, fetched).kind == "script"
    # the next power-on: its script was asked for meanwhile
    assert told(rom, mine, fetched._replace(script_at=NOW - 1)).kind == "loader"
    # a loader fetched long ago says nothing about who asks now
    assert told(rom, mine, fetched._replace(loader_at=NOW - LOADER_FRESH)).kind == "loader"


def test_a_loader_that_returns_to_the_cards_ipxe_is_tried_twice_and_then_left_out(
    asked: Asked, view: FleetView
) -> None:
    """The card's own iPXE says the whole of option 60: it is not the one that was loaded."""
    mine = pinned(view, Pin(loader="returns.kpxe"))
    rom = asked("qemu-rom-ipxe1-bios.discover")
    fetched = past(loader="returns.kpxe", loader_at=NOW - 9, loader_cycles=1)
    again = told(rom, mine, fetched)
    assert again.kind == "loader" and "returned" in reason(again, "kind")
    given_up = told(rom, mine, fetched._replace(loader_cycles=2))
    assert given_up.kind == "script" and "returned 2 times" in reason(given_up, "kind")


def test_an_ipxe_that_cannot_do_http_gets_a_loader_that_can(asked: Asked) -> None:
    rom = asked("qemu-rom-ipxe1-bios.discover")
    poor = rom._replace(features=frozenset({"tftp", "bzimage"}))
    assert told(poor).kind == "loader"
    assert told(poor._replace(bare=True), recent=past(loader="undionly.kpxe", loader_at=NOW - 1)).kind == "script"
    assert told(rom._replace(features=frozenset())).kind == "script"  # says nothing: believed to be able
    assert told(rom._replace(user_class="gPXE")).kind == "loader"


def test_a_loader_that_comes_back_is_told_as_a_loop(asked: Asked) -> None:
    looping = past(loader="snponly.efi", loader_at=NOW - 9, loader_cycles=2)
    decision = told(asked("ovmf-pxe.discover"), recent=looping)
    assert decision.kind == "loader" and "snponly.efi was fetched 2 times" in reason(decision, "loop")
    assert not reason(told(asked("ovmf-pxe.discover"), recent=looping._replace(loader_cycles=1)), "loop")


# --- styles ---


def styles_over(request: BootRequest, count: int) -> list[str]:
    """The styles of `count` DISCOVERs in a row that bring no sign of life, kept as the recorder keeps them."""
    recent: Recent | None = None
    seen = []
    for n in range(count):
        style = told(request, recent=recent).style
        seen.append(style)
        recent = past(style=style, discovers=n + 1)
    return seen


def test_after_silence_the_next_style_is_tried_and_then_the_first_again(asked: Asked) -> None:
    assert styles_over(asked("ovmf-pxe.discover"), 13) == (
        ["binl"] * 3 + ["pxe10"] * 3 + ["options"] * 3 + ["late"] * 3 + ["binl"]
    )
    assert styles_over(asked("plain-rom-bios.discover"), 7) == ["pxe10"] * 3 + ["binl"] * 3 + ["options"]
    assert styles_over(asked("ovmf-http.discover"), 5) == ["http"] * 5


def test_a_style_that_worked_is_kept(asked: Asked) -> None:
    decision = told(asked("ovmf-pxe.discover"), recent=past(style="options", discovers=0))
    assert decision.style == "options" and "as last time" in reason(decision, "style")
    # 4011 is a sign of life: the style that brought it stays, whatever the count was
    assert told(asked("ovmf-pxe.4011"), recent=past(style="pxe10", discovers=SILENCE)).style == "pxe10"
    # another firmware of the same machine begins anew
    assert told(asked("ovmf-pxe.discover"), recent=past(style="http")).style == "binl"


def test_the_style_of_an_earlier_boot_is_the_first_one_tried(asked: Asked, view: FleetView) -> None:
    mine = replace(view, machines={1: replace(view.machines[1], facts={"style": "options"})})
    decision = told(asked("ovmf-pxe.discover"), mine)
    assert decision.style == "options" and "earlier boot" in reason(decision, "style")
    assert told(asked("ovmf-pxe.discover"), mine, past(style="options", discovers=3)).style == "late"
    assert told(asked("ovmf-http.discover"), mine).style == "http"
    gone = replace(view, machines={1: replace(view.machines[1], facts={"style": "rpi"})})
    assert told(asked("ovmf-pxe.discover"), gone).style == "binl"


def test_a_pinned_style_wins_but_not_over_http(asked: Asked, view: FleetView) -> None:
    mine = pinned(view, Pin(style="late"))
    assert told(asked("ovmf-pxe.discover"), mine, past(style="pxe10", discovers=3)).style == "late"
    assert told(asked("ovmf-http.discover"), mine).style == "http"
    assert told(asked("ovmf-pxe.discover"), pinned(view, Pin(style="no-such-style"))).style == "binl"


def test_every_order_names_known_styles() -> None:
    for family in pxe.FAMILIES:
        for flags in ({}, {"http": True}, {"uboot": True}):
            order = styles_for(family, **flags)
            assert order and set(order) <= set(STYLES) and len(set(order)) == len(order)


# --- nothing breaks it ---

OPTIONS = st.dictionaries(
    st.sampled_from([43, 53, 54, 60, 61, 77, 93, 94, 97, 175]),
    st.binary(max_size=40)
    | st.sampled_from([b"PXEClient", b"HTTPClient:Arch:00016", b"U-Boot", b"iPXE", b"\1", b"\3", b"\0\7", b"\0\0"]),
)
RECENTS = st.none() | st.builds(
    Recent,
    boot=st.just("00" * 8),
    started=st.just(0.0),
    last=st.just(0.0),
    style=st.sampled_from(["", *STYLES, "gone"]),
    discovers=st.integers(0, 20),
    loader=st.just("x.efi"),
    loader_at=st.floats(0, NOW),
    loader_cycles=st.integers(0, 5),
    script_at=st.floats(0, NOW),
)


@given(
    OPTIONS,
    st.sampled_from([67, 4011]),
    st.binary(max_size=16),
    RECENTS,
    st.sampled_from(list(Policy)),
    st.builds(Pin, style=st.sampled_from(["", *STYLES]), loader=st.sampled_from(["", "p.efi"])),
)
def test_every_packet_has_a_decision_with_reasons(
    options: dict[int, bytes], port: int, chaddr: bytes, recent: Recent | None, policy: Policy, pin: Pin
) -> None:
    packet = dhcp.Packet(1, b"xidx", chaddr, tuple(options.items()))
    request = request_of(packet, port)
    if request is None:
        return
    machine = Machine(1, "m", (request.mac,), pin=pin)
    view = FleetView(machines={1: machine}, by_mac={request.mac: 1}, policy=policy)
    decision = told(request, view, recent)
    assert decision == told(request, view, recent)
    assert decision.reasons and all(r.text for r in decision.reasons)
    if decision.action == "answer":
        assert decision.style in STYLES and bool(decision.loader) == (decision.kind == "loader")
    else:
        assert decision.why and not decision.style
