"""The rules by which firmware takes offers, cell by cell of the table in docs/simulators.md, in virtual time."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from simlab import DIRECT, LAN, MAC, PROXY, SCRIPT, TABLE, Lan, Proxy, World

from pxeserver.sim.dialogue import BootFile, find_file
from pxeserver.sim.effects import Stopped
from pxeserver.sim.firmware import FIRMWARE
from pxeserver.sim.packets import Card
from pxeserver.wire import dhcp, pxe

FILES = {"ipxe-rom": SCRIPT, "bios": "undionly.kpxe", "edk2": "snponly.efi"}


def find(firmware: str, proxy: Proxy, lan: Lan | None = None) -> tuple[BootFile | None, World]:
    world = World((lan or Lan(), proxy))
    try:
        return world.play(find_file(FIRMWARE[firmware], Card.of(MAC), random.Random(1))), world
    except Stopped:
        return None, world


CELLS = [
    pytest.param(firmware, settings, want, id=f"{what}-{firmware}")
    for what, settings, *wants in TABLE
    for firmware, want in zip(FILES, wants, strict=True)
]


@pytest.mark.parametrize(("firmware", "settings", "want"), CELLS)
def test_what_a_proxy_offer_must_contain(firmware: str, settings: dict[str, Any], want: str) -> None:
    found, world = find(firmware, Proxy(**{**settings, "no": frozenset(settings.get("no", ()))}))
    asked = sum(packet.message == dhcp.DISCOVER for packet in world.sent)
    if want == "no":
        assert found is None, world.text()
    else:
        assert found is not None and (found.server, found.file) == (PROXY, FILES[firmware]), world.text()
        assert (asked > 1 and world.now > 8) == (want == "on retry")


def test_old_edk2_loses_offers_with_option_43_and_takes_those_without() -> None:
    assert find("edk2-2016", Proxy(vendor=DIRECT))[0] is None
    found, world = find("edk2-2016", Proxy())
    assert found is not None and found.file == "snponly.efi"
    assert world.sent[-1].message == dhcp.REQUEST  # by port 4011


def test_edk2_collects_for_four_seconds_where_ipxe_goes_on_at_once() -> None:
    assert find("edk2", Proxy())[1].now > 4
    assert find("ipxe-rom", Proxy())[1].now < 0.1


def test_a_refusal_says_what_was_missing() -> None:
    def why(firmware: str, proxy: Proxy, lan: Lan | None = None) -> str:
        world = World((lan or Lan(), proxy))
        with pytest.raises(Stopped) as stopped:
            world.play(find_file(FIRMWARE[firmware], Card.of(MAC), random.Random(1)))
        return str(stopped.value)

    assert "no PXEClient in option 60" in why("edk2", Proxy(no=frozenset({"60"})))
    assert "no PXEClient in option 60" in why("ipxe-rom", Proxy(no=frozenset({"60"})))
    assert "no option 54" in why("edk2", Proxy(no=frozenset({"54"})))
    assert why("edk2", Proxy(silent_4011=True)) == f"4011: {PROXY}:4011: no answer"
    assert "drops proxy offers with option 43" in why("edk2-2016", Proxy(vendor=DIRECT))
    assert "port 4040, not 4011" in why("ipxe-rom", Proxy(only_4011=True, port_4011=4040))
    assert "nothing about booting" in why("edk2", Proxy(delay=99))
    assert "does not say" in why("rpi", Proxy())
    assert "no HTTPClient" in why("http", Proxy(files={"http": "x", "efi": "x"}, no=frozenset({"60"})))
    assert "names no URI" in why("http", Proxy(files={"http": "snponly.efi"}))
    assert "tells no DNS" in why("http", Proxy(files={"http": "http://boot.example/x.efi"}))
    assert "took its offer" in why("bios", Proxy(), Lan(broken="nak"))
    assert "did not acknowledge" in why("bios", Proxy(), Lan(broken="no-ack"))


def test_nobody_and_nobody_with_an_address() -> None:
    for world, words in ((World(()), "nobody answered"), (World((Proxy(),)), "no DHCP server has offered an address")):
        for firmware in FIRMWARE.values():
            with pytest.raises(Stopped) as stopped:
                world.play(find_file(firmware, Card.of(MAC), random.Random(1)))
            assert words in str(stopped.value) or "nobody answered" in str(stopped.value), firmware.name


MENU = pxe.dhcp.pack_suboptions(
    [
        (pxe.DISCOVERY_CONTROL, b"\x03"),
        (pxe.MENU_PROMPT, b"\0PXE"),
        (pxe.BOOT_SERVERS, b"\x80\x00\x01" + bytes([10, 77, 0, 2])),
        (pxe.BOOT_MENU, b"\x80\x00\x03net"),
    ],
    end=True,
)


@pytest.mark.parametrize("firmware", list(FILES))
def test_a_menus_first_item_is_asked_of_its_server(firmware: str) -> None:
    found, world = find(firmware, Proxy(vendor=MENU, only_4011=True))
    assert found is not None and found.file == FILES[firmware], world.text()
    chosen = pxe.boot_item(world.sent[-1].option(43) or b"")
    assert chosen == b"\x80\0\0\0"
    assert world.sent[-1].xid == bytes(4) or firmware == "edk2"


def test_a_main_server_that_names_a_file_is_taken_only_when_no_proxy_speaks() -> None:
    lan = Lan(file=b"theirs.0")
    for firmware in ("ipxe-rom", "bios", "edk2"):
        found, world = find(firmware, Proxy(delay=99), lan)
        assert found is not None and (found.server, found.file) == (LAN, "theirs.0"), world.text()
        found, _ = find(firmware, Proxy(), lan)
        assert found is not None and found.file == FILES[firmware]


def test_edk2_prefers_a_main_server_that_calls_itself_a_pxe_server() -> None:
    lan = Lan(file=b"theirs.efi", extra=((60, b"PXEClient"), (43, DIRECT)))
    found, _ = find("edk2", Proxy(vendor=DIRECT), lan)
    assert found is not None and found.server == LAN


def test_uboot_reads_the_proxys_header_and_nothing_else() -> None:
    files = {"efi": "snponly.efi", "http": ""}
    found, _ = find("uboot", Proxy(files=files))
    assert found is not None and (found.server, found.file) == (PROXY, "snponly.efi")
    assert find("uboot", Proxy(files=files, no=frozenset({"file"}), opt67=True))[0] is None
    assert find("uboot", Proxy(files=files, no=frozenset({"siaddr"}), opt66=True))[0] is None
    assert find("uboot", Proxy(files=files, delay=0.05))[0] is not None
    assert find("uboot", Proxy(files=files, delay=0.2))[0] is None


def test_the_pi_wants_its_words_and_http_boot_its_class() -> None:
    found, _ = find("rpi", Proxy(vendor=pxe.raspberry_menu()))
    assert found is not None and found.server == PROXY
    url = f"http://{PROXY}/snponly.efi"
    found, _ = find("http", Proxy(files={"http": url}))
    assert found is not None and found.file == url
    with_dns = Lan(extra=((6, b"\x0a\x4d\0\1"),))
    assert find("http", Proxy(files={"http": "http://boot.example/x.efi"}), with_dns)[0] is not None


def test_an_answer_of_another_server_is_not_the_asked_ones() -> None:
    assert find("ipxe-rom", Proxy(only_4011=True, no=frozenset({"54"})))[0] is not None  # its address names it

    class Other(Proxy):
        def reply(self, packet: dhcp.Packet, port: int) -> bytes:
            raw = super().reply(packet, port)
            if port != 4011:
                return raw
            answer = dhcp.parse(raw)
            options = tuple((c, b"\x0a\x4d\0\x63" if c == 54 else v) for c, v in answer.options)
            return replace(answer, options=options).pack()

    assert find("ipxe-rom", Other(only_4011=True))[0] is None
    assert find("edk2", Other(only_4011=True))[0] is not None  # EDK2 does not look
